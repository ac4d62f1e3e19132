from math import cos, pi, sqrt

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from timm.scheduler import CosineLRScheduler, StepLRScheduler
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    StepLR,
)
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_recipes import ImageClassifier
from lightning_recipes.schedules import SHAPES, Schedule, cycle_lengths, cyclic_cosine, triangle
from lightning_recipes.utils.errors import UserError
from lightning_recipes.utils.run_length import RunLength, known_epochs

from .contract.toys import QUIET


def optimizer(lr=0.1):
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(scheduler, steps):
    out = []
    for _ in range(steps):
        out.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return out


def factors(steps, **settings):
    schedule = Schedule(optimizer(), steps, **settings)
    return [schedule.factor(step) for step in range(steps)]


# Each shape against torch's own scheduler, timm's, or its closed form


def test_one_cycle_is_torch_s():
    theirs = OneCycleLR(optimizer(), max_lr=0.1, total_steps=1001, cycle_momentum=False)
    ours = Schedule(optimizer(), 1001, shape="one_cycle")
    assert rates(ours, 1000) == pytest.approx(
        rates(theirs, 1000), abs=5e-4
    )  # torch's peak comes a step earlier


# Torch's schedulers multiply the rate of the step before: their errors add up, to 1e-12 over a hundred steps.
@pytest.mark.parametrize(
    ("settings", "theirs"),
    [
        ({"shape": "cosine"}, lambda o: CosineAnnealingLR(o, T_max=99)),
        ({"shape": "linear"}, lambda o: LinearLR(o, start_factor=1, end_factor=0, total_iters=99)),
        ({"shape": "cyclic_cosine", "cycles": 4}, lambda o: CosineAnnealingWarmRestarts(o, T_0=25)),
        ({"shape": "step", "every": 7, "gamma": 0.3, "unit": "steps"}, lambda o: StepLR(o, 7, 0.3)),
        ({"shape": "step", "every": 3, "epochs": 10}, lambda o: StepLR(o, 30, 0.1)),
        ({"shape": "step", "every": 0.25, "unit": "fraction"}, lambda o: StepLR(o, 25, 0.1)),
        ({"shape": "multi_step", "epochs": 100}, lambda o: MultiStepLR(o, [30, 60, 90], 0.1)),
        (
            {"shape": "multi_step", "milestones": [0.5, 0.75], "unit": "fraction", "gamma": 0.2},
            lambda o: MultiStepLR(o, [50, 75], 0.2),
        ),
        ({"shape": "exponential", "unit": "steps", "gamma": 0.9}, lambda o: ExponentialLR(o, 0.9)),
        ({"shape": "exponential", "epochs": 100}, lambda o: ExponentialLR(o, 0.98)),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_shapes_are_those_of_torch(settings, theirs):
    assert rates(Schedule(optimizer(), 100, **settings), 100) == pytest.approx(
        rates(theirs(optimizer()), 100), rel=1e-9, abs=1e-12
    )


def test_a_warm_up_is_timm_s():
    warm = {"warmup_t": 20, "warmup_lr_init": 0, "t_in_epochs": False}
    cosine = CosineLRScheduler(optimizer(1.0), t_initial=79, warmup_prefix=True, **warm)
    assert factors(100, shape="cosine", warmup=20, warmup_unit="steps") == pytest.approx(
        [cosine._get_lr(step)[0] for step in range(100)], abs=1e-12
    )
    step = StepLRScheduler(optimizer(1.0), decay_t=30, decay_rate=0.1, warmup_prefix=False, **warm)
    assert factors(100, shape="step", epochs=100, warmup=0.2) == pytest.approx(
        [step._get_lr(t)[0] for t in range(100)], abs=1e-12
    )


@pytest.mark.parametrize(
    ("shape", "formula"),
    [
        ("constant", lambda t: 1),
        ("inverse_sqrt", lambda t: 1 / sqrt(max(t, 1))),
        ("inverse_time", lambda t: 1 / max(t, 1)),
        ("exponential", lambda t: 0.98**t),
    ],
)
@pytest.mark.parametrize("warmup", [0, 2])
def test_decays_count_epochs_from_the_end_of_the_warm_up(shape, formula, warmup):
    found = factors(90, shape=shape, epochs=9, warmup=warmup, warmup_unit="epochs")
    first = warmup * 10
    assert found[first:] == pytest.approx([formula((step - first) / 10) for step in range(first, 90)])


def test_cycles_are_the_cosine_of_the_paper():
    found = factors(60, shape="cyclic_cosine", cycles=3)
    assert found == pytest.approx([(1 + cos(pi * (step % 20) / 20)) / 2 for step in range(60)])


@pytest.mark.parametrize("cycles", [1, 3, 6, 7, 49, 111])
def test_each_cycle_begins_at_exactly_one_and_the_run_ends_at_zero(cycles):
    """7 · (3/7) and the like are not whole in floating point, and a restart must not come a step late."""
    found = factors(cycles * 13, shape="cyclic_cosine", cycles=cycles)
    assert [step for step, factor in enumerate(found) if factor == 1.0] == list(range(0, cycles * 13, 13))
    assert cyclic_cosine(1.0, cycles) == 0


@pytest.mark.parametrize("per_epoch", [1, 3, 7, 13, 25, 97])
def test_drops_come_at_the_first_step_of_their_epoch(per_epoch):
    """Also where the run ends within an epoch: how many it has is then not exact in floating point."""
    for tail in range(per_epoch):
        total = 16 * per_epoch + tail
        shared = {"gamma": 0.5, "epochs": total / per_epoch}
        every = Schedule(optimizer(), total, shape="step", every=3, **shared)
        named = Schedule(optimizer(), total, shape="multi_step", milestones=range(3, 16, 3), **shared)
        for schedule in (every, named):
            for drop in range(1, 6):
                first = 3 * drop * per_epoch
                assert schedule.factor(first - 1) == 0.5 ** (drop - 1), tail
                assert schedule.factor(first) == 0.5**drop, tail


@pytest.mark.parametrize("tail", range(7))
def test_a_drop_just_where_the_warm_up_ends_is_refused(tail):
    total = 40 * 7 + tail
    warm = {"warmup": 3, "warmup_unit": "epochs", "epochs": total / 7}
    with pytest.raises(UserError, match="`every` must begin after the warm-up of 21 steps, got 3"):
        Schedule(optimizer(), total, shape="step", every=3, **warm)


def test_linear_ends_at_zero():
    assert rates(Schedule(optimizer(1.0), 5, shape="linear"), 5) == pytest.approx([1, 0.75, 0.5, 0.25, 0])


# What holds for all of them

WARM = ({"warmup": 0.2}, {"warmup": 20, "warmup_unit": "steps"}, {"warmup": 8, "warmup_unit": "epochs"})


@pytest.mark.parametrize("warm", WARM, ids=lambda warm: warm.get("warmup_unit", "fraction"))
@pytest.mark.parametrize("shape", SHAPES)
def test_warm_up_rises_in_a_line_from_exactly_zero_to_the_start_of_the_shape(shape, warm):
    values = factors(100, shape=shape, epochs=40, **warm)
    start = factors(100, shape=shape, epochs=40)[0]
    assert start == (pytest.approx(0.04) if shape == "one_cycle" else 1)
    assert values[0] == 0
    assert values[:20] == pytest.approx([start * step / 20 for step in range(20)])
    assert values[20] == start
    if shape not in ("one_cycle", "cyclic_cosine"):
        assert values[20:] == sorted(values[20:], reverse=True)


@pytest.mark.parametrize("shape", ["constant", "linear", "cosine", "one_cycle", "cyclic_cosine"])
def test_the_shape_runs_whole_over_what_the_warm_up_leaves(shape):
    warm = factors(100, shape=shape, warmup=40, warmup_unit="steps")
    assert warm[40:] == pytest.approx(factors(60, shape=shape), abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_warm_up_is_the_shape_itself(shape):
    plain = factors(30, shape=shape, epochs=90)
    for unit in ("fraction", "steps", "epochs"):
        assert factors(30, shape=shape, epochs=90, warmup=0, warmup_unit=unit) == plain


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
@pytest.mark.parametrize("shape", SHAPES)
def test_factors_stay_in_the_unit_interval_also_past_the_end(shape, steps):
    settings = {"cycles": 1, "every": 0.5, "milestones": [0.5]}
    if shape in ("step", "multi_step"):
        settings["unit"] = "fraction"
    values = rates(Schedule(optimizer(1.0), steps, shape=shape, epochs=steps / 3, **settings), 3 * steps)
    assert all(0 <= value <= 1 for value in values)
    assert len(set(values[steps - 1 :])) == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_every_group_keeps_its_own_rate(shape):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    scheduler = Schedule(SGD(groups), 30, shape=shape, epochs=100, warmup=0.1)
    for step in range(30):
        first, second = (group["lr"] for group in scheduler.optimizer.param_groups)
        assert first == scheduler.factor(step)
        assert second == pytest.approx(first / 10)
        scheduler.optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("shape", SHAPES)
def test_state_is_plain_data(tmp_path, shape):
    settings = {"shape": shape, "epochs": 100, "warmup": 0.2}
    scheduler = Schedule(optimizer(), 10, **settings)
    before = rates(scheduler, 4)
    torch.save(scheduler.state_dict(), tmp_path / "state.pt")
    resumed = Schedule(optimizer(), 10, **settings)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    resumed.optimizer.param_groups[0]["lr"] = resumed.get_last_lr()[0]
    whole = rates(Schedule(optimizer(), 10, **settings), 10)
    assert before + rates(resumed, 6) == whole


def test_a_run_without_a_drop_is_warned_of():
    with pytest.warns(UserWarning, match="at 30 epochs, lies past the end of the run"):
        Schedule(optimizer(), 100, shape="step", epochs=30)
    with pytest.warns(UserWarning, match="Set `milestones`"):
        Schedule(optimizer(), 100, shape="multi_step", epochs=15)


# Bad input


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"total_steps": 0}, "at least 1, got 0"),
        ({"total_steps": float("inf")}, "`total_steps` must be at least 1, got inf"),
        ({"shape": "cosin"}, "got 'cosin'. Did you mean `cosine`?"),
        ({"unit": "epoch"}, "`unit` must be one of fraction, steps, epochs, got 'epoch'. Did you mean `epo"),
        ({"warmup_unit": "batches"}, "`warmup_unit` must be one of"),
        ({"warmup": -1}, "at least 0, got -1. For none, set it to 0"),
        ({"warmup": float("nan")}, "at least 0, got nan"),
        ({"shape": "cosine", "warmup": 1.0}, "in [0, 1), got 1.0"),
        ({"warmup": 5}, "in [0, 1), got 5. For a number of epochs or steps, set `warmup_unit`"),
        ({"warmup": 10, "warmup_unit": "steps"}, "shorter than the run, 10 steps, got 10. Shorten"),
        ({"warmup": 2, "warmup_unit": "epochs", "epochs": 2}, "the run, 2 epochs, got 2."),
        ({"warmup": float("inf"), "warmup_unit": "steps"}, "got inf."),
        (
            {"warmup": 1, "warmup_unit": "epochs"},
            "how many the run has is not known. Set the schedule's `epo",
        ),
        *(
            ({"shape": shape}, "how many the run has is not known")
            for shape in ("step", "multi_step", "exponential", "inverse_sqrt", "inverse_time")
        ),
        ({"epochs": 0}, "`epochs` must be above 0, got 0"),
        ({"epochs": -1}, "`epochs` must be above 0, got -1"),
        ({"shape": "step", "every": 0, "epochs": 2}, "`every` must be above 0, got 0. For a rate without"),
        ({"shape": "step", "every": -2, "epochs": 2}, "`every` must be above 0, got -2"),
        ({"shape": "step", "unit": "fraction"}, "lie in (0, 1) with `unit: fraction`, got 30"),
        ({"shape": "multi_step", "milestones": [60, 30], "epochs": 2}, "and rise, got [60, 30]"),
        ({"shape": "multi_step", "milestones": [3, 3], "epochs": 5}, "and rise, got [3, 3]"),
        ({"shape": "multi_step", "milestones": [0, 3], "epochs": 5}, "and rise, got [0, 3]"),
        ({"shape": "multi_step", "milestones": [], "epochs": 5}, "got []. For a rate without drops"),
        ({"shape": "multi_step", "milestones": [0.5, 1], "unit": "fraction"}, "got [0.5, 1]"),
        (
            {"shape": "step", "every": 4, "unit": "steps", "warmup": 0.4},
            "`every` must begin after the warm-up of 4 steps, got 4",
        ),
        *(
            ({"shape": shape, "unit": "steps", "every": 2, "milestones": [2], "gamma": gamma}, "(0, 1]")
            for shape in ("step", "multi_step", "exponential")
            for gamma in (0, -0.1, 1.1, float("nan"))
        ),
        ({"shape": "exponential", "unit": "steps"}, "needs `gamma`, the factor of each unit"),
        ({"shape": "inverse_sqrt", "unit": "fraction"}, "Take `epochs` or `steps`"),
        ({"shape": "inverse_time", "unit": "fraction"}, "Take `epochs` or `steps`"),
        ({"shape": "cyclic_cosine", "cycles": 0}, "in 1..10, for each needs a step, got 0"),
        ({"shape": "cyclic_cosine", "cycles": 9, "warmup": 0.2}, "in 1..8, for each needs a step, got 9"),
    ],
)
def test_wrong_arguments(arguments, says):
    with pytest.raises(UserError) as raised:
        Schedule(optimizer(), **{"total_steps": 10, **arguments})
    assert says in str(raised.value)


