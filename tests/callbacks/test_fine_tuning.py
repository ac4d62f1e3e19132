"""`FineTuning`: what learns when and how fast, what stands still, and runs that were cut off."""

import re
import warnings
from types import SimpleNamespace
from typing import get_args

import pytest
import timm
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from timm.optim.lamb import Lamb
from timm.optim.lion import Lion
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from lightning_recipes import EMA, SWA, ExactResume, FineTuning, ImageClassifier
from lightning_recipes.datamodules import DigitsDataModule
from lightning_recipes.transfer import PolicyName
from lightning_recipes.utils.errors import UserError

from ..contract.test_contract import hooks
from ..contract.toys import QUIET, same
from ..processes import run_module
from . import transfer_run
from .transferred import PARTS, Backbone, Transfer, Witness, fit, moved, rates, transfer, tuning

POLICIES = get_args(PolicyName)


def watched(module, callback, *callbacks, **options):
    """Return what a fit with the callback looked like."""
    witness = Witness()
    fit(module, [callback, *callbacks, witness], **{"epochs": 4, **options})
    return witness


def norms_of(module):
    return [(n, part) for n, part in module.net.named_modules() if isinstance(part, nn.BatchNorm1d)]


# What learns when

COURSES = {
    "scratch": ({}, [4, 4, 4, 4]),
    "linear_probe": ({}, [0, 0, 0, 0]),
    "finetune": ({}, [4, 4, 4, 4]),
    "probe_then_finetune": ({"probe_epochs": 2}, [0, 0, 4, 4]),
    "probe_then_finetune ": ({}, [0, 4, 4, 4]),  # 0.2 of 4 epochs
    "gradual_unfreeze": ({}, [0, 1, 2, 3]),
    "gradual_unfreeze ": ({"unfreeze_every": 2}, [0, 0, 1, 1]),
    "finetune ": ({"freeze_until": "stages.1"}, [2, 2, 2, 2]),
    "finetune  ": ({"freeze_until": 1}, [3, 3, 3, 3]),
    "probe_then_finetune  ": ({"freeze_until": "stages.2.0", "probe_epochs": 1}, [0, 1, 1, 1]),
    "gradual_unfreeze  ": ({"freeze_until": "stages.1"}, [0, 1, 2, 2]),
}


@pytest.mark.parametrize("policy", COURSES)
def test_the_last_parts_learn_and_the_others_stand_still(policy):
    options, learning = COURSES[policy]
    module = transfer()
    start = {name: value.clone() for name, value in module.state_dict().items()}
    witness = watched(module, tuning(policy.strip(), **options))
    assert witness.learning == [PARTS[4 - count :] for count in learning]
    assert witness.training == witness.learning
    for before, after, count in zip([start, *witness.states], witness.states, learning, strict=False):
        for part in PARTS[: 4 - count]:
            assert moved(before, after, f"backbone.{part}.") == []
        for part in PARTS[4 - count :]:  # statistics too
            names = [name for name in before if name.startswith(f"backbone.{part}.")]
            assert moved(before, after, f"backbone.{part}.") == names
        assert len(moved(before, after, "head.")) == 2


