"""Early stopping: what goes wrong with Lightning's `EarlyStopping`, and not with ours."""

import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lightning_recipes import EarlyStoppingWithRestore
from lightning_recipes.utils.errors import UserError

from .toys import STEPS, Counter, batches, both, fit, trainer

FALLING = [5.0, 4.0, 3.0, 2.0, 1.0, 0.5]
BEST_SECOND = [2.0, 1.0, 3.0, 4.0, 5.0, 6.0]  # whose best is measured at w = 8


def stopping(side, patience=3, **options):
    """Return the callback of a side; one that lacks an option fails."""
    kind = EarlyStopping if side == "lightning" else EarlyStoppingWithRestore
    return kind(monitor="loss", patience=patience, verbose=False, **options)


class Scripted(Counter):
    """Each validation logs the next of the values; None is not logged."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def validation_step(self, batch, batch_idx):
        value = self.values[self.current_epoch]
        if value is not None:
            self.log("loss", value)
        self.seen.append(float(self.w))


class ScriptedSteps(Counter):
    """Each training step logs the next of the values."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def training_step(self, batch, batch_idx):
        self.log("loss", self.values[self.global_step])
        return super().training_step(batch, batch_idx)


def run(values, *callbacks, epochs=6, **options):
    """Return the module after a run, and how many epochs the run had."""
    module = Scripted(values)
    used = fit(module, *callbacks, epochs=epochs, **options)
    return module, used.current_epoch


@both
def test_the_best_weights_are_left_after_a_stop(side):
    module, epochs = run(BEST_SECOND, stopping(side))
    assert epochs == 5
    assert float(module.w) == 2 * STEPS


@both
def test_the_best_weights_are_left_after_a_run_that_ended_by_itself(side):
    module, epochs = run(BEST_SECOND, stopping(side, patience=10))
    assert epochs == 6
    assert float(module.w) == 2 * STEPS


@both
def test_the_second_fold_is_judged_by_itself(side):
    callback = stopping(side, patience=1)
    run([0.2, 0.1, 0.3], callback, epochs=3)
    module, epochs = run(FALLING, callback)
    assert epochs == 6
    assert float(module.w) == 6 * STEPS


@both
def test_the_patience_that_is_given_beats_the_one_of_the_checkpoint(side, tmp_path):
    values = [1.0] + [2.0] * 9
    keep = ModelCheckpoint(tmp_path, save_last=True)
    run(values, stopping(side, patience=2), keep, epochs=10, enable_checkpointing=True)
    longer = stopping(side, patience=5)
    _, epochs = run(values, longer, epochs=10, path=tmp_path / "last.ckpt")
    assert longer.patience == 5
    assert epochs == 6


@both
def test_a_run_that_has_recovered_before_min_epochs_goes_on(side):
    values = [3.0, 4.0, 4.0, 2.0, 1.0, 0.5]
    _, epochs = run(values, stopping(side, patience=2), min_epochs=4)
    assert epochs == 6


