"""`WeightAverage`: what it averages, where it lies, and that nothing of the module is lost."""

import pytest
import torch
from torch import nn

from lightning_recipes.averaging import WeightAverage, decay_of_half_life, warmed_decay
from lightning_recipes.utils.errors import UserError
from lightning_recipes.utils.tensors import tensors_of
from tests.processes import run_module


class Mixed(nn.Module):
    """Tensors of all kinds: tied, transposed, in two layouts, complex, integer, boolean, empty, not saved."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.first = nn.Linear(3, 3).to(dtype)
        self.second = nn.Linear(3, 3).to(dtype)
        self.second.weight = self.first.weight
        self.conv = nn.Conv2d(2, 3, 2).to(dtype=dtype, memory_format=torch.channels_last)
        self.norm = nn.BatchNorm1d(3)
        self.transposed = nn.Parameter(torch.randn(2, 5).T)
        self.empty = nn.Parameter(torch.zeros(0))
        self.register_buffer("phase", torch.randn(3, dtype=torch.complex64))
        self.register_buffer("wide", torch.randn(3, dtype=torch.float64))
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("passing", torch.zeros(2), persistent=False)


def changed(module, seed):
    """Give all tensors other values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in {id(t): t for t in tensors_of(module).values()}.values():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(10 * noise if not tensor.is_complex() else torch.complex(noise, -noise))


def clones(tensors):
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def identical(first, second):
    """Whether two dicts are equal to the bit, NaN and the sign of zero included."""

    def bits(tensor):
        return tensor.contiguous().flatten().view(torch.uint8)

    return first.keys() == second.keys() and all(torch.equal(bits(first[n]), bits(second[n])) for n in first)


def test_floats_are_averaged_and_the_rest_is_copied():
    module = Mixed()
    average, weights, seen = WeightAverage(module), [0.5, 0.25, 1.0, 0.125], []
    expected = clones(module.state_dict())
    for number, weight in enumerate(weights):
        changed(module, number)
        seen.append(clones(module.state_dict()))
        average.update(weight)
        for name, tensor in seen[-1].items():
            if tensor.is_floating_point() or tensor.is_complex():
                expected[name] = expected[name] + weight * (tensor - expected[name])
            else:
                expected[name] = tensor
    torch.testing.assert_close(average.average(), expected, rtol=1e-6, atol=1e-6)


def test_all_names_are_those_of_a_checkpoint():
    module = Mixed()
    assert list(WeightAverage(module).average()) == list(module.state_dict())


def test_tied_weights_are_kept_once():
    module = Mixed()
    average = WeightAverage(module)
    kept = average.average()
    assert kept["first.weight"].data_ptr() == kept["second.weight"].data_ptr()
    assert len(average._kept) == len(module.state_dict()) - 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_weights_are_averaged_in_float32(dtype):
    """A thousandth of the distance to 1 + 2^-6 is far below what bfloat16 can hold."""
    module = nn.Linear(1, 1, bias=False).to(dtype)
    nn.init.ones_(module.weight)
    average = WeightAverage(module)
    nn.init.constant_(module.weight, 1 + 2**-6)
    for _ in range(1000):
        average.update(0.001)
    expected = 1 + 2**-6 * (1 - 0.999**1000)
    assert average.average()["weight"].dtype == torch.float32
    assert float(average.average()["weight"]) == pytest.approx(expected, rel=1e-6)
    with average.inside():
        assert module.weight.dtype == dtype
        assert float(module.weight) == pytest.approx(expected, rel=2**-8)
    assert float(module.weight) == 1 + 2**-6
    assert float(average.average()["weight"]) == pytest.approx(expected, rel=1e-6)  # not rounded on the way


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_exchange_and_one_back_change_no_bit(dtype):
    module = Mixed(dtype)
    average = WeightAverage(module)
    changed(module, 1)
    with torch.no_grad():
        module.transposed[0] = torch.tensor([float("nan"), -0.0])
        module.wide[0] = float("-inf")
    own, kept = clones(module.state_dict()), clones(average.average())
    average.exchange()
    assert identical(clones(average.own()), own)
    assert identical(clones(average.average()), kept)
    assert identical(module.state_dict(), {n: kept[n].to(t.dtype) for n, t in module.state_dict().items()})
    average.exchange()
    assert identical(module.state_dict(), own)
    assert identical(clones(average.average()), kept)


def test_the_module_gets_its_weights_back_after_an_error():
    module = nn.Linear(2, 2)
    average = WeightAverage(module)
    changed(module, 1)
    own = clones(module.state_dict())
    with pytest.raises(RuntimeError, match="inside"), average.inside():
        raise RuntimeError("inside")
    assert identical(module.state_dict(), own)


