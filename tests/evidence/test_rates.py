import pytest
import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.utils.data import DataLoader

from lightning_recipes.evidence.rates import simulated_rates
from lightning_recipes.utils.rng import generator_states
from tests.contract.toys import same
from tests.diagnosis.toys import Classifier, Stream, fit, state


def warmup_cosine(optimizer):
    return SequentialLR(
        optimizer, [LinearLR(optimizer, 0.1, total_iters=3), CosineAnnealingLR(optimizer, 9)], [3]
    )


SCHEDULES = {
    "one cycle": (lambda o: OneCycleLR(o, 0.5, total_steps=13), {"interval": "step"}),
    "cosine": (lambda o: CosineAnnealingLR(o, 12), {"interval": "step"}),
    "warmup": (warmup_cosine, {"interval": "step"}),
    "every second step": (lambda o: ExponentialLR(o, 0.5), {"interval": "step", "frequency": 2}),
    "by epoch": (lambda o: StepLR(o, 1, 0.1), {"interval": "epoch"}),
}


def scheduled(make, **config):
    class Scheduled(Classifier):
        def __init__(self):
            super().__init__()
            self.rates = []

        def configure_optimizers(self):
            optimizer = torch.optim.SGD([{"params": self.net[0].parameters()}], 0.1)
            optimizer.add_param_group({"params": self.net[4].parameters(), "lr": 0.3})
            return [optimizer], [{"scheduler": make(optimizer), **config}]

        def on_before_optimizer_step(self, optimizer):
            self.rates.append(max(group["lr"] for group in optimizer.param_groups))

    return Scheduled


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rates_are_those_that_the_run_will_have(name):
    make, config = SCHEDULES[name]
    kind = scheduled(make, **config)
    trainer, rates = fit(kind, lambda trainer, _: simulated_rates(trainer), epochs=3)
    seen = trainer.lightning_module.rates
    assert len(seen) == 12
    if config["interval"] == "epoch":
        seen = seen[::4]
    assert rates == pytest.approx(seen)


def test_accumulated_steps_are_fewer():
    kind = scheduled(*SCHEDULES["cosine"][:1], interval="step")
    trainer, rates = fit(kind, lambda t, _: simulated_rates(t), epochs=3, accumulate_grad_batches=2)
    assert rates == pytest.approx(trainer.lightning_module.rates)


def test_nothing_moves():
    def act(trainer, module):
        before = state(trainer), generator_states()
        simulated_rates(trainer)
        return same(before, (state(trainer), generator_states()))

    assert fit(scheduled(*SCHEDULES["one cycle"][:1], interval="step"), act, epochs=3)[1]


class Bare(Classifier):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def on_plateau(optimizer):
    return ReduceLROnPlateau(optimizer)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Bare, {}),
        (scheduled(on_plateau, monitor="train/loss"), {}),
        (Classifier, {"train": DataLoader(Stream(), batch_size=16)}),
        (Classifier, {"epochs": -1, "max_time": {"days": 1}}),
        (scheduled(*SCHEDULES["cosine"][:1], interval="step"), {"epochs": 6000}),
    ],
)
def test_what_cannot_be_simulated_is_said(kind, options):
    def act(trainer, module):
        trainer.should_stop = True
        return simulated_rates(trainer)

    _, found = fit(kind, act, **{"epochs": 1, **options})
    assert isinstance(found, str)
    assert found