class ScriptedChecks(Scripted):
    """Each validation, of which an epoch has two, logs the next of the values."""

    def validation_step(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            self.log("loss", self.values[len(self.seen)])
            self.seen.append(float(self.w))


@both
def test_a_run_that_has_recovered_before_the_epoch_ends_goes_on(side):
    """The third value asks for a stop, which can only come with the epoch's end; the fourth is better."""
    module = ScriptedChecks([3.0, 4.0, 4.0, 2.0, 1.5, 1.0, 0.9, 0.8])
    used = fit(module, stopping(side, patience=2), epochs=4, min_epochs=2, val_check_interval=2)
    assert used.current_epoch == 4


@both
def test_a_metric_of_every_third_epoch_is_counted_once(side):
    values = [3.0, None, None, 2.0, None, None, 1.0, None, None]
    _, epochs = run(values, stopping(side, patience=2), epochs=9)
    assert epochs == 9


@both
def test_two_patiences_for_one_metric(side):
    first, second = stopping(side, patience=2), stopping(side, patience=4)
    _, epochs = run([1.0] + [2.0] * 5, first, second)
    assert epochs == 3


@both
def test_what_an_untrained_network_scores_by_chance_does_not_count(side):
    module, epochs = run([0.1, *FALLING[:5]], stopping(side, patience=2, warmup=1))
    assert epochs == 6
    assert float(module.w) == 6 * STEPS


@both
def test_an_improvement_of_a_hundredth_of_the_best_is_none(side):
    values = [100.0, 99.5, 99.2, 80.0]
    _, epochs = run(values, stopping(side, patience=2, min_delta=0.01, relative=True), epochs=4)
    assert epochs == 3


@both
def test_patience_in_steps_ends_within_the_epoch(side):
    callback = stopping(side, patience=3, unit="steps", every_n_steps=1)
    module = ScriptedSteps([3.0, 2.0, 1.0] + [4.0] * 13)
    used = trainer(callback, epochs=2)
    used.fit(module, batches(8))
    assert used.global_step == 6
    assert float(module.w) == 3.0


@both
def test_a_resumed_run_leaves_the_best_weights(side, tmp_path):
    """The best weights of a run that was cut off are in its checkpoint."""
    keep = ModelCheckpoint(tmp_path, save_last=True)
    run(BEST_SECOND, stopping(side, patience=10), keep, epochs=4, enable_checkpointing=True)
    module, _ = run(BEST_SECOND, stopping(side, patience=10), path=tmp_path / "last.ckpt")
    assert float(module.w) == 2 * STEPS


# What only ours has


@pytest.mark.parametrize(
    ("values", "options", "reason", "epochs", "best"),
    [
        (BEST_SECOND, {}, "patience", 5, (1.0, 1)),
        (FALLING, {"target": 2.5}, "target", 4, (2.0, 3)),
        ([2.0, 1.0, 30.0, 4.0], {"divergence": 10.0}, "divergence", 3, (1.0, 1)),
        ([2.0, float("nan"), 1.0], {}, "non-finite", 2, (2.0, 0)),
        ([2.0, float("inf"), 1.0], {}, "non-finite", 2, (2.0, 0)),
        (FALLING, {}, None, 6, (0.5, 5)),
    ],
)
def test_the_reason_is_a_word(values, options, reason, epochs, best):
    callback = stopping("ours", **options)
    module, done = run(values, callback)
    assert (callback.stop_reason, done) == (reason, epochs)
    assert (callback.best_score, callback.best_epoch) == best
    assert callback.best_step == float(module.w) == (best[1] + 1) * STEPS


def test_the_best_is_the_largest_where_it_should_be():
    callback = stopping("ours", mode="max")
    module, _ = run([1.0, 3.0, 2.0, 2.5, 2.9], callback, epochs=5)
    assert (callback.best_score, float(module.w)) == (3.0, 2 * STEPS)


def test_not_finite_values_are_passed_over_on_request():
    callback = stopping("ours", check_finite=False)
    _, epochs = run([2.0, float("nan"), 1.0, 0.5], callback, epochs=4)
    assert (epochs, callback.best_score) == (4, 0.5)


def test_without_patience_the_best_is_restored_and_nothing_stops():
    callback = stopping("ours", patience=None)
    module, epochs = run(BEST_SECOND, callback)
    assert (epochs, float(module.w), callback.stop_reason) == (6, 2 * STEPS, None)


def test_the_last_weights_stay_where_nothing_is_to_be_restored():
    module, _ = run(BEST_SECOND, stopping("ours", restore=False))
    assert float(module.w) == 5 * STEPS


def test_a_metric_that_never_comes_is_named_with_those_that_do():
    callback = EarlyStoppingWithRestore("los")
    with pytest.warns(UserWarning, match="has not come in 1 epochs"), pytest.raises(UserError) as error:
        run(FALLING, callback)
    assert "`los` has not come in 6 epochs; these have: loss. Did you mean `loss`?" in str(error.value)


def test_training_metrics_are_followed_without_validation():
    callback = stopping("ours", patience=1)
    module = ScriptedSteps([2.0] * 4 + [1.0] * 4 + [3.0] * 4 + [4.0] * 4)
    trainer(callback, epochs=4).fit(module, batches())
    assert (callback.stop_reason, callback.best_epoch, float(module.w)) == ("patience", 1, 8.0)