def test_it_follows_a_module_whose_tensors_are_replaced():
    module = nn.Linear(2, 2)
    average = WeightAverage(module)
    module.weight = nn.Parameter(torch.ones(2, 2))
    average.update(1.0)
    assert torch.equal(average.average()["weight"], torch.ones(2, 2))


def test_a_state_dict_is_the_averages_and_nothing_is_shared_with_the_module():
    module = Mixed()
    average = WeightAverage(module)
    changed(module, 1)
    own, kept = clones(module.state_dict()), clones(average.average())
    state = average.state_dict(lambda: {"prefix": 3, **module.state_dict()})
    assert state.pop("prefix") == 3
    assert identical(clones(state), kept)
    assert identical(module.state_dict(), own)
    changed(module, 2)
    assert identical(clones(state), kept)


def test_a_view_in_a_state_dict_is_the_averages_too():
    module = nn.Linear(4, 4)
    average = WeightAverage(module)
    kept = clones(average.average())
    changed(module, 1)
    state = average.state_dict(lambda: {"half": module.weight.detach()[:2]})
    assert torch.equal(state["half"], kept["weight"][:2])


def test_a_settled_average_no_longer_follows_the_modules_counts():
    module = Mixed()
    average = WeightAverage(module)
    module.norm.num_batches_tracked.fill_(3)
    assert int(average.average()["norm.num_batches_tracked"]) == 3
    average.settle()
    module.norm.num_batches_tracked.fill_(4)
    assert int(average.average()["norm.num_batches_tracked"]) == 3


def test_a_settled_average_survives_changes_of_the_module():
    module = Mixed()
    average = WeightAverage(module)
    changed(module, 1)
    own, kept = clones(module.state_dict()), clones(average.average())
    average.exchange()
    average.settle()
    changed(module, 2)
    assert identical(clones(average.average()), kept)
    assert identical(clones(average.own()), own)


def test_an_average_that_was_overwritten_is_not_passed_off():
    module = nn.Linear(2, 2)
    average = WeightAverage(module)
    average.exchange()
    changed(module, 1)
    after = clones(module.state_dict())
    with pytest.raises(UserError, match="The module that held the average was changed after the fit"):
        average.average()
    average.take_back()  # which would destroy what was made since
    assert identical(module.state_dict(), after)


def test_weights_come_back_to_a_module_that_was_left_alone():
    module = nn.Linear(2, 2)
    average = WeightAverage(module)
    changed(module, 1)
    own = clones(module.state_dict())
    average.exchange()
    average.take_back()
    assert identical(module.state_dict(), own)


def test_what_was_saved_is_loaded():
    module, other = Mixed(), Mixed()
    average = WeightAverage(module)
    changed(module, 1)
    average.update(0.5)
    changed(other, 1)  # counts are the module's own
    again = WeightAverage(other)
    again.load(average.average())
    assert identical(clones(again.average()), clones(average.average()))


class Uncopied(Mixed):
    def __deepcopy__(self, memo):
        raise AssertionError("copied the module")


def test_it_makes_no_copy_of_the_module():
    average = WeightAverage(Uncopied())
    average.update(0.5)
    with average.inside():
        pass


def test_a_half_life_is_one():
    assert decay_of_half_life(10) ** 10 == pytest.approx(0.5)


def test_a_long_run_reaches_the_decay_that_is_asked_for():
    assert warmed_decay(10**9, 0.9998) == 0.9998
    assert [warmed_decay(s, 0.9998) for s in range(5)] == [1 - (1 + s) ** (-2 / 3) for s in range(5)]


@pytest.mark.slow
def test_sharded_weights_are_averaged_on_two_processes(tmp_path):
    """Fully sharded, then resumed: as one process, and as a run that was not cut off. See `sharded_run`."""
    for command in (["whole"], ["rest", tmp_path / "whole" / "epoch=1.ckpt"]):
        done = run_module("tests.sharded_run", tmp_path, *command)
        assert done.returncode == 0, done.stderr
    whole, rest, one = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("whole", "rest", "one")
    )
    for part in ("average", "raw", "checkpoint"):
        assert identical(whole[part], rest[part]), part
        # Gradients are averaged over two halves instead of one whole: equal but for the order of sums.
        torch.testing.assert_close(whole[part], one[part], rtol=1e-5, atol=1e-7)
    assert identical(whole["average"], whole["checkpoint"])
    assert not identical(whole["average"], whole["raw"])
    assert whole["local"] == [(4, 4), (4,), (1, 8), (1,)]  # half of each on a rank