# In a run


class Batches(IterableDataset):
    def __iter__(self):
        return iter([(torch.zeros(3, 16, 16), 0)] * 12)


def batches(number=6):
    images = torch.rand(2 * number, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(images, torch.arange(2 * number) % 3), batch_size=2)


class Noted(ImageClassifier):
    """Notes the rate of each optimizer step, and what the schedule was told."""

    def __init__(self):
        super().__init__(
            "test_resnet", num_classes=3, optimizer=lambda groups: SGD(groups, 1.0), schedule=self.build
        )
        self.make, self.settings, self.rates = Schedule, {}, []

    def build(self, optimizer, steps):
        self.told = steps, RunLength(steps).epochs
        return self.make(optimizer, steps, **self.settings)

    def on_before_optimizer_step(self, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])


def noted(make=Schedule, **settings):
    model = Noted()
    model.make, model.settings = make, settings
    return model


def fit(model, loader=None, *, ckpt_path=None, callbacks=(), **options):
    trainer = Trainer(**QUIET, callbacks=list(callbacks), **options)
    trainer.fit(model, batches() if loader is None else loader, ckpt_path=ckpt_path)
    return model


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_epochs": 3}, (18, 3)),
        ({"max_epochs": 3, "accumulate_grad_batches": 4}, (6, 3)),  # the second step of an epoch takes 2
        ({"max_epochs": 3, "limit_train_batches": 4}, (12, 3)),
        ({"max_epochs": 3, "limit_train_batches": 0.5, "accumulate_grad_batches": 2}, (6, 3)),
        ({"max_epochs": 3, "max_steps": 9}, (9, 1.5)),
        ({"max_epochs": 3, "max_steps": 99}, (18, 3)),
        ({"max_epochs": -1, "max_steps": 9}, (9, 1.5)),
        ({"max_steps": 9, "accumulate_grad_batches": 2}, (9, 3)),
        ({"max_steps": 4}, (4, pytest.approx(2 / 3))),
    ],
    ids=str,
)
def test_the_schedule_is_told_steps_and_epochs(options, told):
    model = fit(noted(shape="constant"), **options)
    assert model.told == told
    assert type(model.told[0]) is int  # torch's schedulers keep it in checkpoints
    assert len(model.rates) == told[0]
    assert RunLength(5).epochs is None  # and nobody after