class Timm(Transfer):
    """A timm backbone over 32 pixels."""

    def __init__(self, name):
        super().__init__()
        size = {"img_size": 32} if "vit" in name else {}
        self.backbone = timm.create_model(name, num_classes=0, in_chans=1, **size)
        self.head = nn.Linear(self.backbone.num_features, 4)

    def forward(self, images):
        return super().forward(images.repeat(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test_resnet", [[], ["layer4"], ["layer3", "layer4"], ["layer2", "layer3", "layer4"]]),
        ("test_vit", [[], ["blocks.5"], ["blocks.4", "blocks.5"], ["blocks.3", "blocks.4", "blocks.5"]]),
    ],
)
def test_timm_s_networks_thaw_from_the_top(name, expected):
    module, seen = transfer(Timm, name=name), []

    class Look(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            names = [n for n, p in pl_module.backbone.named_parameters() if p.requires_grad]
            stages = [re.match(r"layer\d|blocks\.\d|", n)[0] for n in names]
            seen.append(list(dict.fromkeys(stage for stage in stages if stage)))

    fit(module, [tuning("gradual_unfreeze"), Look()], epochs=4, limit_train_batches=1, limit_val_batches=0)
    assert seen == expected


# What stands still


class Telling(Transfer):
    """Tells all of its layers to train, at a moment of its choice."""

    def __init__(self, moment):
        super().__init__()
        self.moment = moment

    def on_train_epoch_start(self):
        if self.moment == "epoch":
            self.train()

    def on_train_batch_start(self, batch, batch_idx):
        if self.moment == "batch":
            self.train()

    def training_step(self, batch, batch_idx):
        if self.moment == "step":
            self.train()
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("moment", ["epoch", "batch", "step"])
@pytest.mark.parametrize("options", [{"policy": "linear_probe"}, {"policy": "finetune", "freeze_until": 2}])
def test_statistics_of_frozen_layers_do_not_move_whoever_tells_them_to_train(moment, options):
    module = transfer(Telling, moment=moment)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fit(module, [tuning(**options)], epochs=2)
    for part in PARTS if options["policy"] == "linear_probe" else PARTS[:2]:
        assert moved(before, module.state_dict(), f"backbone.{part}.") == []
    assert len(moved(before, module.state_dict(), "head.")) == 2


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("policy", ["finetune", "probe_then_finetune", "gradual_unfreeze"])
def test_norms_stand_still_while_all_else_learns(policy, affine):
    module = transfer()
    if not affine:
        for part in module.backbone.stages:
            part[1] = nn.BatchNorm1d(6, affine=False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fit(module, [FineTuning(policy)], epochs=5)
    norms = [f"backbone.stages.{n}.1." for n in range(3)] + ["backbone.stem.2."]
    for name in before:
        assert (name in moved(before, module.state_dict())) != any(name.startswith(norm) for norm in norms)


def test_norms_from_scratch_learn():
    module = transfer()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fit(module, [FineTuning("scratch")], epochs=2)
    assert moved(before, module.state_dict()) == list(before)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: AdamW(p, 0.01, weight_decay=0.1),
        lambda p: SGD(p, 0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
        lambda p: torch.optim.Adagrad(p, 0.01, weight_decay=0.1),
        lambda p: Lamb(p, 0.01, weight_decay=0.1),
        lambda p: Lion(p, 0.01, weight_decay=0.1),
    ],
    ids=["AdamW", "SGD", "Adagrad", "Lamb", "Lion"],
)
@pytest.mark.parametrize("accumulated", [1, 3])
def test_no_optimizer_moves_what_is_frozen(make, accumulated):
    module = transfer(optimizer=make)
    start = {name: value.clone() for name, value in module.state_dict().items()}
    callback = tuning("probe_then_finetune", probe_epochs=2)
    witness = watched(module, callback, epochs=3, accumulate_grad_batches=accumulated)
    assert moved(start, witness.states[1], "backbone") == []
    assert len(moved(start, witness.states[2], "backbone")) == len(list(module.backbone.state_dict()))


def test_what_the_user_has_frozen_never_learns():
    module = transfer()
    module.backbone.stages[1][0].weight.requires_grad = False
    module.head.bias.requires_grad = False
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fit(module, [tuning("probe_then_finetune", probe_epochs=1)])
    still = {name for name in before if name not in moved(before, module.state_dict())}
    assert still == {"backbone.stages.1.0.weight", "head.bias"}
    assert not module.head.bias.requires_grad


def test_a_zero_bias_like_the_head_s_is_frozen_and_learns():
    module = transfer()
    module.head = nn.Linear(6, 6)
    nn.init.zeros_(module.head.bias)
    witness = watched(module, tuning("probe_then_finetune", probe_epochs=1), epochs=2)
    name = "backbone.stages.1.1.bias"
    assert not witness.states[0][name].any()
    assert witness.states[1][name].any()


# How fast


def test_layers_learn_at_their_share_from_the_first_step():
    module = transfer(lr=0.5)
    used = fit(module, [tuning("gradual_unfreeze", backbone_scale=0.1, layer_decay=0.5)], epochs=1)
    shares = {"stem": 1 / 8, "stages.0": 1 / 4, "stages.1": 1 / 2, "stages.2": 1}
    for name, rate in rates(used.optimizers[0], module).items():
        expected = next((0.05 * share for part, share in shares.items() if f"backbone.{part}" in name), 0.5)
        assert rate == pytest.approx(expected), name


@pytest.mark.parametrize("policy", ["scratch", "linear_probe"])
def test_where_all_that_learns_has_one_rate_the_groups_are_left_alone(policy):
    used = fit(transfer(), [tuning(policy, layer_decay=0.5)], epochs=1)
    assert len(used.optimizers[0].param_groups) == 1


class Scheduled(Transfer):
    """With a schedule a step; notes the rates."""

    def __init__(self, make_schedule, **options):
        super().__init__(**options)
        self.make_schedule, self.noted = make_schedule, []

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        schedule = self.make_schedule(optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_start(self, batch, batch_idx):
        self.noted.append(rates(self.trainer.optimizers[0], self))


SCHEDULES = {
    "OneCycleLR": lambda optimizer, steps: OneCycleLR(optimizer, 0.3, steps),
    "CosineAnnealingLR": lambda optimizer, steps: CosineAnnealingLR(optimizer, steps),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_ratios_hold_over_the_whole_run(name):
    """The head has the rate that it would have alone, the backbone a tenth of it, at every step."""
    alone = transfer(Scheduled, make_schedule=SCHEDULES[name])
    module = transfer(Scheduled, make_schedule=SCHEDULES[name])
    fit(alone)
    fit(module, [tuning("probe_then_finetune", probe_epochs=1)])
    assert len(module.noted) == len(alone.noted) == 12
    for ours, plain in zip(module.noted, alone.noted, strict=True):
        for parameter, rate in plain.items():
            share = 0.1 if parameter.startswith("backbone") else 1.0
            assert ours[parameter] == pytest.approx(rate * share, rel=1e-9)


def test_rates_group_by_group_that_no_longer_fit_are_named():
    def build(optimizer, steps):
        return OneCycleLR(optimizer, [0.3], steps)

    with pytest.raises(UserError, match=r"max_lr.* FineTuning cuts the groups by depth: there are 2 now"):
        fit(transfer(Scheduled, make_schedule=build), [tuning("finetune")])


def test_other_errors_of_the_module_pass_through():
    def build(parameters):
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        fit(transfer(optimizer=build), [tuning("finetune")])


@pytest.mark.filterwarnings("ignore:You have overridden")
def test_the_rates_can_be_logged(tmp_path):
    """LearningRateMonitor stops at two groups of one name: here are two with a part of the backbone each."""

    def make(parameters):
        members = list(parameters)
        groups = [[p for p in members if p.ndim > 1], [p for p in members if p.ndim == 1]]
        return SGD([{"params": group} for group in groups], 0.1)

    module = transfer(Scheduled, make_schedule=SCHEDULES["CosineAnnealingLR"], optimizer=make)
    logger = CSVLogger(tmp_path)
    fit(module, [tuning("finetune"), LearningRateMonitor()], logger=logger, log_every_n_steps=1, epochs=1)
    logged = {name for line in logger.experiment.metrics for name in line} or set(
        logger.experiment.metrics_keys
    )
    shown = {name.rpartition("/")[2] for name in logged if name.startswith("lr-")}
    assert shown == {"head", "head 2", "backbone", "backbone 2"}


# Modules of the user's own


class Nested(Transfer):
    """Its backbone lies deeper."""

    def __init__(self):
        super().__init__(name="unused")
        self.unused = None
        self.model = nn.ModuleDict({"encoder": Backbone(), "decoder": nn.Linear(6, 6)})

    @property
    def net(self):
        return self.model["encoder"]

    def forward(self, images):
        return self.head(self.model["decoder"](self.net(images)))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: transfer(name="encoder"), "encoder"),
        (lambda: transfer(name="model"), "model"),
        (lambda: transfer(Nested), "model.encoder"),
    ],
)
def test_the_backbone_may_have_any_name_and_lie_anywhere(make, name):
    module = make()
    witness = watched(module, tuning("gradual_unfreeze", backbone=name, layer_decay=0.5))
    assert witness.learning == [PARTS[4 - count :] for count in range(4)]
    assert len(moved(witness.states[0], witness.states[1], "head")) == 2


