"""`EMA` and `SWA` in a Trainer: when they begin and update, how they are saved, how they live together."""

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_recipes import EMA, SWA, EarlyStoppingWithRestore, ExactResume, ImageClassifier
from lightning_recipes.datamodules import DigitsDataModule
from lightning_recipes.utils.errors import UserError
from tests.beat.toys import QUIET, STEPS, Counter, TwoOptimizers, batches, fit, trainer
from tests.processes import run_module


def mean(values):
    return sum(values) / len(values)


# When an average begins, and how often it moves


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"every_n_steps": 3}, [3, 6]),
        ({"start_step": 5}, [6, 7, 8]),
        ({"start_epoch": 1}, [5, 6, 7, 8]),
        ({"start_step": 3, "every_n_steps": 2}, [5, 7]),
        ({"start_epoch": 1, "start_step": 6}, [7, 8]),
    ],
)
def test_an_exponential_average_is_of_these_steps(options, taken):
    callback, module = EMA(0.5, warmup=False, **options), Counter()
    fit(module, callback)
    expected = float(taken[0])
    for step in taken[1:]:
        expected = 0.5 * expected + 0.5 * step
    assert float(module.w) == pytest.approx(expected)
    assert callback.n_averaged == len(taken)


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({"start": 2}, [12, 16]),
        ({"start": 0.75}, [16]),
        ({"start": 0.5}, [12, 16]),
        ({"start": 0.6}, [12, 16]),  # from step 10 of 16 on: the epoch that ends with step 12 is one of them
        ({"start": 0}, [4, 8, 12, 16]),
        ({"start": 0.5, "every": 3}, [9, 12, 15]),
        ({"start": 10, "every": 2}, [12, 14, 16]),
    ],
)
def test_an_equal_average_is_of_these_steps(options, taken):
    callback, module = SWA(anneal="none", **options), Counter()
    fit(module, callback, epochs=4)
    assert float(module.w) == pytest.approx(mean(taken))
    assert callback.n_averaged == len(taken)


def test_an_epoch_that_max_steps_cuts_short_counts():
    module = Counter()
    fit(module, SWA(2, anneal="none"), epochs=-1, max_steps=14)
    assert float(module.w) == mean([12, 14])


def test_a_short_run_gets_a_short_memory():
    """5 % of 100 steps is a half-life of 5 steps, of which 0.9998 would have 3465."""
    callback = EMA(warmup=False)
    fit(Counter(), callback, epochs=25)
    assert callback._decay == pytest.approx(0.5 ** (1 / 5))
    every_second = EMA(warmup=False, every_n_steps=2)
    fit(Counter(), every_second, epochs=25)
    assert every_second._decay == pytest.approx(0.5 ** (2 / 5))
    asked = EMA(0.9998, warmup=False)
    fit(Counter(), asked, epochs=25)
    assert asked._decay == 0.9998


class Rates(Counter):
    """Two groups; the rates of each step are kept."""

    def __init__(self):
        super().__init__()
        self.v, self.rates = nn.Parameter(torch.zeros(())), []

    def training_step(self, batch, batch_idx):
        self.rates.append([group["lr"] for group in self.trainer.optimizers[0].param_groups])
        return super().training_step(batch, batch_idx) - self.v

    def configure_optimizers(self):
        return torch.optim.SGD([{"params": [self.w], "lr": 1.0}, {"params": [self.v], "lr": 0.1}])


@pytest.mark.parametrize(
    ("options", "fifth"),
    [
        ({}, [1.0, 0.75, 0.5, 0.5]),  # a cosine: half way in the middle
        ({"anneal": "linear", "lr": 0.2}, [1.0, 0.6, 0.2, 0.2]),
        ({"anneal": "none"}, [1.0] * 4),
    ],
)
def test_the_rate_goes_to_its_target_in_the_first_fifth(options, fifth):
    module = Rates()
    fit(module, SWA(0.5, **options), epochs=5)  # 20 steps, of which the last 10 are averaged over
    rates = [first for first, _ in module.rates]
    assert rates == pytest.approx([1.0] * 10 + fifth + fifth[-1:] * 6)
    assert [second for _, second in module.rates] == pytest.approx([rate / 10 for rate in rates])


def test_an_average_that_is_not_there_yet_is_not_made_up():
    callback = EMA(start_step=100)
    with pytest.raises(UserError, match="There is no average yet after 0 optimizer steps: it begins"):
        callback.average_weights()
    with pytest.raises(UserError, match="There are no raw weights before a fit"):
        callback.raw_weights()
    fit(Counter(), callback)
    with pytest.raises(UserError, match="There is no average yet after 8 optimizer steps: it begins"):
        callback.average_weights()
    with pytest.raises(UserError, match="no average yet"), callback.averaged(Counter()):
        pass
    assert float(callback.raw_weights()["w"]) == 8.0


