"""How trials end: in time, by an error, by Ctrl-C, for want of memory."""

import random
import signal
import threading

import pytest
import torch

from lightning_recipes.evidence.batches import size_of
from lightning_recipes.evidence.trials import CannotTry, Trials, peak_rate
from tests.diagnosis.toys import Classifier, batches, fit


def run(trainer, steps=6, **options):
    return Trials(trainer).run(batches(), steps, **options)


def inside(act, kind=Classifier, **options):
    """Return what `act(trainer, module)` returns within a fit."""
    return fit(kind, act, epochs=1, **options)[1]


@pytest.mark.parametrize("steps", [1, 4, 5, 11])
def test_a_trial_takes_as_many_batches_as_asked_for_in_order(steps):
    seen = []

    def step(module, own, batch, number):
        seen.append((number, batch[1].tolist()))
        return own(batch)

    outcome = inside(lambda trainer, _: run(trainer, steps, step=step))
    given = [y.tolist() for _, y in batches()]
    assert outcome.steps == steps
    assert seen == [(number, given[number % 4]) for number in range(steps)]


def test_a_deadline_in_the_past_leaves_one_step():
    assert inside(lambda trainer, _: run(trainer, deadline=0.0)).steps == 1


def test_it_ends_when_it_is_enough():
    assert inside(lambda trainer, _: run(trainer, 50, after=lambda _, number: number == 7)).steps == 7


def test_work_in_place_on_a_batch_does_not_reach_the_next_trial():
    given = batches()
    kept = [x.clone() for x, _ in given]

    def step(module, own, batch, number):
        batch[0].zero_()
        return own(batch)

    inside(lambda trainer, _: Trials(trainer).run(given, 6, step=step))
    assert all(torch.equal(x, old) for (x, _), old in zip(given, kept, strict=True))


def test_trials_are_repeatable_and_each_begins_anew():
    def draws(module, own, batch, number):
        found.append((random.random(), torch.rand(1).item()))
        return own(batch)

    found = []
    first, second = inside(lambda trainer, _: [run(trainer, step=draws, seed=5) for _ in range(2)])
    assert found[:6] == found[6:]
    for one, two in zip(first.module.parameters(), second.module.parameters(), strict=True):
        assert torch.equal(one, two)


def test_what_the_step_raises_is_evidence():
    def step(module, own, batch, number):
        if number == 2:
            raise ValueError("mine")
        return own(batch)

    outcome = inside(lambda trainer, _: run(trainer, step=step))
    assert isinstance(outcome.error, ValueError)
    assert outcome.steps == 2


@pytest.mark.parametrize("own_handler", [False, True])
def test_ctrl_c_stays_ctrl_c(own_handler):
    def handler(*_):
        pass

    before = signal.getsignal(signal.SIGINT)
    seen = []

    def act(trainer, module):
        if own_handler:
            signal.signal(signal.SIGINT, handler)
        expected = signal.getsignal(signal.SIGINT)

        def step(*_):
            raise KeyboardInterrupt

        try:
            run(trainer, step=step)
        except KeyboardInterrupt:
            seen.append(signal.getsignal(signal.SIGINT) is expected)

    try:
        inside(act)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [True]


@pytest.mark.parametrize("fits", [16, 8, 3, 1])
def test_batches_are_halved_for_want_of_memory(fits):
    sizes = []

    class Large(Classifier):
        def loss(self, batch):
            if hasattr(self, "_trial_step"):
                sizes.append(size_of(batch))
                if size_of(batch) > fits:
                    raise RuntimeError("CUDA out of memory. Tried to allocate")
                self.eval()  # BatchNorm takes no single sample
            return super().loss(batch)

    outcome = inside(lambda trainer, _: run(trainer, 4), Large)
    expected = max(size for size in (16, 8, 4, 2, 1) if size <= fits)
    assert outcome.error is None
    assert sizes[-4:] == [expected] * 4
    assert bool(outcome.note) == (fits < 16)
    assert str(expected) in outcome.note or fits == 16


def test_out_of_memory_with_a_single_sample_is_an_error():
    def step(*_):
        raise RuntimeError("out of memory")

    assert "out of memory" in str(inside(lambda trainer, _: run(trainer, step=step)).error)


def test_a_module_that_cannot_be_copied():
    def act(trainer, module):
        module.lock = threading.Lock()
        try:
            with pytest.raises(CannotTry):
                run(trainer)
        finally:
            del module.lock
        return True

    assert inside(act)


def test_a_module_that_holds_a_tensor_of_a_graph_is_copied():
    class Keeping(Classifier):
        def on_train_start(self):
            self.kept = self.net(torch.randn(4, 6)).sum()

    outcome = inside(lambda trainer, _: run(trainer), Keeping)
    assert outcome.error is None
    assert outcome.module.kept.grad_fn is None


@pytest.mark.parametrize(
    ("group", "rate"),
    [
        ({"lr": 0.3}, 0.3),
        ({"lr": 0.0, "initial_lr": 0.1}, 0.1),
        ({"lr": 0.0, "initial_lr": 0.1, "max_lr": 1}, 1),
    ],
)
def test_the_peak_rate(group, rate):
    assert peak_rate(group) == rate


def test_a_copy_knows_the_precision_and_the_clipping():
    def act(trainer, module):
        found = []

        def step(copy, own, batch, number):
            found.append((copy.trainer.precision, copy.trainer.gradient_clip_val, copy.trainer is trainer))
            found.append(copy.net(batch[0]).dtype)
            return own(batch)

        run(trainer, 1, step=step)
        return found

    found = inside(act, precision="bf16-mixed", gradient_clip_val=0.3)
    assert found == [("bf16-mixed", 0.3, False), torch.bfloat16]


def test_a_trial_of_a_module_whose_step_takes_the_batch_by_name():
    class Named(Classifier):
        def training_step(self, batch):
            return self.loss(batch)

    assert (
        inside(lambda trainer, _: run(trainer, step=lambda m, own, batch, n: own(batch)), Named).error is None
    )