def test_a_backbone_that_the_module_s_setup_builds_is_found():
    class Late(Transfer):
        def __init__(self):
            super().__init__()
            self.backbone = self.head = None

        def setup(self, stage):
            self.backbone, self.head = Backbone(), nn.Linear(6, 4)

    witness = watched(transfer(Late), tuning("gradual_unfreeze", layer_decay=0.5))
    assert witness.learning == [PARTS[4 - count :] for count in range(4)]


class ByHand(Transfer):
    """An optimizer for the backbone and one for the head, stepped by hand."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return [SGD(self.backbone.parameters(), 0.1, momentum=0.9), SGD(self.head.parameters(), 0.1)]


def test_two_optimizers_by_hand():
    module = transfer(ByHand)
    start = {name: value.clone() for name, value in module.state_dict().items()}
    witness = watched(module, tuning("probe_then_finetune", probe_epochs=2))
    assert witness.learning == [[], [], PARTS, PARTS]
    assert moved(start, witness.states[1], "backbone") == []
    assert len(moved(start, witness.states[2], "backbone")) == len(module.backbone.state_dict())
    assert rates(module.trainer.optimizers[0], module)["backbone.stem.1.weight"] == pytest.approx(0.01)


def half():
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))


def test_fp16_by_hand_says_that_it_cannot_step_an_optimizer_of_frozen_parameters():
    with pytest.raises(
        UserError, match=r"fp16 cannot step a SGD whose .* in epoch 0. Take `precision: bf16-mixed`"
    ):
        fit(transfer(ByHand), [tuning("linear_probe")], plugins=half())


@pytest.mark.parametrize("policy", POLICIES)
def test_fp16_with_one_optimizer_works(policy):
    witness = watched(transfer(), tuning(policy), plugins=half())
    assert len(witness.states) == 4


def test_fp16_by_hand_works_where_each_optimizer_has_something_that_learns():
    witness = watched(transfer(ByHand), tuning("finetune", freeze_until=3), plugins=half())
    assert witness.learning == [PARTS[3:]] * 4


# Other callbacks, and the next fit


@pytest.mark.parametrize("order", [1, -1])
def test_an_average_over_the_switch(order):
    """The average of what does not move is what it is, to the bit."""
    module = transfer()
    start = {name: value.clone() for name, value in module.state_dict().items()}
    average = EMA(0.5)
    callbacks = [tuning("probe_then_finetune", probe_epochs=1), average][::order]
    fit(module, callbacks, epochs=1)
    assert moved(start, module.state_dict(), "backbone") == []
    assert average.n_averaged == 4
    fit(module, callbacks, epochs=3)
    assert average.n_averaged == 12
    assert len(moved(start, module.state_dict(), "backbone")) == len(module.backbone.state_dict())


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("policy", "still"), [("linear_probe", 4), ("gradual_unfreeze", 2), ("probe_then_finetune", 0)]
)
def test_an_average_whose_statistics_are_measured_anew(order, policy, still):
    """`SWA` measures those of the norms that learn by then, and leaves those of the others as they are."""
    module = transfer()
    for _, part in norms_of(module):
        part.running_var.fill_(1e6)
    callbacks = [tuning(policy, probe_epochs=2), SWA(1, anneal="none")]
    fit(module, callbacks[::order], epochs=3)
    kept = [name for name, part in norms_of(module) if part.running_var.eq(1e6).all()]
    assert kept == [name for name, _ in norms_of(module)][:still]
    for name, part in norms_of(module):
        assert name in kept or part.running_var.max() < 100  # of what was before, nothing is left


def test_an_average_that_is_resumed_within_an_epoch_leaves_frozen_norms_alone(tmp_path):
    keep = ModelCheckpoint(tmp_path, save_top_k=-1, every_n_train_steps=3)
    module = transfer()
    for path in (None, *(tmp_path / f"epoch={n // 4}-step={n}.ckpt" for n in (3, 6, 9))):
        for _, part in norms_of(module):
            part.running_var.fill_(1e6)
        callbacks = [SWA(0, anneal="none"), tuning("linear_probe"), ExactResume(), keep]
        fit(module, callbacks, path=path, enable_checkpointing=True)
        assert all(part.running_var.eq(1e6).all() for _, part in norms_of(module))


def test_a_fit_leaves_no_trace_on_the_module():
    module = transfer()
    module.backbone.stages[2][3].eval()
    module.head.bias.requires_grad = False
    before = [p.requires_grad for p in module.parameters()], [m.training for m in module.modules()]
    fit(module, [tuning("linear_probe", layer_decay=0.5)], limit_val_batches=0)
    assert ([p.requires_grad for p in module.parameters()], [m.training for m in module.modules()]) == before
    assert hooks(module) == 0
    assert "configure_optimizers" not in vars(module)


def test_a_second_fit_begins_with_its_own_probe():
    """The first one's lasted for three of ten epochs; here are four."""
    callback = tuning(probe_epochs=0.3)
    assert [len(parts) for parts in watched(transfer(), callback, epochs=10).learning] == [0] * 3 + [4] * 7
    assert [len(parts) for parts in watched(transfer(), callback, epochs=4).learning] == [0] * 1 + [4] * 3