def test_another_module_of_its_kind_can_hold_the_average():
    callback, other = EMA(0.5, warmup=False), Counter()
    fit(Counter(), callback)
    with callback.averaged(other) as held:
        assert held is other
        assert float(other.w) == float(callback.average_weights()["w"]) > 6
    assert float(other.w) == 0.0
    with pytest.raises(UserError, match="of another module: 1 of 2 tensors do not fit, such as v"):
        callback.averaged(Rates()).__enter__()


def test_a_fraction_of_a_run_without_an_end():
    with pytest.raises(UserError, match=r"`start=0.75` is a fraction of a run that has no end. Set `max_ep"):
        fit(Counter(), SWA(), epochs=-1)


# What is saved


@pytest.fixture
def saved(tmp_path):
    """A full checkpoint and one of the weights alone, of a run with two averages, and the run."""
    full = ModelCheckpoint(tmp_path / "full")
    alone = ModelCheckpoint(tmp_path / "alone", save_weights_only=True, every_n_epochs=2)
    ema, swa, module = EMA(0.5, warmup=False), SWA(0.5, anneal="none"), Counter()
    fit(module, ema, swa, full, alone, enable_checkpointing=True)
    return full.best_model_path, alone.best_model_path, ema, swa, module


def test_the_first_average_is_what_checkpoints_hold(saved):
    full, alone, ema, swa, module = saved
    expected = float(ema.average_weights()["w"])
    for path in (full, alone):
        assert float(torch.load(path, weights_only=True)["state_dict"]["w"]) == expected
    assert float(module.w) == module.seen[-1] == expected
    assert float(swa.average_weights()["w"]) == 8.0
    assert float(ema.raw_weights()["w"]) == float(swa.raw_weights()["w"]) == 8.0


def test_a_checkpoint_of_the_weights_alone_has_nothing_else(saved):
    stored = torch.load(saved[1], weights_only=True)
    assert "weight_averages" not in stored
    assert "optimizer_states" not in stored


def test_a_full_checkpoint_has_the_raw_weights_and_every_average(saved):
    stored = torch.load(saved[0], weights_only=True)["weight_averages"]
    assert float(stored["raw"]["w"]) == 8.0
    assert {key.split("{")[0]: float(v["w"]) for key, v in stored["averages"].items() if v} == {"SWA": 8.0}


@pytest.mark.parametrize("order", [1, -1])
def test_both_go_on_from_a_checkpoint(order, tmp_path):
    def callbacks():
        return [EMA(0.5, warmup=False), SWA(0.25, anneal="none")][::order]

    keep = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}")
    whole, module = callbacks(), Counter()
    fit(module, *whole, keep, epochs=4, enable_checkpointing=True)
    for epoch in (0, 1, 2):
        again, resumed = callbacks(), Counter()
        fit(resumed, *again, path=tmp_path / f"epoch={epoch}.ckpt", epochs=4)
        assert float(resumed.w) == float(module.w)
        for ours, theirs in zip(again, whole, strict=True):
            assert ours.average_weights() == theirs.average_weights()
            assert ours.n_averaged == theirs.n_averaged


def test_a_resumed_run_may_have_another_decay(tmp_path):
    keep = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}")
    fit(Counter(), EMA(0.5, warmup=False), keep, epochs=1, enable_checkpointing=True)
    first = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)["state_dict"]["w"]
    resumed = Counter()
    fit(resumed, EMA(0.75, warmup=False), path=tmp_path / "epoch=0.ckpt", epochs=2)
    expected = float(first)
    for step in range(5, 9):
        expected = 0.75 * expected + 0.25 * step
    assert float(resumed.w) == pytest.approx(expected)


def test_weights_of_sixteen_bits_go_on_to_the_bit(tmp_path):
    """The average is kept in float32, and its checkpoint's weights in bfloat16."""

    def run(*others, path=None):
        seed_everything(1, verbose=False)
        module, callback = Half(), EMA(0.9)
        fit(module, callback, ExactResume(), *others, path=path, epochs=3, enable_checkpointing=bool(others))
        return module, callback

    class Half(Counter):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8).bfloat16()

        def training_step(self, batch, batch_idx):
            return (
                super().training_step(batch, batch_idx)
                + self.layer(torch.randn(2, 8).bfloat16()).square().mean()
            )

    module, whole = run(ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}"))
    stored = torch.load(tmp_path / "epoch=1.ckpt", weights_only=True)
    assert stored["state_dict"]["layer.weight"].dtype == torch.bfloat16
    resumed, again = run(path=tmp_path / "epoch=1.ckpt")
    assert again.average_weights()["layer.weight"].dtype == torch.float32
    for name, tensor in whole.average_weights().items():
        assert torch.equal(again.average_weights()[name], tensor)
    assert torch.equal(resumed.layer.weight, module.layer.weight)


