"""Faults between the last layer and the loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .cases import Run, Shelf
from .modules import Classifier, new_net, run, sgd, usual

CASES = Shelf("faults")


@CASES.fault("softmax-before-cross-entropy")
def softmax_before_cross_entropy(arch: str, data: str) -> Run:
    """The probabilities are given to the cross-entropy."""

    class Faulty(Classifier):
        def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(logits.softmax(1), labels)

    return run(arch, data, module=Faulty)


@CASES.fault("softmax-in-model", "softmax-before-cross-entropy")
def softmax_in_model(arch: str, data: str) -> Run:
    """The net ends in a softmax layer."""
    return run(arch, data, net=nn.Sequential(new_net(arch, data), nn.Softmax(dim=1)))


@CASES.fault("activation-on-logits")
def relu_on_logits(arch: str, data: str) -> Run:
    """The net ends in a ReLU."""
    return run(arch, data, net=nn.Sequential(new_net(arch, data), nn.ReLU()))


@CASES.fault("loss-sign-flipped")
def sign_flipped(arch: str, data: str) -> Run:
    """The loss is maximised."""

    class Faulty(Classifier):
        def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
            return -F.cross_entropy(logits, labels)

    return run(arch, data, module=Faulty)


@CASES.fault("sum-reduction")
def sum_reduction(arch: str, data: str) -> Run:
    """The loss is a sum over the batch."""

    class Faulty(Classifier):
        def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, reduction="sum")

    return run(arch, data, module=Faulty)


@CASES.fault("softmax-over-batch")
def softmax_over_the_batch(arch: str, data: str) -> Run:
    """The log-softmax is taken over dimension 0."""

    class Faulty(Classifier):
        def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
            return F.nll_loss(F.log_softmax(logits, 0), labels)

    return run(arch, data, module=Faulty)


@CASES.fault("mse-for-classification", mild=True)
def mse_on_one_hot(arch: str, data: str) -> Run:
    """The squared error to one-hot labels."""

    class Faulty(Classifier):
        def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
            return F.mse_loss(logits, F.one_hot(labels, 10).float())

    return run(arch, data, module=Faulty)


@CASES.fault("nll-on-raw-logits")
def nll_on_raw_logits(arch: str, data: str) -> Run:
    """NLL without a log-softmax."""

    class Faulty(Classifier):
        def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
            return F.nll_loss(logits, labels)

    return run(arch, data, module=Faulty)


@CASES.fault("label-smoothing-too-strong")
def label_smoothing_09(arch: str, data: str) -> Run:
    """Labels smoothed by .9."""

    class Faulty(Classifier):
        def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, label_smoothing=0.9)

    return run(arch, data, module=Faulty)


# Faults beyond the list


@CASES.fault("activation-on-logits", "sigmoid-before-loss", extra=True)
def sigmoid_before_cross_entropy(arch: str, data: str) -> Run:
    """Sigmoids are given to the cross-entropy."""

    class Faulty(Classifier):
        def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(logits.sigmoid(), labels)

    return run(arch, data, module=Faulty)


@CASES.fault("activation-on-logits", "saturating-activation", extra=True)
def tanh_on_logits(arch: str, data: str) -> Run:
    """The net ends in a tanh."""
    return run(arch, data, net=nn.Sequential(new_net(arch, data), nn.Tanh()))


@CASES.fault("sigmoid-before-loss", extra=True)
def sigmoid_twice(arch: str, data: str) -> Run:
    """Sigmoids are given to the binary cross-entropy with logits."""

    class Faulty(Classifier):
        def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
            targets = F.one_hot(labels, 10).float()
            return F.binary_cross_entropy_with_logits(logits.sigmoid(), targets)

    return run(arch, data, module=Faulty)


@CASES.fault("softmax-over-batch", extra=True)
def softmax_layer_over_the_batch(arch: str, data: str) -> Run:
    """The net ends in a softmax over dimension 0, and its logarithm goes to the NLL."""

    class Faulty(Classifier):
        def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
            return F.nll_loss((logits + 1e-9).log(), labels)

    net = nn.Sequential(new_net(arch, data), nn.Softmax(dim=0))
    return run(arch, data, module=Faulty, net=net)


@CASES.fault("wrong-loss", extra=True)
def arguments_swapped(arch: str, data: str) -> Run:
    """One-hot labels as logits, probabilities as targets."""

    class Faulty(Classifier):
        def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(F.one_hot(labels, 10).float(), logits.softmax(1))

    return run(arch, data, module=Faulty)


@CASES.fault("loss-detached", extra=True)
def loss_rewrapped(arch: str, data: str) -> Run:
    """The loss is a new tensor: nothing fails, and nothing is learned."""

    class Faulty(Classifier):
        def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
            return torch.tensor(F.cross_entropy(logits, labels).item(), requires_grad=True)

    return run(arch, data, module=Faulty)


@CASES.fault("loss-detached", extra=True)
def loss_detached(arch: str, data: str) -> Run:
    """The loss is detached: the backward pass fails."""

    class Faulty(Classifier):
        def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels).detach()

    return run(arch, data, module=Faulty)


@CASES.fault("loss-sign-flipped", extra=True)
def likelihood_minimised(arch: str, data: str) -> Run:
    """The mean log-likelihood, without its minus."""

    class Faulty(Classifier):
        def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
            return F.log_softmax(logits, 1)[torch.arange(len(labels)), labels].mean()

    return run(arch, data, module=Faulty, optimizer=usual(arch))


@CASES.fault("sum-reduction", on=(("plain", "digits"),), extra=True)
def sum_of_sums(arch: str, data: str) -> Run:
    """Written by hand, and summed."""

    class Faulty(Classifier):
        def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
            return -(F.one_hot(labels, 10) * F.log_softmax(logits, 1)).sum()

    return run(arch, data, module=Faulty, optimizer=sgd(0.02))