# Runs that were cut off


def interrupted(policy, tmp_path, *, every=None, extra=(), drop=0.2):
    """Return the checkpoints of a run of all its moments, and its end; and how to run it from a path."""
    options = {"layer_decay": 0.5} if policy in ("finetune", "gradual_unfreeze") else {}

    def run(path=None, save=()):
        module = transfer(
            Scheduled, make_schedule=SCHEDULES["OneCycleLR"], drop=drop, optimizer=lambda p: AdamW(p, 0.01)
        )
        callback = tuning(policy, probe_epochs=2, **options)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before")
            used = fit(module, [*extra, callback, *save], epochs=4, path=path, enable_checkpointing=True)
        return {
            "state": module.state_dict(),
            "optimizer": used.optimizers[0].state_dict(),
            "schedule": used.lr_scheduler_configs[0].scheduler.state_dict(),
        }

    keep = ModelCheckpoint(tmp_path, filename="{epoch}-{step}", save_top_k=-1, every_n_train_steps=every)
    whole = run(save=[keep])
    return sorted(tmp_path.glob("*.ckpt")), whole, run


@pytest.mark.parametrize("policy", POLICIES)
def test_resumed_from_any_epoch_equals_uninterrupted(policy, tmp_path):
    paths, whole, run = interrupted(policy, tmp_path, drop=0.0)
    assert len(paths) == 4
    for path in paths[:-1]:
        resumed = run(path)
        for part, expected in whole.items():
            assert same(resumed[part], expected), (path.name, part)


