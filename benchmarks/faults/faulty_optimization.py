"""Faults in the optimizer, its schedule and its steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from .cases import PAIRS, Run, Settings, Shelf
from .modules import Classifier, adamw, new_net, run, sgd, usual

CASES = Shelf("faults")
CLIP = 1e-6


@CASES.fault("learning-rate-too-high")
def rate_times_100(arch: str, data: str) -> Run:
    """A learning rate 100 times the usual."""
    return run(arch, data, optimizer=usual(arch, factor=100))


@CASES.fault("learning-rate-too-low")
def rate_by_100(arch: str, data: str) -> Run:
    """A learning rate of a hundredth of the usual."""
    return run(arch, data, optimizer=usual(arch, factor=0.01))


@CASES.fault("optimizer-misses-parameters")
def optimizer_of_the_head_only(arch: str, data: str) -> Run:
    """The optimizer has the head's parameters only."""

    class Faulty(Classifier):
        def configure_optimizers(self) -> Any:
            return self.make_optimizer(self.net.head.parameters())

    return run(arch, data, module=Faulty)


@CASES.fault("head-replaced-after-optimizer", "optimizer-misses-parameters")
def head_replaced_at_fit_start(arch: str, data: str) -> Run:
    """The head is replaced when the optimizer is there already."""

    class Faulty(Classifier):
        def on_train_start(self) -> None:
            self.net.head = nn.Linear(self.net.head.in_features, 10)

    return run(arch, data, module=Faulty)


@CASES.fault("weight-decay-too-high")
def weight_decay_50(arch: str, data: str) -> Run:
    """A weight decay of 50."""
    optimizer = sgd(weight_decay=50.0) if arch in ("cnn", "resnet") else adamw(weight_decay=50.0)
    return run(arch, data, optimizer=optimizer)


class Manual(Classifier):
    """Optimizes by hand, rightly."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.automatic_optimization = False

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Take a step."""
        optimizer = self.optimizers()
        loss = self.loss(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        self.update(optimizer, loss)

    def update(self, optimizer: Any, loss: Tensor) -> None:
        """Change the weights."""
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


@CASES.fault("missing-zero-grad")
def missing_zero_grad(arch: str, data: str) -> Run:
    """Gradients add up from step to step."""

    class Faulty(Manual):
        def update(self, optimizer: Any, loss: Tensor) -> None:
            self.manual_backward(loss)
            optimizer.step()

    return run(arch, data, module=Faulty)


@CASES.fault(
    "gradient-clipping-too-strong", on=(("cnn", "digits"), ("resnet", "fashion"), ("vit", "fashion"))
)
def clipped_by_the_trainer(arch: str, data: str) -> Run:
    """The Trainer clips gradients to a norm of 1e-6."""
    return run(arch, data, settings={"gradient_clip_val": CLIP})


@CASES.fault("gradient-clipping-too-strong", on=(("cnn", "digits"), ("resnet", "fashion")))
def clipped_in_the_hook(arch: str, data: str) -> Run:
    """The module's own hook clips to 1e-6."""

    class Faulty(Classifier):
        def configure_gradient_clipping(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
            torch.nn.utils.clip_grad_norm_(self.parameters(), CLIP)

    return run(arch, data, module=Faulty)


@CASES.fault("gradient-clipping-too-strong", on=(("cnn", "digits"), ("resnet", "fashion")))
def clipped_by_hand(arch: str, data: str) -> Run:
    """Manual optimization clips each value to 1e-6."""

    class Faulty(Manual):
        def update(self, optimizer: Any, loss: Tensor) -> None:
            optimizer.zero_grad()
            self.manual_backward(loss)
            torch.nn.utils.clip_grad_value_(self.parameters(), CLIP)
            optimizer.step()

    return run(arch, data, module=Faulty)


# Faults beyond the list


@CASES.fault("missing-step", extra=True)
def missing_step(arch: str, data: str) -> Run:
    """Manual optimization without `step`."""

    class Faulty(Manual):
        def update(self, optimizer: Any, loss: Tensor) -> None:
            optimizer.zero_grad()
            self.manual_backward(loss)

    return run(arch, data, module=Faulty)


@CASES.fault("missing-step", on=(("cnn", "digits"), ("vit", "fashion")), extra=True)
def gradients_zeroed_before_the_step(arch: str, data: str) -> Run:
    """Gradients are set to zero between backward and step."""

    class Faulty(Manual):
        def update(self, optimizer: Any, loss: Tensor) -> None:
            self.manual_backward(loss)
            optimizer.zero_grad()
            optimizer.step()

    return run(arch, data, module=Faulty)


def _long_warmup(optimizer: Optimizer, steps: int) -> LRScheduler:
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 5000))


@CASES.fault("warmup-too-long", extra=True)
def warmup_longer_than_the_run(arch: str, data: str) -> Run:
    """A warmup over 5000 steps in a run of some 150."""
    return run(arch, data, schedule=_long_warmup)


def _short_decay(optimizer: Optimizer, steps: int) -> LRScheduler:
    return LambdaLR(optimizer, lambda step: max(0.0, 1 - step / (0.1 * steps)))


@CASES.fault("schedule-too-short", "schedule-too-early", extra=True)
def schedule_ends_at_a_tenth(arch: str, data: str) -> Run:
    """The rate is zero after a tenth of the run."""
    return run(arch, data, schedule=_short_decay)


@CASES.fault("learning-rate-too-low", extra=True)
def rate_zero(arch: str, data: str) -> Run:
    """A learning rate of 0."""
    return run(arch, data, optimizer=usual(arch, factor=0.0))


@CASES.fault("momentum-too-high", on=(("cnn", "digits"), ("resnet", "fashion")), extra=True)
def momentum_999(arch: str, data: str) -> Run:
    """SGD with a momentum of .999."""
    return run(arch, data, optimizer=sgd(momentum=0.999))


@CASES.fault("learning-rate-too-high", on=(("plain", "digits"), ("convnext", "fashion")), extra=True)
def sgd_with_rate_one_thousand(arch: str, data: str) -> Run:
    """A rate without its minus: 1e3 instead of 1e-3."""
    return run(arch, data, optimizer=adamw(1e3))


@CASES.fault("optimizer-misses-parameters", on=PAIRS[:2], extra=True)
def layers_in_a_list(arch: str, data: str) -> Run:
    """The body is kept in a plain list: its parameters are not the module's."""

    class Faulty(Classifier):
        def __init__(self, net: Any, *args: Any) -> None:
            super().__init__(net.head, *args)
            self.hidden = [net.body]

        def forward(self, images: Tensor) -> Tensor:
            return self.net(self.hidden[0](images))

    return run(arch, data, module=Faulty, net=new_net(arch, data))


@CASES.fault("learning-rate-too-high", on=(("vit", "digits"), ("mlp", "fashion")), extra=True)
def sgd_rate_for_adam(arch: str, data: str) -> Run:
    """SGD's usual rate given to Adam."""
    settings: Settings = {}
    return run(arch, data, optimizer=lambda p: torch.optim.Adam(p, lr=0.1), settings=settings)
