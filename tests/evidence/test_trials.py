import copy
import logging
import os
import random
import signal
import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.nn import functional

from lightning_recipes.evidence.trials import Trials, optimizers_of
from tests.contract.toys import QUIET, same
from tests.diagnosis.toys import ByHand, Classifier, Draws, Gan, Once, batches, fit, loader, state

BEGINNINGS_AND_ENDS = (
    "prepare_data",
    "setup",
    "configure_model",
    "configure_optimizers",
    "configure_callbacks",
    "on_fit_start",
    "on_train_start",
    "on_train_epoch_end",
    "on_train_end",
    "on_fit_end",
    "teardown",
)


def run(trainer, steps=6, **options):
    return Trials(trainer).run(batches(), steps, **options)


def surroundings(trainer):
    """Return what a trial could leave behind outside of the module's state."""
    module = trainer.lightning_module
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return {
        "environment": dict(os.environ),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "warnings": list(warnings.filters),
        "levels": [logging.getLogger(name).level for name in names],
        "hooks": [len(getattr(part, key)) for part in module.modules() for key in hooks],
        "parameter hooks": [len(p._backward_hooks or ()) for p in module.parameters()],
        "optimizer hooks": [
            (len(o._optimizer_step_pre_hooks), len(o._optimizer_step_post_hooks)) for o in trainer.optimizers
        ],
        "steps of optimizers": ["step" in vars(o) for o in trainer.optimizers],
        "modes": [part.training for part in module.modules()],
        "trainable": [p.requires_grad for p in module.parameters()],
        "attributes": sorted(vars(module)),
        "trainer": sorted(vars(trainer)),
        "owner": module.trainer is trainer,
        "progress": [trainer.fit_loop.state_dict(), trainer.should_stop, trainer.global_step],
        "status": (trainer.state.fn, trainer.state.stage, trainer.state.status, trainer.num_training_batches),
        "callbacks": [id(callback) for callback in trainer.callbacks],
        "loggers": [id(found) for found in trainer.loggers],
        "metrics": dict(trainer.callback_metrics),
        "gradients": torch.is_grad_enabled(),
        "determinism": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark),
        "precision": (torch.get_default_dtype(), torch.is_autocast_enabled("cpu")),
        "class": type(module),
    }


def tried(trainer, module, **options):
    """Try, and return what differs afterwards, and the outcome."""
    before = surroundings(trainer), state(trainer)
    outcome = run(trainer, **options)
    after = surroundings(trainer), state(trainer)
    left = [key for key in before[0] if before[0][key] != after[0][key]]
    return left + [key for key in before[1] if not same(before[1][key], after[1][key])], outcome


class Raising(Draws):
    def loss(self, batch):
        random.random(), np.random.rand(), torch.rand(1)
        if hasattr(self, "_trial_step") and self.trainer.global_step > 1:
            raise RuntimeError("mine")
        return super().loss(batch)


SETTINGS = {
    "plain": (Draws, {}),
    "accumulation and clipping": (Draws, {"accumulate_grad_batches": 3, "gradient_clip_val": 0.1}),
    "bf16": (Draws, {"precision": "bf16-mixed"}),
    "float64": (Classifier, {"precision": "64-true"}),
    "by hand": (ByHand, {}),
    "gan": (Gan, {"validation": False}),
    "raising": (Raising, {}),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("optimizer", ["own", "adam", "held"])
def test_nothing_is_left_behind(name, optimizer):
    kind, options = SETTINGS[name]
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)

    def act(trainer, module):
        return *tried(trainer, module, optimizer=optimizer), copy.deepcopy(module)

    _, (left, outcome, trained) = fit(kind, act, epochs=1, **options)
    assert left == []
    if name == "raising":
        assert str(outcome.error) == "mine"
        assert outcome.steps == 2
    else:
        assert outcome.error is None
        assert outcome.steps == 6
        moved = not same(list(outcome.module.parameters()), list(trained.parameters()))
        assert moved is (optimizer != "held")


@pytest.mark.parametrize("kind", [Draws, ByHand])
def test_the_fit_is_the_same_with_and_without_trials(kind):
    plain, _ = fit(kind)
    tried_out, _ = fit(kind, lambda trainer, module: [run(trainer) for _ in range(2)])
    assert same(state(plain), state(tried_out))


def test_hooks_of_beginning_and_end_are_not_called_again():
    called = []

    def noted(name):
        def hook(self, *arguments, **keywords):
            called.append(name)
            return getattr(super(Telling, self), name)(*arguments, **keywords)

        return hook

    class Telling(Classifier):
        pass

    for name in BEGINNINGS_AND_ENDS:
        setattr(Telling, name, noted(name))

    def act(trainer, module):
        before = list(called)
        outcome = run(trainer, 9)  # longer than an epoch
        assert outcome.steps == 9
        return before, list(called)

    _, (before, after) = fit(Telling, act)
    assert after == before
    assert set(called) == set(BEGINNINGS_AND_ENDS)