@pytest.mark.parametrize("policy", POLICIES)
def test_resumed_within_an_epoch_equals_uninterrupted_with_exact_resume(policy, tmp_path):
    paths, whole, run = interrupted(policy, tmp_path, every=3, extra=[ExactResume()])
    assert len(paths) == 5
    for path in paths:
        resumed = run(path)
        for part, expected in whole.items():
            assert same(resumed[part], expected), (path.name, part)


@pytest.mark.parametrize(
    ("before", "after", "counts"),
    [
        ([FineTuning("linear_probe")], {"policy": "finetune"}, "1 parameter groups, this one 2"),
        ([], {"policy": "finetune"}, "1 parameter groups, this one 2"),
        ([FineTuning("finetune")], {"policy": "linear_probe"}, "2 parameter groups, this one 1"),
        ([FineTuning("finetune")], {"policy": "finetune", "layer_decay": 0.5}, "2 .* this one 5"),
    ],
)
def test_a_run_that_is_resumed_with_other_groups_is_refused(before, after, counts, tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="one")
    fit(transfer(), [*before, keep], epochs=1, enable_checkpointing=True)
    witness, callback = Witness(), FineTuning(**after)
    with pytest.raises(UserError, match=counts):
        fit(transfer(), [callback], epochs=2, path=tmp_path / "one.ckpt")
    fit(transfer(), [callback, witness], epochs=1)  # a new run is none of that one's
    assert len(witness.learning) == 1


