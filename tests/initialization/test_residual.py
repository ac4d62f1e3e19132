import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from lightning_recipes.initialization import zero_residual
from lightning_recipes.utils.errors import UserError


def shaken(model):
    """Return the model with no parameter or statistic at 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.2 + 0.1)
    return model.eval()


def passed(model, kinds, images):
    """Return what went into each block and what came out."""
    seen = []
    hooks = [
        part.register_forward_hook(
            lambda block, given, output: seen.append((block, given[0].clone(), output.clone())),
        )
        for part in model.modules()
        if type(part).__name__ in kinds
    ]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    assert seen
    return seen


def projected(block, x):
    """Return a ResNet block's shortcut, through its last activation."""
    return F.relu(block.downsample(x) if block.downsample is not None else x)


@pytest.mark.parametrize("source", ["timm", "torchvision"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_each_block_of_a_resnet_is_its_shortcut(name, source):
    build = timm.create_model if source == "timm" else torchvision.models.get_model
    model = shaken(build(name))
    zero_residual(model)
    for block, given, output in passed(model, ("BasicBlock", "Bottleneck"), torch.rand(1, 3, 32, 32)):
        torch.testing.assert_close(output, projected(block, given), rtol=0, atol=0)


def test_each_block_of_a_pre_activation_resnet_is_its_shortcut():
    model = shaken(timm.create_model("resnetv2_18"))
    zero_residual(model)
    for block, given, output in passed(model, ("PreActBasic",), torch.rand(1, 3, 32, 32)):
        plain = given if block.downsample is None else block.downsample(block.norm1(given))
        torch.testing.assert_close(output, plain, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("test_vit", ("Block",)),
        ("test_vit2", ("Block",)),  # with layer scales
        ("convnextv2_atto", ("ConvNeXtBlock",)),
        ("test_convnext", ("ConvNeXtBlock",)),
        ("mixer_s32_224", ("MixerBlock",)),
        ("swinv2_tiny_window8_256", ("SwinTransformerV2Block",)),  # norms at the end of the branches
        ("poolformer_s12", ("MetaFormerBlock",)),
    ],
)
def test_each_block_without_projection_is_the_identity(name, kinds):
    model = shaken(timm.create_model(name))
    zero_residual(model)
    same = 0
    for _, given, output in passed(model, kinds, torch.rand(1, *model.pretrained_cfg["input_size"])):
        if given.shape == output.shape:
            torch.testing.assert_close(output, given, rtol=0, atol=0)
            same += 1
    assert same > 1


def test_each_block_of_torchvision_s_transformer_is_the_identity():
    model = shaken(
        torchvision.models.VisionTransformer(
            image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16
        )
    )
    zero_residual(model, torch.rand(1, 3, 32, 32))
    for _, given, output in passed(model, ("EncoderBlock",), torch.rand(1, 3, 32, 32)):
        torch.testing.assert_close(output, given, rtol=0, atol=0)


def zeros(model):
    return {name for name, parameter in model.named_parameters() if not parameter.any()}


def test_does_to_torchvision_s_resnet_what_its_own_switch_does():
    ours, theirs = (torchvision.models.resnet50(zero_init_residual=own) for own in (False, True))
    names = zero_residual(ours)
    assert zeros(ours) == zeros(theirs)
    assert set(names) <= zeros(theirs)
    assert len(names) == 32  # a scale and a shift in each of 16 blocks


@pytest.mark.parametrize("name", ["resnet18", "seresnet50", "res2net50d", "regnety_002", "test_byobnet"])
def test_finds_at_least_what_timm_zeroes_itself(name):
    theirs = zeros(timm.create_model(name))
    model = timm.create_model(name)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
    zero_residual(model)
    assert zeros(model) == theirs


def test_what_is_zero_already_is_named_and_left_alone():
    model = timm.create_model("resnet18")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    names = zero_residual(model)
    assert names[0] == "layer1.0.bn2.weight"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_branch_that_an_earlier_layer_makes_zero_keeps_its_last_weights():
    model = Block(lambda m, x: x + m.b(m.a(x)), a=conv(), b=conv())
    for value in (model.a.weight, model.a.bias, model.b.bias):
        nn.init.zeros_(value)
    assert zero_residual(model) == ["b.bias"]
    assert model.b.weight.all()


class Block(nn.Module):
    """Whatever a function of x and the layers makes."""

    def __init__(self, make, **layers):
        super().__init__()
        self.make = make
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, images):
        return self.make(self, F.relu(self.stem(images)))


