import copy
import itertools
import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, seed_everything
from torch import nn
from torch.profiler import ProfilerActivity

from lightning_recipes.modules import ImageClassifier
from lightning_recipes.modules.stacking import (
    StackedMembers,
    activation_bytes,
    group_members,
    same_architecture,
    stack,
)

IMAGES = torch.randn(7, 1, 32, 32, generator=torch.Generator().manual_seed(0))
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}  # float32, other kernels: other orders of summation


def member(backbone="test_resnet", seed=0, **options):
    """A classifier of which every tensor depends on the seed; fresh heads and norms are constant."""
    seed_everything(seed, verbose=False)
    model = ImageClassifier(backbone, num_classes=3, in_chans=1, image_size=32, **options).eval()
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data.add_(torch.rand_like(tensor), alpha=0.1)  # a variance stays positive
    return model.requires_grad_(False)


def weight_bytes(each):
    """All tensors, and the largest once more."""
    sizes = [tensor.nbytes for tensor in (*each.parameters(), *each.buffers())]
    return sum(sizes) + max(sizes)


def looped(members, images=IMAGES):
    return [each(images) for each in members]


def stacked(members, **options):
    return StackedMembers(members, **{"memory_limit_gib": 1.0, **options})


def silent(call, *arguments):
    """What a call returns, which must not fall back to the loop."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*one after another.*")
        return call(*arguments)


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_stack_is_the_loop(backbone, mode):
    members = [member(backbone, seed) for seed in range(3)]
    with mode():
        expected = looped(members)
        assert not torch.allclose(expected[0], expected[1], atol=1e-2)
        together = stacked(members)
        assert_same(silent(together, IMAGES), expected)
    assert [group.indices for group in together.groups] == [[0, 1, 2]]


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_mixed_architectures_keep_their_order():
    members = [member(), member("test_vit", 1), member(seed=2)]
    expected = looped(members)
    together = stacked(members)
    assert_same(silent(together, IMAGES), expected)
    assert [group.indices for group in together.groups] == [[0, 2], [1]]


def test_the_batch_is_cut_to_the_bound():
    members = [member(seed=seed) for seed in range(2)]
    weights = 2 * weight_bytes(members[0])
    image = 2 * activation_bytes(members[0], IMAGES[:1])
    seen = []
    expected = looped(members)
    together = stacked(members, memory_limit_gib=(weights + 3.5 * image) / 2**30)
    handle = nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: seen.append(len(inputs[0])) if module is members[0] else None
    )
    try:
        assert_same(silent(together, IMAGES), expected)
    finally:
        handle.remove()
    assert seen == [1, 3, 3, 1]  # one image to measure, then seven in threes


@pytest.mark.parametrize("share", [0.5, 1.001])
def test_too_little_memory_means_the_loop_and_is_said_once(share):
    """Less than the weights take, and less than one image takes beside them."""
    members = [member(seed=seed) for seed in range(2)]
    weights = 2 * weight_bytes(members[0])
    together = stacked(members, memory_limit_gib=share * weights / 2**30)
    expected = looped(members)
    with pytest.warns(UserWarning, match=r"one after another: 2 cannot be stacked .* `memory_limit_gib"):
        assert_same(together(IMAGES), expected)
    assert_same(silent(together, IMAGES), expected)


class Branching(nn.Module):
    """Looks at its values, which vmap cannot."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(32 * 32, 3)

    def forward(self, images):
        logits = self.linear(images.flatten(1))
        return logits if logits.sum() > 0 else -logits


def test_what_cannot_be_vectorised_runs_in_the_loop():
    members = [Branching().requires_grad_(False) for _ in range(2)]
    expected = looped(members)
    together = stacked(members)
    with pytest.warns(UserWarning, match="one after another"):
        assert_same(together(IMAGES), expected)


@pytest.mark.parametrize("backbone", ["resnet10t", "test_vit", "test_convnext", "test_efficientnet"])
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_the_estimate_bounds_what_torch_allocates(backbone):
    members = [member(backbone, seed) for seed in range(3)]
    together = stacked(members)
    with torch.inference_mode():
        silent(together, IMAGES)
        with torch.profiler.profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profile:
            together(IMAGES)
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    peak = max(itertools.accumulate(event.nbytes() for event in events))
    assert peak > 0
    largest = 3 * max(tensor.nbytes for tensor in members[0].parameters())
    assert peak <= largest + 3 * activation_bytes(members[0], IMAGES)