def test_a_run_that_is_resumed_for_longer_does_not_return_to_its_probe(tmp_path):
    """0.5 of 4 epochs are 2; of 12 they would be 6, and the fifth would freeze what has begun to learn."""
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    fit(transfer(), [tuning(probe_epochs=0.5), keep], epochs=4, enable_checkpointing=True)
    for epoch, expected in ((3, [4] * 8), (0, [0] + [4] * 10)):
        witness = Witness()
        path = tmp_path / f"epoch={epoch}.ckpt"
        fit(transfer(), [tuning(probe_epochs=0.5), witness], epochs=12, path=path)
        assert [len(parts) for parts in witness.learning] == expected
    witness = Witness()
    fit(transfer(), [tuning(probe_epochs=0.25), witness], epochs=12, path=tmp_path / "epoch=0.ckpt")
    assert [len(parts) for parts in witness.learning] == [0] * 2 + [
        4
    ] * 9  # another setting is given: it holds


@pytest.mark.slow
def test_two_processes_agree_and_do_what_one_does(tmp_path):
    done = run_module("tests.callbacks.transfer_run", tmp_path)
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert same(ranks[0], ranks[1])
    for policy in transfer_run.POLICIES:
        _, start, end = transfer_run.run(policy, 1)
        assert len(moved(start, end, "backbone.layer4")) > 5
        # Gradients are averaged over two halves instead of one whole: equal but for the order of sums.
        torch.testing.assert_close(ranks[0][policy], end, rtol=1e-3, atol=1e-5)


# What is refused


@pytest.mark.parametrize("strategy", [FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy])
def test_strategies_that_shard_parameters_are_refused(strategy):
    trainer = SimpleNamespace(strategy=object.__new__(strategy))
    with pytest.raises(UserError, match=f"got {strategy.__name__}. Set `strategy: ddp`"):
        tuning().setup(trainer, transfer(), "fit")
    tuning().setup(trainer, transfer(), "test")


