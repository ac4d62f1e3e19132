"""Exponential averages: what goes wrong with Lightning's `EMAWeightAveraging`, and not with `EMA`."""

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_recipes import EMA
from lightning_recipes.averaging import warmed_decay

from .toys import STEPS, Counter, TwoOptimizers, batches, both, fit, trainer


def average(side, decay=0.9, *, every=1, start=None, **options):
    """Return the callback of a side, with a constant decay."""
    if side == "lightning":
        return EMAWeightAveraging(
            decay=decay, update_every_n_steps=every, update_starting_at_step=start, **options
        )
    return EMA(decay, warmup=False, every_n_steps=every, start_step=start or 0, **options)


def closed_form(weights, decay=0.9):
    """Return the average after the first of `weights`, which is copied, and the others."""
    first, *others = weights
    for weight in others:
        first = decay * first + (1 - decay) * weight
    return first


AFTER = {steps: closed_form(range(1, steps + 1)) for steps in (4, 8)}


@both
def test_an_average_that_never_began_changes_nothing(side):
    module = Counter()
    fit(module, average(side, start=100))
    assert module.seen == [4.0, 8.0]
    assert float(module.w) == 8.0


@both
def test_the_second_fold_is_averaged_like_the_first(side):
    callback, first, second = average(side), Counter(), Counter()
    fit(first, callback)
    fit(second, callback)
    assert float(first.w) == float(second.w) == pytest.approx(AFTER[8])


@both
def test_two_optimizers_by_hand_with_updates_every_second_step(side):
    module = TwoOptimizers()
    fit(module, average(side, every=2))
    # Sixteen optimizer steps, two a batch: an update at the end of each of the eight batches.
    assert float(module.w) == float(module.v) == pytest.approx(AFTER[8])


@both
def test_stored_weights_are_those_that_were_validated(side, tmp_path):
    module = Counter()
    keep = ModelCheckpoint(tmp_path, monitor="val/w", mode="max", save_weights_only=True)
    fit(module, average(side), keep, enable_checkpointing=True)
    stored = torch.load(keep.best_model_path, weights_only=True)["state_dict"]["w"]
    assert float(stored) == module.seen[-1] == float(keep.best_model_score) == pytest.approx(AFTER[8])


@both
def test_validate_test_and_predict_measure_the_same_weights(side, tmp_path):
    module, keep = Counter(), ModelCheckpoint(tmp_path, monitor="val/w", mode="max", save_weights_only=True)
    used = fit(module, average(side), keep, enable_checkpointing=True)
    module.seen.clear()
    used.validate(module, batches(1), verbose=False)
    used.test(module, batches(1), verbose=False)
    predicted = used.predict(module, batches(1))
    used.test(module, batches(1), ckpt_path="best", verbose=False)
    assert [*module.seen, *module.tested, *predicted] == pytest.approx([AFTER[8]] * 4)


class BreaksInValidation(Counter):
    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        if self.current_epoch == 1:
            raise RuntimeError("broken")


@both
def test_an_error_in_validation_leaves_the_raw_weights_in_the_module(side):
    module = BreaksInValidation()
    with pytest.raises(RuntimeError, match="broken"):
        fit(module, average(side))
    assert float(module.w) == 8.0


@both
def test_a_checkpoint_of_an_error_in_validation_can_be_resumed(side, tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="error", save_on_exception=True, save_top_k=-1)
    with pytest.raises(RuntimeError, match="broken"):
        fit(BreaksInValidation(), average(side), keep, enable_checkpointing=True)
    stored = torch.load(tmp_path / "error.ckpt", weights_only=True)
    assert float(stored["state_dict"]["w"]) == pytest.approx(AFTER[8])
    resumed = Counter()
    fit(resumed, average(side), path=tmp_path / "error.ckpt", epochs=3)
    assert resumed.began == [8.0]


class BuiltLate(Counter):
    def setup(self, stage):
        self.late = nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) - self.late


@both
def test_weights_that_are_made_in_setup_are_averaged(side):
    module = BuiltLate()
    fit(module, average(side))
    assert float(module.late) == float(module.w) == pytest.approx(AFTER[8])


class WithBuffers(Counter):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("level", torch.tensor(0.0))

    def on_train_batch_start(self, batch, batch_idx):
        self.count += 1
        self.level += 1
        self.norm(torch.tensor([[0.0], [2.0]]))


@both
def test_floating_buffers_are_averaged_and_counts_copied(side):
    module = WithBuffers()
    fit(module, average(side))
    assert int(module.count) == int(module.norm.num_batches_tracked) == 8
    assert float(module.level) == pytest.approx(AFTER[8])
    means = [1 - 0.9**n for n in range(1, 9)]  # of a batch with mean 1, momentum 0.1
    assert float(module.norm.running_mean) == pytest.approx(closed_form(means))


@both
def test_a_second_fit_goes_on_from_the_raw_weights(side):
    module, callback = Counter(), average(side)
    fit(module, callback)
    module.began.clear()
    fit(module, callback)
    assert module.began == [8.0, 12.0]


@both
def test_a_young_average_is_not_held_back_by_the_first_weights(side):
    module = Counter()
    callback = EMAWeightAveraging(decay=0.999) if side == "lightning" else EMA(0.999)
    fit(module, callback, epochs=25)
    expected = 1.0
    for update in range(1, 100):
        expected += (1 - warmed_decay(update, 0.999)) * (update + 1 - expected)
    assert float(module.w) == pytest.approx(expected, rel=1e-5)
    assert float(module.w) > 70  # of 100; without the warm-up 5.8


class Counting(TorchDispatchMode):
    """Counts the operations that reach torch's kernels."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += func.__name__.split(".")[0] not in ("detach", "alias")
        return func(*args, **(kwargs or {}))


class Deep(Counter):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(20))


@both
def test_an_update_is_one_operation_for_all_weights(side):
    module, callback = Deep(), average(side)
    used = fit(module, callback, epochs=1)
    with torch.no_grad(), Counting() as counting:
        if side == "lightning":
            callback._average_model.update_parameters(module)
        else:
            callback._average.update(0.1)
    assert counting.calls == 1
    assert used.state.finished


@both
def test_raw_weights_can_be_validated_too(side):
    module = Counter()
    options = {} if side == "lightning" else {"validate_raw": True}
    used = fit(module, average(side, **options))
    assert float(used.callback_metrics["val/w_raw"]) == 8.0
    assert float(used.callback_metrics["val/w"]) == pytest.approx(AFTER[8])


def test_raw_weights_and_average_are_both_kept():
    callback, module = average("ours"), Counter()
    fit(module, callback)
    assert float(callback.raw_weights()["w"]) == 8.0
    assert float(callback.average_weights()["w"]) == pytest.approx(AFTER[8])
    assert callback.n_averaged == 2 * STEPS


def test_nothing_is_left_in_a_trainer():
    used = trainer(average("ours"))
    used.fit(Counter(), batches(), batches(1))
    assert "lightning_module_state_dict" not in vars(used.strategy)