@pytest.mark.parametrize("save_weights_only", [True, False])
def test_the_best_checkpoint_tests_as_it_was_validated(save_weights_only, tmp_path):
    """A real classifier, with BatchNorm: its metrics come back from the file, and through the Trainer."""
    seed_everything(0, verbose=False)
    data, model = DigitsDataModule(batch_size=64), ImageClassifier("test_resnet", in_chans=1, image_size=32)
    keep = ModelCheckpoint(tmp_path, monitor="val/loss", save_weights_only=save_weights_only, filename="best")
    used = Trainer(**{**QUIET, "max_epochs": 2, "enable_checkpointing": True}, callbacks=[SWA(0.4), keep])
    used.fit(model, data)
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "best.ckpt")
    (from_file,) = Trainer(**QUIET).validate(loaded, data, verbose=False)
    assert from_file["val/loss"] == pytest.approx(float(keep.best_model_score), rel=1e-6)
    (from_path,) = used.validate(model, data, ckpt_path="best", verbose=False, weights_only=True)
    assert from_path["val/loss"] == pytest.approx(float(keep.best_model_score), rel=1e-6)


# Together with others


def test_early_stopping_restores_the_average_that_was_best():
    class Rises(Counter):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            self.log("val/loss", (self.w - 7).abs())

    callback, stop, module = (
        EMA(0.5, warmup=False),
        EarlyStoppingWithRestore(patience=2, verbose=False),
        Rises(),
    )
    fit(module, callback, stop, epochs=9)
    assert module.seen[stop.best_epoch] == float(module.w)
    assert stop.stop_reason == "patience"
    assert float(callback.raw_weights()["w"]) == 4 * STEPS


def test_a_decay_per_layer_from_two_averages():
    slow, fast, module = EMA(0.9, warmup=False), EMA(0.5, warmup=False), Counter()
    fit(module, slow, fast)
    assert float(slow.average_weights()["w"]) < float(fast.average_weights()["w"]) < 8
    assert float(module.w) == float(slow.average_weights()["w"])


def overflowing():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, backoff_factor=2.0**-4)
    return MixedPrecision("16-mixed", "cpu", scaler)


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_that_the_scaler_leaves_out_is_none(fused):
    class Net(Counter):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.changed = 0

        def training_step(self, batch, batch_idx):
            self.before = self.layer.weight.detach().clone()
            return self.layer(torch.ones(2, 4)).square().mean()

        def on_train_batch_end(self, outputs, batch, batch_idx):
            self.changed += not torch.equal(self.before, self.layer.weight)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1, fused=fused)

    callback, module = EMA(0.5, warmup=False), Net()
    fit(module, callback, plugins=overflowing())
    assert callback.steps == callback.n_averaged == module.changed
    assert 0 < module.changed < 2 * STEPS


@pytest.mark.parametrize("kind", [EMA, SWA])
def test_it_is_kept_where_it_is_told(kind):
    callback = kind(device="cpu")
    fit(Counter(), callback, epochs=4)
    assert callback.average_weights()["w"].device.type == "cpu"


# BatchNorm of an equal average


class Normed(Counter):
    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(1), nn.Dropout(0.5)

    def forward(self, inputs):
        return self.drop(self.norm(inputs * self.w.detach()))

    def training_step(self, batch, batch_idx):
        self(batch[0])
        return super().training_step(batch, batch_idx)


def ones_and_fives():
    return DataLoader(TensorDataset(torch.tensor([[1.0], [5.0]]).repeat(STEPS, 1)), batch_size=2)


def test_statistics_are_those_of_the_averaged_weights():
    """Inputs have mean 3; times the average 14 of the weights, not the mean of the means on the way."""
    module = Normed()
    trainer(SWA(2, anneal="none"), epochs=4).fit(module, ones_and_fives())
    assert float(module.norm.running_mean) == pytest.approx(3 * 14)
    assert float(module.norm.running_var) == pytest.approx(8 * 14**2)
    assert module.norm.momentum == 0.1


def test_the_refresh_draws_nothing_and_leaves_the_raw_statistics_alone():
    def run(*callbacks):
        seed_everything(1, verbose=False)
        module = Normed()
        trainer(*callbacks, epochs=4).fit(module, ones_and_fives(), ones_and_fives())
        return module, torch.rand(())

    swa = SWA(2, anneal="none")
    (alone, after), (_, after_swa) = run(), run(swa)
    assert after == after_swa
    for name, tensor in swa.raw_weights().items():
        assert torch.equal(tensor, alone.state_dict()[name])


