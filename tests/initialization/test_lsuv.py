import re

import pytest
import timm
import torch
from torch import nn

from lightning_recipes.initialization import lsuv
from lightning_recipes.initialization.lsuv import pooled_std
from lightning_recipes.utils.errors import UserError


def deep(*, norm=False, bias=True):
    torch.manual_seed(0)
    layers = []
    for _ in range(6):
        layers += [nn.Linear(32, 32, bias=bias), *([nn.BatchNorm1d(32)] if norm else []), nn.Tanh()]
    return nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(32, 4))


def batch(size=64, width=32):
    return 3 * torch.randn(size, width, generator=torch.Generator().manual_seed(1)) + 1


def measured(model, images):
    """Return the standard deviation of each layer's output in a pass as `lsuv` sees one."""
    stds = {}

    def note(name):
        def hook(layer, given, output):
            stds.setdefault(name, output.std().item())

        return hook

    layers = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    hooks = [layer.register_forward_hook(note(name)) for name, layer in layers.items()]
    model.eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
            part.training = True
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return stds


@pytest.mark.parametrize("norm", [False, True])
def test_every_layer_s_output_has_variance_one_on_the_batch(norm):
    model = deep(norm=norm)
    before = measured(model.train(), batch())
    assert not 0.8 < min(before.values()) < 1.2
    model.train()
    stds = lsuv(model, batch(), tol=1e-4)
    after = measured(model, batch())
    assert list(stds) == list(after)
    # `std` divides by n - 1 of 256 numbers or more: 0.2 %
    assert all(value == pytest.approx(1, rel=3e-3) for value in after.values())
    assert stds == pytest.approx(after, rel=3e-3)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_works_on_networks_of_timm(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10)
    size = (4, *model.pretrained_cfg["input_size"][:1], *((160, 160) if name == "test_vit" else (64, 64)))
    images = torch.randn(size)
    lsuv(model, images)
    after = measured(model, images)
    assert len(after) > 5
    assert all(value == pytest.approx(1, abs=0.03) for value in after.values())  # 40 logits: n - 1 is 1 %


def test_the_weights_are_orthonormal_but_for_their_scale_and_the_biases_zero():
    model = deep()
    lsuv(model, batch())
    for layer in (part for part in model if isinstance(part, nn.Linear)):
        gram = layer.weight @ layer.weight.T
        torch.testing.assert_close(gram, gram[0, 0] * torch.eye(len(gram)), atol=1e-5, rtol=0)
        assert not layer.bias.any()
    assert len({round(float(part.weight.norm()), 3) for part in model if isinstance(part, nn.Linear)}) > 3


def test_equal_weights_become_equal_ones_and_others_others():
    models = [deep(), deep(), deep()]
    torch.nn.init.normal_(models[2][0].weight)
    for number, model in enumerate(models):
        torch.manual_seed(number)  # without effect
        lsuv(model, batch())
    assert torch.equal(models[0][0].weight, models[1][0].weight)
    assert not torch.equal(models[0][0].weight, models[2][0].weight)
    assert not torch.allclose(models[0][0].weight.abs(), models[0][2].weight.abs(), atol=1e-2)


def test_layers_of_equal_weights_become_different_ones():
    model = deep()
    for part in model:
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.weight)
    lsuv(model, batch())
    first, second = (model[i].weight / model[i].weight.norm() for i in (0, 2))
    assert not torch.allclose(first, second, atol=1e-2)


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


def test_leaves_modes_buffers_hooks_and_random_numbers_as_they_were():
    model = deep(norm=True).append(Noise())
    model[1].eval()
    model(batch())
    modes = [part.training for part in model.modules()]
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    state = torch.get_rng_state()
    lsuv(model, batch())
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_a_pattern_and_frozen_weights_leave_the_other_layers_alone():
    model = deep()
    model[2].requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert list(lsuv(model, batch(), pattern="[024]")) == ["0", "4"]
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"0.weight", "0.bias", "4.weight", "4.bias"}


class Odd(nn.Module):
    """Uses one layer twice, one before another that is registered earlier, and one not at all."""

    def __init__(self):
        super().__init__()
        self.last, self.twice = nn.Linear(8, 8), nn.Linear(8, 8)
        self.unused = nn.Linear(8, 8)

    def forward(self, x):
        return self.last(torch.relu(self.twice(5 * self.twice(x))))