def test_out_of_memory_means_the_loop(monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr("lightning_recipes.modules.stacking.functional_call", full)
    members = [member(seed=seed) for seed in range(2)]
    expected = looped(members)
    with pytest.warns(UserWarning, match=r"OutOfMemoryError: CUDA out of memory"):
        assert_same(stacked(members)(IMAGES), expected)


def test_images_that_do_not_fit_are_not_blamed_on_the_stack():
    members = [member(seed=seed) for seed in range(2)]
    together = stacked(members)
    with pytest.raises(RuntimeError, match="channels"):
        together(torch.randn(2, 3, 32, 32))
    assert_same(silent(together, IMAGES), looped(members))
    assert not together.looped


# Weights that change


def load(members):
    members[0].load_state_dict(member(seed=9).state_dict())


def assign(members):
    members[0].load_state_dict(member(seed=9).state_dict(), assign=True)


def write_data(members):
    members[0].head.weight.data.mul_(3)


def replace_layer(members):
    members[0].head = nn.Linear(members[0].head.in_features, 3)


def convert(members):
    for each in members:
        each.double()
        each.float()


def write_buffer(members):
    name = next(name for name, _ in members[0].named_buffers() if name.endswith("running_mean"))
    members[0].get_buffer(name).add_(1)


@pytest.mark.parametrize("change", [load, assign, write_data, replace_layer, convert, write_buffer])
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_a_stack_follows_its_members(change, mode):
    members = [member(seed=seed) for seed in range(2)]
    alone = copy.deepcopy(members)
    together = stacked(members)
    with mode():
        before = silent(together, IMAGES)
    torch.manual_seed(0)
    change(members)
    torch.manual_seed(0)
    change(alone)
    with mode():
        after = silent(together, IMAGES)
        expected = looped(alone)
    assert_same(after, expected)
    assert torch.allclose(before[0], after[0], atol=1e-3) == (change is convert)


def test_a_stack_is_the_members_own_memory():
    members = [member(seed=seed) for seed in range(2)]
    tensors = stack(members)
    for index, each in enumerate(members):
        for name, tensor in (*each.named_parameters(), *each.named_buffers()):
            assert tensor.data_ptr() == tensors[name][index].data_ptr()
    members[1].requires_grad_(True)(IMAGES).sum().backward()  # built for inference, still trainable
    assert members[1].head.weight.grad is not None


# What shares an architecture


def test_the_same_architecture():
    for backbone in ("test_resnet", "test_vit", "test_convnext", "test_efficientnet", "resnet10t"):
        assert same_architecture(member(backbone, 0), member(backbone, 1)), backbone
    assert same_architecture(member(), member(seed=1).requires_grad_(True))


class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.scale = scale


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (nn.Linear(2, 3), nn.Linear(2, 4)),
        (nn.Linear(2, 3), nn.Linear(2, 3, bias=False)),
        (nn.Linear(2, 3), nn.Linear(2, 3).double()),
        (nn.BatchNorm2d(3), nn.BatchNorm2d(3, eps=1e-3)),
        (nn.BatchNorm2d(3), nn.BatchNorm2d(3).eval()),
        (nn.Sequential(nn.ReLU()), nn.Sequential(nn.GELU())),
        (nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=0)),
        (Scaled(1.0), Scaled(2.0)),  # which neither repr nor the state shows
        (Scaled(lambda x: x), Scaled(lambda x: x)),  # in doubt
        (Scaled(object()), Scaled(object())),
        (Scaled(torch.ones(1)), Scaled(torch.zeros(1))),
    ],
)
def test_other_architectures(one, two):
    assert not same_architecture(one, two)
    assert group_members([one, two]) == [[0], [1]]


def test_hyperparameters_count_but_not_where_weights_came_from():
    one, two = member(), member()
    two.hparams["pretrained"] = True
    assert same_architecture(one, two)
    two.hparams["act"] = "gelu"
    assert not same_architecture(one, two)