@pytest.mark.slow
def test_two_processes_share_the_statistics(tmp_path):
    """Each measures its half of the data; both end with the mean. See `statistics_run`."""
    done = run_module("tests.callbacks.statistics_run", tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first == second
    assert float(first["mean"]) == pytest.approx((2.0 + 6.0) / 2 * float(first["w"]))
    assert float(first["var"]) == pytest.approx((2.0 + 18.0) / 2 * float(first["w"]) ** 2)
    assert float(first["w"]) == mean([12, 16])


def test_at_most_so_many_batches_are_read():
    class Watched(Normed):
        passes = 0

        def forward(self, inputs):
            self.passes += not self.training
            return super().forward(inputs)

    module = Watched()
    trainer(SWA(3, anneal="none", refresh_batches=3), epochs=4).fit(module, ones_and_fives())
    assert module.passes == 3


def test_a_module_without_forward_is_told_so():
    class Without(Counter):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(1)

    with pytest.warns(
        UserWarning, match="Without has BatchNorm but no `forward`: its statistics are averaged"
    ):
        fit(Without(), SWA(1, anneal="none"))


def test_another_way_forward():
    class Forwards(SWA):
        def forward_batch(self, pl_module, batch):
            pl_module.norm(batch["x"])

    class Keyed(Counter):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(1)

    data = DataLoader([{"x": torch.tensor([float(n)])} for n in range(8)], batch_size=4)
    module = Keyed()
    trainer(Forwards(0, anneal="none"), epochs=1).fit(module, data)
    assert float(module.norm.running_mean) == 3.5


# Runs whose length is not what it seems


class Unsized(IterableDataset):
    def __iter__(self):
        return iter(torch.zeros(STEPS, 1))


def test_a_fraction_of_a_run_whose_loader_has_no_length_is_of_its_epochs():
    module, callback = Rates(), SWA(0.75)
    trainer(callback, epochs=4).fit(module, DataLoader(Unsized()))
    assert callback.n_averaged == 1
    assert [first for first, _ in module.rates[: 3 * STEPS]] == [1.0] * 3 * STEPS


def test_the_half_life_of_such_a_run_is_found_after_its_first_epoch():
    sized, unsized = EMA(), EMA()
    fit(Counter(), sized, epochs=25)
    trainer(unsized, epochs=25).fit(Counter(), DataLoader(Unsized()))
    assert unsized._decay == sized._decay


@pytest.mark.parametrize("kind", [TwoOptimizers, "steps every fourth batch"])
def test_a_fraction_of_a_run_by_hand_is_of_its_batches(kind):
    class Seldom(Counter):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            self.manual_backward(-self.w)
            if batch_idx % 4 == 3:
                self.optimizers().step()
                self.optimizers().zero_grad()

    callback = SWA(0.75, anneal="none")
    fit(Seldom() if isinstance(kind, str) else kind(), callback, epochs=8)
    assert callback.n_averaged == 2


@pytest.mark.parametrize(
    ("late", "averaged"),
    [(SWA(0.75, anneal="none"), 1), (SWA(14, every=1, anneal="none"), 2), (EMA(start_step=14), 2)],
)
def test_a_callback_that_comes_later_counts_the_steps_before_it(late, averaged, tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="early")
    fit(Counter(), keep, epochs=3, enable_checkpointing=True)
    fit(Counter(), late, path=tmp_path / "early.ckpt", epochs=4)
    assert late.n_averaged == averaged


@pytest.mark.parametrize("callback", [EMA(start_step=100), SWA(9), SWA(100, every=1)])
def test_an_average_that_never_began_is_mentioned(callback):
    name = type(callback).__name__
    with pytest.warns(UserWarning, match=f"{name} made no average in 8 steps: it begins"):
        fit(Counter(), callback)


def test_a_module_that_was_changed_after_the_fit_is_trained_as_it_is():
    module, callback = Counter(), EMA(0.5, warmup=False)
    fit(module, callback)
    module.load_state_dict({"w": torch.tensor(100.0)})
    trainer(callback).validate(module, batches(1), verbose=False)
    module.began.clear()
    fit(module, callback)
    assert module.began[0] == 100.0
    assert float(callback.raw_weights()["w"]) == 108.0


def test_a_device_that_is_not_there():
    with pytest.raises(UserError, match=r"`device: cuda` is not there: .* Take `cpu`"):
        fit(Counter(), EMA(device="cuda"))