class Headless(Transfer):
    """All of it is one part."""

    def __init__(self):
        super().__init__()
        self.head = None

    def forward(self, images):
        return self.backbone(images)


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        (
            Transfer,
            {"backbone": "backbon"},
            "a part of Transfer, got 'backbon'. Did you mean `backbone`? Its parts",
        ),
        (Transfer, {"backbone": "head.0"}, "`backbone` must name a part of Transfer, got 'head.0'"),
        (Transfer, {"backbone": ""}, "in what lies outside of ``"),
        (
            Headless,
            {"policy": "linear_probe"},
            "`linear_probe` begins with what lies outside of `backbone`, where",
        ),
        (Headless, {"policy": "gradual_unfreeze"}, "or take `finetune`"),
        (
            Transfer,
            {"freeze_until": 5},
            "`freeze_until` must lie in 0..4, the stages of the backbone (stem, stages.0",
        ),
        (
            Transfer,
            {"freeze_until": "stages.7"},
            "a part of the backbone, got 'stages.7'. Did you mean `stages.",
        ),
        (Transfer, {"backbone": "head", "layer_decay": 0.5}, "Linear has no `group_matcher`"),
        (Transfer, {"backbone": "head", "policy": "gradual_unfreeze"}, "Linear has no `group_matcher`"),
    ],
)
def test_says_what_is_wrong(kind, options, says):
    if options == {"backbone": ""}:
        says = "begins with what lies outside"
    module = transfer(kind)
    with pytest.raises(UserError, match=re.escape(says)):
        fit(module, [tuning(**options)])
    assert "configure_optimizers" not in vars(module)
    assert all(p.requires_grad for p in module.parameters())


def test_scratch_freezes_nothing():
    with pytest.raises(UserError, match=r"`scratch` trains all, got `freeze_until: layer3`\. Take"):
        FineTuning("scratch", freeze_until="layer3")


def test_a_fraction_of_a_run_without_an_end_is_refused():
    with pytest.raises(UserError, match="has no `max_epochs`"):
        fit(transfer(), [tuning()], epochs=-1, max_steps=4)
    witness = Witness()
    fit(transfer(), [tuning(probe_epochs=1), witness], epochs=-1, max_steps=8)
    assert witness.learning == [[], PARTS]


@pytest.mark.parametrize(
    ("options", "epochs", "warns"),
    [({"probe_epochs": 2}, 2, True), ({}, 1, True), ({"probe_epochs": 1}, 2, False), ({}, 2, False)],
)
def test_a_probe_as_long_as_the_run_is_warned_of(options, epochs, warns):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(transfer(), [FineTuning(**options)], epochs=epochs)
    assert any("the backbone never learns" in str(one.message) for one in caught) == warns


def test_a_compiled_backbone_is_that_within():
    plain, compiled = transfer(), transfer()
    compiled.backbone = torch.compile(compiled.backbone, backend="eager")
    for module in (plain, compiled):
        fit(module, [FineTuning("gradual_unfreeze", layer_decay=0.5)], epochs=3)
    tensors = {n.replace("_orig_mod.", ""): value for n, value in compiled.state_dict().items()}
    assert same(tensors, dict(plain.state_dict()))


def test_a_module_without_a_head_can_be_fine_tuned():
    module = transfer(Headless)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fit(module, [tuning("finetune", freeze_until=1)], epochs=1)
    assert moved(before, module.state_dict(), "backbone.stem") == []
    assert moved(before, module.state_dict(), "backbone.stages") != []


def test_an_image_classifier_by_the_handbook(tmp_path):
    """Probe, then fine-tune a ViT with decayed rates: the two groups of the weight decay are cut by depth."""
    seed_everything(1, verbose=False)
    model = ImageClassifier("test_vit", num_classes=10, in_chans=1, image_size=32)
    trainer = Trainer(**QUIET, max_epochs=2, callbacks=[tuning(probe_epochs=1, layer_decay=0.75)])
    trainer.fit(model, datamodule=DigitsDataModule(limit_per_class=4, batch_size=20))
    groups = {group["name"]: group for group in trainer.optimizers[0].param_groups}
    top = groups["decay/head"]["initial_lr"]
    for depth in range(7):
        assert groups[f"decay/backbone.{depth}"]["initial_lr"] == pytest.approx(
            top * 0.1 * 0.75 ** (6 - depth)
        )
    assert groups["no_decay/backbone.0"]["weight_decay"] == 0
    assert isinstance(model, LightningModule)