def test_members_with_hooks_are_left_alone():
    members = [member(seed=seed) for seed in range(2)]
    calls = []
    members[1].head.register_forward_hook(lambda module, inputs, output: calls.append(module))
    expected = looped(members)
    calls.clear()
    assert_same(silent(stacked(members), IMAGES), expected)
    assert calls == [members[1].head]


def test_members_made_in_inference_mode_are_left_alone():
    with torch.inference_mode():
        members = [member(seed=seed) for seed in range(2)]
        assert_same(silent(stacked(members), IMAGES), looped(members))


def test_activation_bytes():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 100), nn.Linear(100, 2)).eval()
    assert activation_bytes(net, torch.zeros(3, 1, 4, 4)) == 4 * 3 * (100 + 16) * 4  # the first layer's ends
    assert not any(module._forward_hooks for module in net.modules())


def tied(*ties):
    """Three layers, of which some share their weight."""
    net = nn.Sequential(*(nn.Linear(16, 16) for _ in range(3))).eval().requires_grad_(False)
    for one, other in ties:
        net[one].weight = net[other].weight
    return net


VECTORS = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "ties", [([(1, 0)], []), ([], [(1, 0)]), ([(2, 0)], [(2, 1)]), ([(1, 0)], [(1, 0)])], ids=str
)
def test_ties_are_part_of_the_architecture(ties):
    members = [tied(*each) for each in ties]
    assert_same(silent(stacked(members), VECTORS), looped(members, VECTORS))
    assert len(group_members(members)) == (1 if ties[0] == ties[1] else 2)


class Scaled(LightningModule):
    """Names its own what an `ImageClassifier` has for training."""

    def __init__(self, schedule, weights):
        super().__init__()
        self.save_hyperparameters()
        self.schedule, self.layer = schedule, nn.Linear(16, 3)

    def forward(self, inputs):
        return self.layer(inputs) * self.schedule + self.hparams["weights"]


@pytest.mark.parametrize("second", [(5.0, 1.0), (1.0, 4.0)])
def test_a_users_own_names_mean_what_the_user_means(second):
    members = [Scaled(1.0, 1.0).eval(), Scaled(*second).eval()]
    assert_same(silent(stacked(members), VECTORS), looped(members, VECTORS))


@pytest.mark.parametrize("memory_limit_gib", [1.0, 1e-5])
def test_statistics_of_the_batch_are_those_of_the_whole_batch(memory_limit_gib):
    def net():
        norm = nn.BatchNorm2d(1, track_running_stats=False)
        return nn.Sequential(norm, nn.Flatten(), nn.Linear(1024, 3)).eval()

    members = [net(), net()]
    assert_same(silent(stacked(members, memory_limit_gib=memory_limit_gib), IMAGES), looped(members))


def test_a_layer_of_two_members_cannot_be_a_view_of_both():
    shared = nn.Linear(16, 16)
    members = [nn.Sequential(shared, nn.Linear(16, 3)).eval() for _ in range(2)]
    together = stacked(members)
    silent(together, VECTORS)
    with torch.no_grad():
        shared.weight.mul_(3)
    assert_same(silent(together, VECTORS), looped(members, VECTORS))


def test_a_hook_that_comes_later_is_seen():
    members = [nn.Linear(16, 3).eval() for _ in range(2)]
    together = stacked(members)
    silent(together, VECTORS)
    members[1].register_forward_hook(lambda module, inputs, output: output * 2)
    assert_same(silent(together, VECTORS), looped(members, VECTORS))


def test_a_member_that_refuses_one_image_is_not_asked_to_take_one():
    class Pairs(nn.Linear):
        def forward(self, inputs):
            if len(inputs) < 2:
                raise ValueError("expected two or more")
            return super().forward(inputs)

    members = [Pairs(16, 3).eval() for _ in range(2)]
    with pytest.warns(UserWarning, match=r"2 cannot run as one \(ValueError: expected two or more\)"):
        assert_same(stacked(members)(VECTORS), looped(members, VECTORS))
