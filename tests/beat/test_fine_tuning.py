"""Freezing and fine-tuning: what goes wrong with Lightning's `BackboneFinetuning`, and not with ours."""

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lightning_recipes import FineTuning

from ..callbacks.transferred import PARTS, Transfer, Witness, fit, moved, rates, transfer, tuning
from ..contract.toys import same
from ..processes import run_module
from .finetuning_run import SIDES, Plain, probing
from .toys import both


@both
def test_a_run_that_is_resumed_after_the_switch_goes_on(side, tmp_path):
    """Lightning's leaves the backbone frozen for ever."""
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    whole, resumed = transfer(Plain, drop=0.0), transfer(Plain, drop=0.0)
    fit(whole, [probing(side), keep], epochs=4, enable_checkpointing=True)
    witness = Witness()
    fit(resumed, [probing(side), witness], epochs=4, path=tmp_path / "epoch=1.ckpt")
    assert witness.learning == [PARTS] * 2
    assert same(dict(resumed.state_dict()), dict(whole.state_dict()))


@both
def test_frozen_norms_do_not_move(side):
    module = transfer(Plain)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    callback = probing(side, train_bn=False) if side == "lightning" else FineTuning()
    fit(module, [callback], epochs=3)
    norms = [path for path, part in module.named_modules() if isinstance(part, nn.BatchNorm1d)]
    assert [moved(before, module.state_dict(), f"{path}.") for path in norms] == [[]] * 4
    assert moved(before, module.state_dict(), "backbone.stages.0.0.weight")


@both
def test_the_statistics_of_a_frozen_backbone_do_not_move(side):
    module = transfer(Plain)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fit(module, [probing(side)], epochs=1)
    assert moved(before, module.state_dict(), "backbone") == []


@both
def test_a_bias_with_the_values_of_the_head_s_learns_too(side):
    """Lightning's tells parameters by their values: one that equals another is left out."""
    module = transfer(Plain)
    module.backbone.stages[1].append(nn.Linear(6, 6))
    nn.init.zeros_(module.backbone.stages[1][4].bias)
    module.extra = nn.Parameter(torch.zeros(6))  # of the head, as if at a loss: it has no gradient
    witness = Witness()
    fit(module, [probing(side), witness], epochs=2)
    assert "backbone.stages.1.4.bias" in moved(*witness.states)


@both
def test_the_rate_of_the_backbone_does_not_grow(side):
    """Lightning's doubles it at each epoch, up to that of the head."""
    module, seen = transfer(Plain), []
    module.on_train_epoch_end = lambda: seen.append(rates(module.trainer.optimizers[0], module))
    fit(module, [probing(side)], epochs=4)
    assert [epoch["backbone.stem.1.weight"] for epoch in seen[1:]] == [pytest.approx(0.01)] * 3


@both
def test_the_backbone_may_have_another_name(side):
    module = transfer(Plain, name="encoder")
    callback = probing(side) if side == "lightning" else tuning(probe_epochs=1, backbone="encoder")
    witness = Witness()
    fit(module, [callback, witness], epochs=2)
    assert witness.learning == [[], PARTS]


@both
def test_what_the_user_has_frozen_stays_frozen(side):
    module = transfer(Plain)
    module.backbone.stem.requires_grad_(False)
    before = module.backbone.stem[1].weight.detach().clone()
    fit(module, [probing(side)], epochs=3)
    assert torch.equal(module.backbone.stem[1].weight, before)


@both
def test_a_probe_leaves_the_module_as_it_was(side):
    module = transfer(Plain)
    fit(module, [probing(side, at=9)], epochs=1)
    assert all(parameter.requires_grad for parameter in module.parameters())


@both
def test_an_optimizer_over_all_parameters_serves(side):
    """Lightning's wants one over the head alone: it adds the backbone's group later."""
    module = transfer(Transfer)
    witness = Witness()
    fit(module, [probing(side), witness], epochs=2)
    found = rates(module.trainer.optimizers[0], module)
    assert found["backbone.stem.1.weight"] == pytest.approx(found["head.weight"] / 10)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What two processes ended with: side to a state of each rank."""
    folder = tmp_path_factory.mktemp("pair")
    done = run_module("tests.beat.finetuning_run", folder)
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
    return {side: [rank[side] for rank in ranks] for side in SIDES}


@both
@pytest.mark.slow
def test_two_processes_hold_the_same_weights(side, pair):
    """Lightning's backbone learns on each for itself: DDP knows what learned when it was made."""
    first, second = pair[side]
    assert same(first, second)
