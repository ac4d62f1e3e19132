import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from lightning_recipes.schedules import SHAPES, Schedule, cycle_lengths, triangle
from lightning_recipes.utils.errors import UserError


def optimizer(lr=0.1):
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(scheduler, steps):
    out = []
    for _ in range(steps):
        out.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return out


def test_one_cycle_is_torch_s():
    theirs = OneCycleLR(optimizer(), max_lr=0.1, total_steps=1001, cycle_momentum=False)
    ours = Schedule(optimizer(), 1001, shape="one_cycle")
    assert rates(ours, 1000) == pytest.approx(
        rates(theirs, 1000), abs=5e-4
    )  # torch's peak comes a step earlier


def test_cosine_is_torch_s():
    theirs = CosineAnnealingLR(optimizer(), T_max=99)
    ours = Schedule(optimizer(), 100, shape="cosine")
    assert rates(ours, 99) == pytest.approx(rates(theirs, 99), abs=1e-12)


def test_linear_ends_at_zero():
    assert rates(Schedule(optimizer(1.0), 5, shape="linear"), 5) == pytest.approx([1, 0.75, 0.5, 0.25, 0])


@pytest.mark.parametrize("shape", ["constant", "linear", "cosine"])
def test_warm_up_rises_in_a_line_from_zero_and_reaches_the_rate(shape):
    values = rates(Schedule(optimizer(1.0), 100, shape=shape, warmup=0.2), 100)
    assert values[:21] == pytest.approx([step / 20 for step in range(21)])
    assert values[20:] == sorted(values[20:], reverse=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_factors_stay_in_the_unit_interval_also_past_the_end(shape):
    values = rates(Schedule(optimizer(1.0), 7, shape=shape), 30)
    assert all(0 <= value <= 1 for value in values)
    assert len(set(values[6:])) == 1


def test_every_group_keeps_its_own_rate():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    scheduler = Schedule(SGD(groups), 3, shape="linear")
    scheduler.optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in scheduler.optimizer.param_groups] == pytest.approx([0.5, 0.05])


def test_state_is_plain_data(tmp_path):
    scheduler = Schedule(optimizer(), 10, shape="cosine")
    before = rates(scheduler, 4)
    torch.save(scheduler.state_dict(), tmp_path / "state.pt")
    resumed = Schedule(optimizer(), 10, shape="cosine")
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    resumed.optimizer.param_groups[0]["lr"] = resumed.get_last_lr()[0]
    whole = rates(Schedule(optimizer(), 10, shape="cosine"), 10)
    assert before + rates(resumed, 6) == whole


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"total_steps": 0}, "at least 1, got 0"),
        ({"total_steps": 10, "shape": "cosin"}, "got 'cosin'. Did you mean `cosine`?"),
        ({"total_steps": 10, "shape": "cosine", "warmup": 1.0}, r"in \[0, 1\), got 1.0"),
        ({"total_steps": 10, "warmup": 0.1}, "warms up by itself"),
    ],
)
def test_wrong_arguments(arguments, says):
    with pytest.raises(UserError, match=says):
        Schedule(optimizer(), **arguments)


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