def test_the_datamodule_can_be_looked_up_and_is_left_alone():
    class Data(LightningDataModule):
        def __init__(self):
            super().__init__()
            self.called = []

        def prepare_data(self):
            self.called.append("prepare_data")

        def setup(self, stage):
            self.called.append("setup")

        def teardown(self, stage):
            self.called.append("teardown")

        def on_exception(self, exception):
            self.called.append("on_exception")

        def train_dataloader(self):
            self.called.append("train_dataloader")
            return loader()

        def on_after_batch_transfer(self, batch, dataloader_idx):
            self.called.append("transfer")
            return batch

    class Looking(Classifier):
        def training_step(self, batch, batch_idx):
            assert self.trainer.datamodule is data
            if getattr(self, "_trial_step", None) is None and failing and hasattr(self, "_trial_step"):
                raise ValueError("mine")
            return super().training_step(batch, batch_idx)

    failing = False

    def act(trainer, module):
        nonlocal failing
        before = list(data.called)
        assert run(trainer).error is None
        failing = True
        assert str(run(trainer).error) == "mine"
        assert data.called == before
        assert data.trainer is trainer
        assert Trials(trainer).datamodule() is data

    data = Data()
    Trainer(**{**QUIET, "max_epochs": 1, "callbacks": [Once(act)]}).fit(Looking(), datamodule=data)
    assert data.called.count("setup") == data.called.count("teardown") == 1


def test_nothing_is_logged(tmp_path):
    logged = []

    class Logger(CSVLogger):
        def log_metrics(self, metrics, step=None):
            logged.append(metrics)

        def finalize(self, status):
            logged.append(status)

    class Reaching(Classifier):
        def training_step(self, batch, batch_idx):
            self.logger.experiment.whatever(1)
            self.logger.log_metrics({"x": 1.0})
            return super().training_step(batch, batch_idx)

    def act(trainer, module):
        assert run(trainer).error is None
        assert logged == []
        return True

    kind = type("Both", (Classifier,), {})
    _, done = fit(kind, act, logger=Logger(tmp_path), epochs=1)
    assert done

    def quietly(trainer, module):
        trainer.lightning_module.__class__ = Reaching
        outcome = run(trainer)
        trainer.lightning_module.__class__ = kind
        return outcome.error

    assert fit(kind, quietly, epochs=1)[1] is None


class Linear(Classifier):
    """A quadratic with a known gradient."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(6, 3, bias=False)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.5)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.001)
        return [optimizer], [schedule]


def test_own_takes_steps_of_gradient_descent_at_the_peak_rate():
    def act(trainer, module):
        assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0005)
        outcome = run(trainer, 6)
        weight = module.net.weight.detach().clone().requires_grad_()
        given = batches()
        for number in range(6):
            x, y = given[number % 4]
            (gradient,) = torch.autograd.grad(functional.cross_entropy(x @ weight.T, y), weight)
            weight = (weight - 0.5 * gradient).detach().requires_grad_()
        torch.testing.assert_close(outcome.module.net.weight, weight)
        return True

    assert fit(Linear, act, epochs=1)[1]


def test_held_does_not_step_and_gives_gradients():
    def act(trainer, module):
        gradients = []

        def after(copy, number):
            gradients.append(copy.net.weight.grad.clone())

        outcome = run(trainer, 4, optimizer="held", after=after)
        assert same(dict(outcome.module.state_dict()), dict(module.state_dict()))
        for (x, y), gradient in zip(batches(), gradients, strict=True):
            (expected,) = torch.autograd.grad(functional.cross_entropy(module.net(x), y), module.net.weight)
            torch.testing.assert_close(gradient, expected)
        return True

    assert fit(Linear, act, epochs=1)[1]


@pytest.mark.parametrize("kind", [Classifier, ByHand])
def test_adam_holds_all_trainable_parameters_at_its_default_rate(kind):
    def act(trainer, module):
        module.net[0].bias.requires_grad_(False)
        copy = run(trainer, 1, optimizer="adam").module
        module.net[0].bias.requires_grad_(True)
        made = optimizers_of(copy)
        held = {id(p) for o in made for group in o.param_groups for p in group["params"]}
        assert {id(p) for p in copy.parameters() if p.requires_grad} <= held
        assert all(type(o) is torch.optim.Adam and o.param_groups[0]["lr"] == 1e-3 for o in made)
        assert len(made) == len(trainer.optimizers)
        return True

    assert fit(kind, act, epochs=1)[1]
