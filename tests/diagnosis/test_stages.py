import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from lightning_recipes.diagnosis.examination import Examination
from lightning_recipes.diagnosis.stages import BEFORE_TRAINING

from .toys import Classifier, Draws, Gan, Nothing, data, fit

AT_THE_LOSS = ("first step", "logits", "batch mixing")
STAGES = dict(BEFORE_TRAINING)


def examined(kind, stages=tuple(STAGES), **options):
    def act(trainer, module):
        return Examination(trainer, seconds=20).run([(name, STAGES[name]) for name in stages])

    options = {"validation": False, **options}
    return {finding.check: finding for finding in fit(kind, act, epochs=1, **options)[1]}


def of_loss(loss):
    class Lossy(Classifier):
        def loss(self, batch):
            return loss(self.net(batch[0]), batch[1])

    return Lossy


def alarms(findings):
    return {check: found.causes[:1] for check, found in findings.items() if found.status in ("FAIL", "WARN")}


def test_a_healthy_run_has_no_alarm_and_no_crash():
    found = examined(Classifier)
    assert alarms(found) == {}
    assert not any(f.message.startswith("could not run") for f in found.values())


def blended(z, y):
    share, other = float(torch.rand(())), y[torch.randperm(len(y))]
    return share * functional.cross_entropy(z, y) + (1 - share) * functional.cross_entropy(z, other)


HEALTHY = {
    "blends": blended,
    "by hand": lambda z, y: -(z.log_softmax(1) * (functional.one_hot(y, 3) * 0.9 + 0.1 / 3)).sum(1).mean(),
    "binary": lambda z, y: functional.binary_cross_entropy_with_logits(z, functional.one_hot(y, 3).float()),
    "nll": lambda z, y: functional.nll_loss(z.log_softmax(1), y),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_losses_have_no_alarm(name):
    assert alarms(examined(of_loss(HEALTHY[name]))) == {}


def test_draws_of_any_generator_are_no_batch_mixing():
    assert examined(Draws, AT_THE_LOSS)["batch mixing"].status == "PASS"


def test_opposed_optimizers_are_not_asked_to_learn_by_heart():
    assert alarms(examined(Gan)) == {}


FAULTS = {
    "softmax": (
        lambda z, y: functional.cross_entropy(z.softmax(1), y),
        "logits",
        "softmax-before-cross-entropy",
    ),
    "sign": (lambda z, y: -functional.cross_entropy(z, y), "gradient at the logits", "loss-sign-flipped"),
    "sum": (
        lambda z, y: functional.cross_entropy(z, y, reduction="sum"),
        "gradient at the logits",
        "sum-reduction",
    ),
    "nll": (functional.nll_loss, "logits", "nll-on-raw-logits"),
    "over the batch": (
        lambda z, y: functional.nll_loss(z.log_softmax(0), y),
        "logits",
        "softmax-over-batch",
    ),
    "detached": (lambda z, y: functional.cross_entropy(z.detach(), y), "first step", "loss-detached"),
    "another number of classes": (
        lambda z, y: functional.cross_entropy(z, y + 1),
        "first step",
        "wrong-number-of-classes",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named(name):
    loss, check, cause = FAULTS[name]

    class Faulty(Classifier):
        """Faulty on trial only, so that the run itself gets through."""

        def loss(self, batch):
            z = self.net(batch[0])
            used = loss if hasattr(self, "_trial_step") else functional.cross_entropy
            return used(z, batch[1])

    found = examined(Faulty, AT_THE_LOSS)[check]
    assert (found.status, found.causes[0]) == ("FAIL", cause)


def test_a_softmax_in_the_model_is_told_from_one_outside():
    class Inside(Classifier):
        def __init__(self):
            super().__init__()
            self.net.append(nn.Softmax(1))

    assert examined(Inside, AT_THE_LOSS)["logits"].causes[0] == "softmax-in-model"


def test_no_loss_at_all():
    found = examined(Nothing)
    assert found["first step"].status == found["overfit"].status == found["learning rate"].status == "SKIP"


def test_a_view_across_the_batch():
    class Crossing(Classifier):
        def loss(self, batch):
            x = batch[0].T.reshape(batch[0].shape)
            return functional.cross_entropy(self.net(x), batch[1])

    found = examined(Crossing, AT_THE_LOSS)["batch mixing"]
    assert (found.status, found.causes[0]) == ("FAIL", "batch-mixing")


class Augmented(Dataset):
    def __init__(self, draw):
        self.draw = draw

    def __len__(self):
        return 64

    def __getitem__(self, index):
        x, y = data()
        return x[index] + self.draw(), y[index]


@pytest.mark.parametrize("source", ["torch", "numpy", "python"])
def test_random_validation_whatever_it_is_drawn_from(source, monkeypatch):
    import random

    import numpy as np

    draw = {"torch": lambda: torch.rand(6), "numpy": np.random.rand, "python": random.random}[source]
    loader = DataLoader(Augmented(lambda: torch.as_tensor(draw(), dtype=torch.float32)), batch_size=16)

    def act(trainer, module):
        monkeypatch.setattr("lightning_recipes.diagnosis.examination.validation_loader", lambda _: loader)
        return Examination(trainer, seconds=20).run([("validation data", STAGES["validation data"])])

    found = {f.check: f for f in fit(Classifier, act, epochs=1)[1]}
    assert found["random validation"].causes == ("augmentation-on-validation",)