def test_the_order_is_that_of_the_forward_pass_and_a_layer_used_twice_is_scaled_by_its_first_use():
    torch.manual_seed(0)
    model, unused = Odd(), None
    unused = model.unused.weight.clone()
    with pytest.warns(UserWarning, match="does not call unused: 1 of 3 layers stay as they were"):
        stds = lsuv(model, batch(width=8))
    assert list(stds) == ["twice", "last"]
    assert torch.equal(model.unused.weight, unused)
    first = model.twice(batch(width=8))
    assert first.std().item() == pytest.approx(1, abs=0.02)
    output = model(batch(width=8))
    assert output.std().item() == pytest.approx(1, abs=0.02)


class Broken(nn.Module):
    def forward(self, x):
        raise RuntimeError("broken")


class Standardised(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, self.weight / self.weight.norm() * 40, self.bias)


class Squared(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, 40 * self.weight * self.weight.abs(), self.bias)


def test_a_weight_that_its_layer_normalises_stays_orthonormal_with_a_warning():
    model = nn.Sequential(nn.Linear(8, 8), Standardised(8, 8), nn.Linear(8, 8))
    with pytest.warns(UserWarning, match="weights of 1 are normalised where they are used: 1 of 3 layers"):
        stds = lsuv(model, batch(width=8))
    assert [stds["0"], stds["2"]] == pytest.approx([1, 1], abs=0.02)
    assert stds["1"] == pytest.approx(model[:2](batch(width=8)).std(correction=0).item(), rel=1e-4)
    torch.testing.assert_close(model[1].weight @ model[1].weight.T, torch.eye(8), rtol=0, atol=1e-5)


def test_a_standardised_weight_with_a_gain_is_scaled_by_it():
    model = timm.create_model("test_nfnet", num_classes=3)  # some of its gains are 0
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    stds = lsuv(model, images)
    assert len(stds) == sum(isinstance(part, (nn.Linear, nn.Conv2d)) for part in model.modules())
    assert list(stds.values()) == pytest.approx([1] * len(stds), abs=0.02)


def test_a_backbone_whose_weights_are_standardised_is_left_orthonormal():
    model = timm.create_model("resnetv2_50x1_bit", num_classes=3)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with pytest.warns(UserWarning, match="are normalised where they are used: 5. of 54 layers"):
        lsuv(model, images)


@pytest.mark.parametrize(
    ("extra", "options", "error", "says"),
    [
        (nn.Threshold(1e9, 0.0), {}, UserError, "output of `2` has the standard deviation 0 on this batch"),
        (Broken(), {}, RuntimeError, "broken"),
        (Squared(8, 8), {}, UserError, "after its weight was scaled 10 times; it must come within 0.02"),
        (
            nn.ReLU(),
            {"pattern": "3"},
            UserError,
            "matches none of the 2 linear layers and convolutions: 0, 2",
        ),
        (nn.ReLU(), {"tol": 0.0}, UserError, "`tol` must lie between 0 and 1, got 0.0"),
        (nn.ReLU(), {"max_iterations": 0}, UserError, "`max_iterations` must be at least 1, got 0"),
    ],
)
def test_an_error_says_what_is_wrong_and_puts_the_weights_back(extra, options, error, says):
    model = nn.Sequential(nn.Linear(8, 8), extra, nn.Linear(8, 8))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(error, match=re.escape(says)):
        lsuv(model, batch(width=8), **options)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_layers_that_are_not_called_are_an_error_where_there_are_no_others():
    with pytest.raises(UserError, match="calls none of the 1 trainable layers that `pattern` 'unused'"):
        lsuv(Odd(), batch(width=8), pattern="unused")


def test_variances_of_several_processes_are_pooled():
    parts = [torch.randn(5, 3), 4 * torch.randn(9, 3) + 2]
    moments = []
    for part in parts:
        pooled_std(part, lambda tensor: moments.append(tensor) or tensor)
    for part in parts:
        std = pooled_std(part, lambda _: moments[0] + moments[1])
        assert std == pytest.approx(torch.cat(parts).std(correction=0).item(), rel=1e-6)
