import copy
import re

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_recipes import LSUV, ImageClassifier
from lightning_recipes.utils.errors import UserError

from ..contract.toys import Toy, fit, loader, noisy_loader, same, toy


class Deep(Toy):
    """Four layers, of which the first fit shows what is orthonormal and scaled."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.Dropout(0.5), nn.Linear(32, 4)
        )
        self.seen = []

    def training_step(self, batch, batch_idx):
        if not self.seen:
            self.at_first = copy.deepcopy(self.net.state_dict())
        self.seen.append(batch[0].clone())
        return super().training_step(batch, batch_idx)


def stds(net, images):
    """Return the standard deviation of each linear layer's output, dropout off."""
    found = []
    with torch.no_grad():
        for part in net.eval():
            images = part(images)
            if isinstance(part, nn.Linear):
                found.append(images.std(correction=0).item())
    return found


def test_the_first_step_finds_outputs_of_variance_one_on_its_own_batch():
    module, callback = toy(Deep), LSUV()
    fit(module, [callback], epochs=1)
    assert list(callback.stds) == ["net.1", "net.3", "net.5"]
    module.net.load_state_dict(module.at_first)
    assert stds(module.net, module.seen[0]) == pytest.approx([1, 1, 1], abs=0.02)


@pytest.mark.parametrize("noisy", [False, True])
def test_loader_and_random_numbers_do_not_notice(noisy):
    modules = toy(Deep), toy(Deep)
    for module, callbacks in zip(modules, ([], [LSUV()]), strict=True):
        fit(module, callbacks, epochs=2, loaders=noisy_loader() if noisy else None)
    assert same(modules[0].seen, modules[1].seen)
    assert not same(modules[0].at_first, modules[1].at_first)


def test_a_resumed_run_is_not_initialised_again(tmp_path):
    keep = ModelCheckpoint(tmp_path, save_last=True)
    fit(toy(Deep), [LSUV(), keep], epochs=1, enable_checkpointing=True)
    trained = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    module, callback = toy(Deep), LSUV()
    fit(module, [callback], epochs=2, path=tmp_path / "last.ckpt")
    assert same(dict(module.at_first), {k.removeprefix("net."): v for k, v in trained.items() if "net" in k})
    assert list(callback.stds) == ["net.1", "net.3", "net.5"]  # from the checkpoint
    module = toy(Deep)
    fit(module, [LSUV("net.1")], epochs=2, path=tmp_path / "last.ckpt")  # of a run that had another one
    assert same(dict(module.at_first), {k.removeprefix("net."): v for k, v in trained.items() if "net" in k})


def test_a_second_fit_of_a_module_goes_on_from_its_weights_and_another_module_begins_anew():
    module, callback = toy(Deep), LSUV()
    fit(module, [callback], epochs=1)
    trained = copy.deepcopy(module.net.state_dict())
    module.seen.clear()
    fit(module, [callback], epochs=1)
    assert same(dict(module.at_first), dict(trained))
    assert callback.stds == {}
    module.seen.clear()
    fit(module, [LSUV("net.1")], epochs=1)
    other = toy(Deep)
    fit(other, [callback], epochs=1)
    assert len(callback.stds) == 3


def test_weights_that_look_trained_are_not_replaced():
    class Normed(Deep):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.BatchNorm1d(32), nn.Linear(32, 4))

    module = toy(Normed)
    with torch.no_grad():
        module.net[2].weight.normal_()
    before = copy.deepcopy(module.net.state_dict())
    with pytest.raises(UserError, match=re.escape("`pattern` '*' matches look trained, in 2 layers; LSUV")):
        fit(module, [LSUV()], epochs=1)
    assert same(dict(module.net.state_dict()), dict(before))
    fit(module, [LSUV("net.3")], epochs=1)  # a new head on them


class Named(LightningModule):
    """Batches are dicts, and there is no `forward`."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        return self.layer(batch["x"]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


class OfNamed(LSUV):
    def forward_batch(self, pl_module, batch):
        pl_module.layer(batch["x"])


def named():
    return [{"x": 7 * torch.randn(64, 4)}]


def test_other_batches_are_a_method_to_override():
    module = toy(Named)
    loaders = DataLoader(named(), batch_size=None), None
    with pytest.raises(UserError, match="Named has no `forward` for LSUV to run"):
        fit(module, [LSUV()], epochs=1, loaders=loaders)
    fit(module, [OfNamed()], epochs=1, loaders=loaders)
    assert module.layer(loaders[0].dataset[0]["x"]).std().item() == pytest.approx(1, abs=0.02)


def test_a_layer_that_cannot_be_scaled_ends_the_fit_and_leaves_the_weights():
    module = toy(Deep)
    before = copy.deepcopy(module.net.state_dict())
    zeros = DataLoader(TensorDataset(torch.zeros(8, 1, 4, 4), torch.zeros(8, dtype=torch.long)), batch_size=8)
    with pytest.raises(UserError, match=r"output of `net\.1` has the standard deviation 0"):
        fit(module, [LSUV()], epochs=1, loaders=(zeros, None))
    assert same(dict(module.net.state_dict()), dict(before))


def test_works_with_the_classifier_and_mixed_precision():
    class Noted(LSUV):
        def forward_batch(self, pl_module, batch):
            self.kind = pl_module(batch[0]).dtype

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 0:
                self.first = copy.deepcopy(pl_module.state_dict()), batch[0].clone()

    callback = Noted("backbone.*", tol=0.05)
    model = ImageClassifier("test_resnet", num_classes=4, in_chans=1)
    head = model.head.weight.clone()
    images = torch.randn(32, 1, 32, 32)
    data = DataLoader(TensorDataset(images, torch.randint(4, (32,))), batch_size=32)
    fit(model, [callback], epochs=1, loaders=(data, data), precision="bf16-mixed")
    assert callback.kind == torch.bfloat16
    state, first = callback.first
    assert torch.equal(state["head.weight"], head)
    assert all(name.startswith("backbone.") for name in callback.stds)
    model.load_state_dict(state)
    stem = next(part for part in model.modules() if isinstance(part, nn.Conv2d))
    assert stem(first).std().item() == pytest.approx(1, abs=0.05)


def test_an_empty_run_is_none():
    callback = LSUV()
    fit(toy(Deep), [callback], epochs=1, loaders=(loader(train=True), None), limit_train_batches=0)
    assert callback.stds == {}