def test_a_run_without_batches_has_no_epochs():
    assert fit(noted(shape="constant"), max_steps=4, limit_train_batches=0).told == (4, None)


def test_a_warm_up_and_drops_in_epochs_under_accumulation():
    settings = {"shape": "multi_step", "milestones": [2, 3], "warmup": 1, "warmup_unit": "epochs"}
    assert fit(noted(**settings), max_epochs=4, accumulate_grad_batches=2).rates == pytest.approx(
        [0, 1 / 3, 2 / 3, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01]
    )


def test_a_loader_without_a_length_needs_its_epochs():
    loader = DataLoader(Batches(), batch_size=2)
    with pytest.raises(UserError, match="training loader has no length, `max_steps` or `limit_train_batch"):
        fit(noted(shape="constant"), loader, max_epochs=2)
    with pytest.raises(UserError, match="how many the run has is not known"):
        fit(noted(shape="step", every=1), loader, max_steps=9)
    assert fit(noted(shape="step", every=1, epochs=3), loader, max_steps=9).rates == pytest.approx(
        [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01]
    )
    assert fit(noted(shape="constant"), loader, max_epochs=2, limit_train_batches=6).told == (12, 2)


def test_a_rehearsal_has_room_for_any_warm_up():
    for settings in ({"warmup": 20, "warmup_unit": "epochs"}, {"warmup": 5000, "warmup_unit": "steps"}):
        assert fit(noted(**settings), fast_dev_run=2).rates[0] == 0


