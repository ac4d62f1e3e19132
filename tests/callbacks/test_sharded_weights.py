import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy

from lightning_recipes.callbacks import MaxNorm, WeightPenalty
from lightning_recipes.callbacks.sharding import refuse_flat_shards
from lightning_recipes.utils.errors import UserError
from tests.processes import run_module


@pytest.mark.slow
def test_sharded_weights_are_penalised_and_bounded_as_whole_ones(tmp_path):
    done = run_module("tests.callbacks.sharded_weights_run", tmp_path)
    assert done.returncode == 0, done.stderr
    whole, sharded = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("whole", "sharded"))
    torch.testing.assert_close(sharded, whole, rtol=1e-4, atol=1e-6)  # the order of sums
    assert len(whole["penalty"]) == 16
    rows = [weight.norm(dim=1).max() for weight in whole["weights"].values() if weight.ndim > 1]
    torch.testing.assert_close(torch.stack(rows).max(), torch.tensor(0.05))


@pytest.mark.parametrize("callback", [MaxNorm(), WeightPenalty()], ids=lambda c: type(c).__name__)
def test_flat_shards_are_refused(callback):
    class Trainer:
        strategy = FSDPStrategy()

    with pytest.raises(UserError, match=r"needs weights with their rows and columns; FSDPStrategy has flat"):
        refuse_flat_shards(callback, Trainer())