def conv(kernel=3):
    return nn.Conv2d(4, 4, kernel, padding=kernel // 2)


FOUND = {
    "in place": (lambda m, x: m.b(F.relu(m.a(x))).add_(x), ["b.weight", "b.bias"]),
    "the other way round": (lambda m, x: x + m.b(m.a(x)), ["b.weight", "b.bias"]),
    "a scaled branch": (lambda m, x: x + 0.1 * m.b(m.a(x)), ["b.weight", "b.bias"]),
    "a projection": (lambda m, x: m.one(x) + m.b(m.a(x)), ["b.weight", "b.bias"]),
    "a shortcut padded by zeros": (
        lambda m, x: F.pad(x[:, :2], (0, 0, 0, 0, 0, 2)) + m.b(m.a(x)),
        ["b.weight", "b.bias"],
    ),
    "a gate behind": (
        lambda m, x: x + (y := m.b(x)) * torch.sigmoid(m.one(y.mean((2, 3), keepdim=True))),
        ["b.weight", "b.bias"],
    ),
    "two ways joined": (
        lambda m, x: x + torch.cat((m.a(x)[:, :2], m.b(x)[:, 2:]), 1),
        ["a.weight", "a.bias", "b.weight", "b.bias"],
    ),
    "two branches of one input": (
        lambda m, x: x + m.a(x) + m.b(x),
        ["a.weight", "a.bias", "b.weight", "b.bias"],
    ),
    "one block after the other": (
        lambda m, x: (y := x + m.a(x)) + m.b(y),
        ["a.weight", "a.bias", "b.weight", "b.bias"],
    ),
    "a long skip around a block": (
        lambda m, x: x + ((y := m.a(x)) + m.b(y)),
        ["b.weight", "b.bias"],
    ),
    "the shape of another": (
        lambda m, x: x + m.b(m.a(x)).flatten(1).reshape_as(x),
        ["b.weight", "b.bias"],
    ),
    "a sum of equals": (lambda m, x: m.a(x) + m.b(x), None),
    "parts of one tensor": (lambda m, x: torch.cat(((p := x.chunk(2, 1))[0], p[1] + F.relu(p[0])), 1), None),
    "no layer in the branch": (lambda m, x: x + F.gelu(x), None),
    "a position added": (lambda m, x: m.b(m.a(x)) + m.one.weight.mean(), None),
}


@pytest.mark.parametrize("kind", FOUND)
def test_finds_residual_branches_by_what_is_computed(kind):
    torch.manual_seed(0)
    make, expected = FOUND[kind]
    model = Block(make, a=conv(), b=conv(), one=conv(1))
    if expected is None:
        with pytest.raises(UserError, match="Block has no residual branch that a layer ends"):
            zero_residual(model)
        assert not zeros(model)
    else:
        assert zero_residual(model) == expected
        assert zeros(model) == set(expected)


def test_a_hierarchy_within_a_branch_keeps_its_layers():
    """Res2Net adds one slice of a branch to what was made of another: that is no shortcut."""

    def make(m, x):
        first, second = m.a(x).split(2, 1)
        inner = second + m.small(first)
        return x + m.b(torch.cat((first, inner), 1))

    model = Block(make, a=conv(), b=conv(), small=nn.Conv2d(2, 2, 1))
    assert zero_residual(model) == ["b.weight", "b.bias"]


def test_a_branch_that_does_not_become_zero_is_put_back_with_a_warning():
    model = Block(lambda m, x: (y := x + torch.sigmoid(m.a(x))) + m.b(y), a=conv(), b=conv())
    weight = model.a.weight.clone()
    with pytest.warns(UserWarning, match=r"1 of 2 residual branches are .* as they were: a\.weight"):
        assert zero_residual(model) == ["b.weight", "b.bias"]
    assert torch.equal(model.a.weight, weight)


def test_leaves_modes_buffers_hooks_and_random_numbers_as_they_were():
    model = timm.create_model("resnet18", drop_rate=0.5)
    model.layer1.eval()
    modes = [part.training for part in model.modules()]
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    state = torch.get_rng_state()
    zero_residual(model)
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_weights_that_are_standardised_are_found_and_a_gain_tells_their_size():
    names = zero_residual(shaken(timm.create_model("test_nfnet")))
    assert names[:2] == ["stages.0.0.conv3.bias", "stages.0.0.conv3.gain"]
    assert zero_residual(timm.create_model("resnetv2_50x1_bit"))[0] == "stages.0.blocks.0.conv3.weight"


def test_an_input_that_is_not_known_is_asked_for():
    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv1d(2, 2, 1)

        def forward(self, x):
            return x + self.layer(x)

    with pytest.raises(UserError, match=r"not known which input Sums takes\. Give a batch of one"):
        zero_residual(Sums())
    assert zero_residual(Sums(), torch.rand(1, 2, 5)) == ["layer.weight", "layer.bias"]


def test_a_network_of_one_fixed_size_and_one_that_cuts_its_images_up():
    assert len(zero_residual(timm.create_model("test_vit", img_size=48, in_chans=1))) == 24
    assert zero_residual(timm.create_model("tresnet_m"))[0] == "body.layer1.0.conv2.bn.weight"


def test_training_sets_out_from_zero_branches():
    torch.manual_seed(0)
    model = Block(lambda m, x: x + m.b(F.relu(m.a(x))), a=conv(), b=conv())
    zero_residual(model)
    model(torch.rand(2, 3, 8, 8)).square().sum().backward()
    assert model.b.weight.grad.any()


def test_a_layer_scale_goes_before_the_layer_that_it_scales():
    model = timm.create_model("test_convnext")
    assert zero_residual(model)[0] == "stages.0.blocks.0.gamma"
    assert model.stages[0].blocks[0].mlp.fc2.weight.any()