class Save(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            trainer.save_checkpoint("cut.ckpt")


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (Schedule, {"shape": "step", "every": 2, "warmup": 1, "warmup_unit": "epochs"}),
        (Schedule, {"shape": "cyclic_cosine", "cycles": 3, "warmup": 0.1}),
        (lambda optimizer, steps: StepLR(optimizer, steps, 0.5), {}),  # keeps the steps of the run
        (lambda optimizer, steps: CosineAnnealingLR(optimizer, steps), {}),
    ],
    ids=["step", "cycles", "StepLR", "CosineAnnealingLR"],
)
def test_a_resumed_run_has_the_rates_of_one_that_was_not_cut_off(make, settings):
    whole = fit(noted(make, **settings), callbacks=[Save()], max_epochs=4).rates
    torch.load("cut.ckpt", weights_only=True)  # with nothing allowed but plain data
    resumed = fit(noted(make, **settings), ckpt_path="cut.ckpt", max_epochs=4).rates
    assert len(whole) == 24
    assert resumed == whole[12:]


def test_epochs_that_are_given_go_before_those_that_are_known():
    with known_epochs(5):
        assert RunLength(100).epochs == 5
        assert RunLength(100, epochs=4).epochs == 4
        with known_epochs(None):
            assert RunLength(100).epochs is None
    with pytest.raises(ZeroDivisionError), known_epochs(5):
        _ = 1 / 0
    assert RunLength(100).epochs is None


# Cycles of a snapshot ensemble


@pytest.mark.parametrize(("steps", "cycles"), [(1, 1), (10, 3), (12, 4), (7, 7), (1001, 20)])
def test_cycles_fill_the_run_and_differ_by_a_step(steps, cycles):
    lengths = cycle_lengths(steps, cycles)
    assert sum(lengths) == steps
    assert len(lengths) == cycles
    assert lengths[0] == -(-steps // cycles)
    assert max(lengths) - min(lengths) <= 1
    assert lengths == sorted(lengths, reverse=True)


def test_a_triangle_is_even():
    assert [triangle(t / 8) for t in range(9)] == [1, 0.75, 0.5, 0.25, 0, 0.25, 0.5, 0.75, 1]
