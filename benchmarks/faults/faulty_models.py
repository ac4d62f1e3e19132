"""Faults in the net and in how it is initialised."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .cases import Run, Shelf
from .data import CHANNELS, SIZES
from .modules import Classifier, adamw, new_net, run, sgd
from .nets import Net, mlp

CASES = Shelf("faults")
PLAIN = (("plain", "digits"), ("mlp", "fashion"))


def _weights(net: nn.Module) -> list[nn.Parameter]:
    return [p for p in net.parameters() if p.ndim > 1]


@CASES.fault("zero-initialization")
def zero_initialised(arch: str, data: str) -> Run:
    """All weights and biases of linear and convolution layers are zero."""
    net = new_net(arch, data)
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.zeros_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for weight in _weights(net):
        nn.init.zeros_(weight)
    return run(arch, data, net=net)


@CASES.fault("constant-initialization", on=(("cnn", "digits"), ("plain", "fashion"), ("vit", "fashion")))
def constant_initialised(arch: str, data: str) -> Run:
    """All weights are .02."""
    net = new_net(arch, data)
    for weight in _weights(net):
        nn.init.constant_(weight, 0.02)
    return run(arch, data, net=net)


@CASES.fault("initialization-too-large", on=(*PLAIN, ("resnet", "fashion"), ("vit", "fashion")))
def standard_normal_initialised(arch: str, data: str) -> Run:
    """All weights are drawn from N(0, 1)."""
    net = new_net(arch, data)
    for weight in _weights(net):
        nn.init.normal_(weight)
    return run(arch, data, net=net)


@CASES.fault("dead-relu", on=(*PLAIN, ("cnn", "digits"), ("resnet", "fashion")))
def dead_relu(arch: str, data: str) -> Run:
    """The biases before one layer's ReLUs are -10 (with BatchNorm its biases, else those of the layer)."""
    net = new_net(arch, data)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    layers = [m for m in net.body.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    nn.init.constant_(norms[0].bias if norms else layers[1].bias, -10.0)
    return run(arch, data, net=net)


@CASES.fault("saturating-activation", "vanishing-gradients", on=(("mlp", "digits"), ("mlp", "fashion")))
def deep_sigmoid(arch: str, data: str) -> Run:
    """Twelve layers with sigmoids."""
    net = Net(mlp(CHANNELS[data] * SIZES[data] ** 2, depth=12, width=64, act=nn.Sigmoid), 64)
    return run(arch, data, net=net)


@CASES.fault("detached-backbone")
def detached_backbone(arch: str, data: str) -> Run:
    """The features are detached before the head."""

    class Faulty(Classifier):
        def forward(self, images: Tensor) -> Tensor:
            return self.net.head(self.net.body(images).detach())

    return run(arch, data, module=Faulty)


@CASES.fault("frozen-backbone")
def frozen_backbone(arch: str, data: str) -> Run:
    """The body has random weights and `requires_grad=False`."""
    net = new_net(arch, data)
    net.body.requires_grad_(False)
    return run(arch, data, net=net)


@CASES.fault("batch-mixing")
def view_across_the_batch(arch: str, data: str) -> Run:
    """Features are brought into shape by a `view` that should be a transposition."""

    class Faulty(Classifier):
        def forward(self, images: Tensor) -> Tensor:
            features = self.net.body(images).t().contiguous()  # (D, B)
            return self.net.head(features.view(len(images), -1))

    return run(arch, data, module=Faulty)


@CASES.fault("batch-mixing", on=(("vit", "digits"), ("vit", "fashion")))
def attention_over_the_batch(arch: str, data: str) -> Run:
    """Attention takes the batch for the sequence."""
    net = new_net(arch, data)
    for module in net.modules():
        if isinstance(module, nn.MultiheadAttention):
            module.batch_first = False
    # with batch_first False in the attention alone, tokens (B, N, D) are read as (N, B, D)
    return run(arch, data, net=net)


@CASES.fault("eval-mode-in-training", on=(("cnn", "digits"), ("resnet", "fashion"), ("vgg", "fashion")))
def eval_mode_in_training(arch: str, data: str) -> Run:
    """The net is in eval mode in the training step."""

    class Faulty(Classifier):
        def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
            self.net.eval()

    return run(arch, data, module=Faulty)


@CASES.fault("dropout-too-strong")
def dropout_95(arch: str, data: str) -> Run:
    """95 % of the features are dropped: `p` was meant as the probability to keep."""
    net = new_net(arch, data)
    net.dropout.p = 0.95
    return run(arch, data, net=net)


# Faults beyond the list


@CASES.fault("batch-norm-statistics", on=(("cnn", "digits"), ("resnet", "fashion")), extra=True)
def batch_norm_never_updated(arch: str, data: str) -> Run:
    """BatchNorm's momentum is 0: its averages stay 0 and 1."""
    net = new_net(arch, data)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    return run(arch, data, net=net)


@CASES.fault("detached-backbone", extra=True)
def backbone_without_grad(arch: str, data: str) -> Run:
    """The body runs under `no_grad`."""

    class Faulty(Classifier):
        def forward(self, images: Tensor) -> Tensor:
            with torch.no_grad():
                features = self.net.body(images)
            return self.net.head(features)

    return run(arch, data, module=Faulty)


@CASES.fault("initialization-too-large", "exploding-gradients", on=PLAIN, extra=True)
def gain_five(arch: str, data: str) -> Run:
    """Each layer's weights are five times too large."""
    net = new_net(arch, data)
    for weight in _weights(net):
        weight.data.mul_(5)
    return run(arch, data, net=net)


@CASES.fault("initialization-too-small", "vanishing-gradients", on=PLAIN, extra=True)
def tiny_weights(arch: str, data: str) -> Run:
    """Each layer's weights are a hundred times too small."""
    net = new_net(arch, data)
    for weight in _weights(net):
        weight.data.mul_(0.01)
    return run(arch, data, net=net, optimizer=sgd(0.01))


@CASES.fault(
    "train-mode-in-validation", on=(("cnn", "digits"), ("resnet", "fashion"), ("vit", "digits")), extra=True
)
def train_mode_in_validation(arch: str, data: str) -> Run:
    """The net validates in train mode."""

    class Faulty(Classifier):
        def on_validation_epoch_start(self) -> None:
            self.net.train()

    return run(arch, data, module=Faulty, net=new_net(arch, data, dropout=0.3))


@CASES.fault("saturating-activation", "vanishing-gradients", on=(("mlp", "fashion"),), extra=True)
def deep_tanh_with_large_weights(arch: str, data: str) -> Run:
    """Ten layers of tanh whose weights are drawn from N(0, 1)."""
    net = Net(mlp(CHANNELS[data] * SIZES[data] ** 2, depth=10, width=64, act=nn.Tanh), 64)
    for weight in _weights(net.body):
        nn.init.normal_(weight)
    return run(arch, data, net=net)


@CASES.fault("batch-mixing", on=(("cnn", "fashion"), ("vit", "fashion")), extra=True)
def features_centred_over_the_batch(arch: str, data: str) -> Run:
    """The mean over the batch is taken from the features, in evaluation as well."""

    class Faulty(Classifier):
        def forward(self, images: Tensor) -> Tensor:
            features = self.net.body(images)
            return self.net.head(features - features.mean(0))

    return run(arch, data, module=Faulty)


@CASES.fault("frozen-backbone", on=(("resnet", "digits"), ("vit", "digits")), extra=True)
def half_frozen(arch: str, data: str) -> Run:
    """The first half of a net with random weights is frozen."""
    net = new_net(arch, data)
    parameters = list(net.body.parameters())
    for parameter in parameters[: len(parameters) // 2]:
        parameter.requires_grad = False
    return run(arch, data, net=net, optimizer=adamw())
