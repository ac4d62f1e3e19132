import gc
import weakref

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from lightning_recipes.evidence.activations import ActivationRecord, recording


def read(module, *batches):
    with recording(module) as record:
        for batch in batches:
            module(batch)
    return {layer.name: layer for layer in record.read()}


class Identity(nn.Module):
    """Hands what it is given to a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


# The figures, by closed forms and by whole tensors kept


def test_the_figures_are_those_of_all_values_at_once():
    torch.manual_seed(0)
    batches = [torch.randn(5, 3, 4, 6), torch.randn(7, 3, 4, 6) * 2 + 1]
    layer = read(nn.Sequential(nn.ReLU()), *batches)["0"]
    values = torch.cat(batches).relu().double()
    assert layer.samples == layer.unit_samples == 12
    assert layer.units == 3
    assert layer.mean == pytest.approx(values.mean().item(), rel=1e-6)
    assert layer.std == pytest.approx(values.std(correction=0).item(), rel=1e-6)
    within = values.var((0, 2, 3), correction=0).mean().sqrt().item()
    assert layer.spread == pytest.approx(within, rel=1e-6)
    assert layer.zero == (values == 0).double().mean().item()
    assert layer.zero <= layer.near_zero <= layer.zero + 0.01
    assert sum(layer.counts) == values.numel()
    assert layer.low == 0


def test_a_collapsed_sigmoid_keeps_its_spread():
    x = 0.3 + 1e-3 * torch.randn(64, 8, dtype=torch.float64) + torch.arange(8)
    layer = read(nn.Sequential(nn.Sigmoid()), x.float())["0"]
    expected = x.sigmoid().var(0, correction=0).mean().sqrt().item()
    assert layer.spread == pytest.approx(expected, rel=1e-3)
    assert layer.std > 100 * layer.spread


@pytest.mark.parametrize(
    ("module", "inside", "outside"),
    [(nn.Sigmoid(), 3.6, 3.7), (nn.Tanh(), 1.8, 1.85), (nn.Hardsigmoid(), 2.8, 2.9), (nn.Softsign(), 18, 20)],
)
def test_saturated_is_within_a_fortieth_of_the_range(module, inside, outside):
    x = torch.tensor([[inside, -inside, outside, -outside]]).float()
    assert read(nn.Sequential(module), x)["0"].saturated == 0.5


def test_no_bounds_no_saturation():
    assert read(nn.Sequential(nn.ReLU()), torch.randn(2, 3))["0"].saturated is None


@pytest.mark.parametrize("shape", [(6, 4), (6, 5, 4), (6, 4, 3, 3)])
def test_a_dead_unit_is_zero_on_all_samples_and_positions(shape):
    x = torch.rand(shape) - 0.5
    dim = 1 if len(shape) != 3 else 2
    x.select(dim, 0).fill_(-1)  # dead
    x.select(dim, 1).fill_(0)  # nothing came
    x.select(dim, 2).fill_(-1)
    x.select(dim, 2)[-1] = 1  # one sample moves it
    layer = read(nn.Sequential(nn.ReLU(inplace=True)), x)["0"]
    assert (layer.dead, layer.silent) == (0.5, 0.25)


def test_dead_units_are_followed_from_batch_to_batch_and_from_record_to_record():
    net = nn.Sequential(nn.ReLU())
    first, second = torch.tensor([[1.0, -1.0, -1.0]]), torch.tensor([[-1.0, 1.0, -1.0]])
    assert read(net, first, second)["0"].dead == pytest.approx(1 / 3)
    with recording(net) as earlier:
        net(first)
    with recording(net) as later:
        net(second)
    later.extend(earlier.units(), 1)
    (layer,) = later.read()
    assert (layer.dead, layer.samples, layer.unit_samples) == (pytest.approx(1 / 3), 1, 2)
    assert layer.mean == pytest.approx(1 / 3)


def test_records_of_two_processes_come_together_as_one():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh())
    halves = torch.randn(6, 3), torch.randn(6, 3) + 1
    records = []
    for half in halves:
        with recording(net) as record:
            net(half)
        records.append(record)
    sent = []
    for record in records:  # each process sees what both give
        mine = []
        record.reduce(lambda tensor, op, mine=mine: mine.append((tensor, op)) or tensor)
        sent.append(mine)
    combined = [a + b if op == "sum" else torch.maximum(a, b) for (a, op), (b, _) in zip(*sent, strict=True)]
    fresh = ActivationRecord()
    with recording(net, fresh):
        net(halves[0])
    answers = iter(combined[:-1])

    def reduce(tensor, op):
        return next(answers, tensor)  # the histograms are of bounds known by now: not those sent above

    fresh.reduce(reduce)
    whole = read(net, torch.cat(halves))
    for layer in fresh.read():
        other = whole[layer.name]
        for key in ("mean", "std", "spread", "zero", "dead", "samples"):
            assert getattr(layer, key) == pytest.approx(getattr(other, key), rel=1e-5), key


# Which layers, and what they are called


FUNCTIONS = {
    "relu": [
        F.relu,
        torch.relu,
        torch.Tensor.relu,
        F.relu6,
        lambda x: x.clamp(min=0),
        lambda x: x.clamp_min(0),
    ],
    "gelu": [F.gelu],
    "silu": [F.silu],
    "sigmoid": [torch.sigmoid, F.sigmoid, torch.Tensor.sigmoid, torch.special.expit],
    "tanh": [torch.tanh, F.tanh, torch.Tensor.tanh],
    "relu, in place": [torch.relu_, lambda x: F.relu(x, inplace=True), torch.Tensor.relu_],
    "softplus": [F.softplus],
    "elu": [F.elu, F.selu],
    "leaky_relu": [F.leaky_relu],
    "hardswish": [F.hardswish],
}


@pytest.mark.parametrize(
    ("kind", "function"), [(kind, function) for kind, group in FUNCTIONS.items() for function in group]
)
def test_functions_are_named_for_the_module_that_calls_them(kind, function):
    x = torch.randn(4, 5)
    expected = function(x.clone()).double()
    (layer,) = read(nn.ModuleDict({"a": Identity(function)})["a"], x.clone()).values()
    assert layer.kind == kind.partition(",")[0]
    assert layer.mean == pytest.approx(expected.mean().item(), rel=1e-5)
    (nested,) = read(nn.Sequential(nn.Linear(5, 5), Identity(function)), torch.randn(4, 5)).values()
    assert nested.name.startswith("1.")


def test_a_clamp_that_is_no_relu_is_none():
    net = nn.Sequential(nn.Linear(3, 3), Identity(lambda x: x.clamp(0, 1).clamp(min=1e-6).clamp(max=2)))
    assert [layer.kind for layer in read(net, torch.randn(2, 3)).values()] == ["linear"]


def test_a_network_without_activations_gives_the_outputs_of_its_layers():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    layers = read(net, torch.randn(2, 3, 4, 4))
    assert {name: (layer.kind, layer.units) for name, layer in layers.items()} == {
        "0": ("conv", 4),
        "2": ("linear", 2),
    }


def test_a_module_that_is_called_twice_is_two_layers():
    layers = read(torchvision.models.resnet18(), torch.randn(2, 3, 32, 32))
    assert len(layers) == 17
    assert list(layers)[1:3] == ["layer1.0.relu", "layer1.0.relu#2"]


def test_passes_are_added_to_the_same_layers():
    assert list(read(nn.Sequential(nn.ReLU()), torch.ones(2, 2), torch.ones(2, 2))) == ["0"]


def test_channels_last_behind_a_linear_layer():
    net = nn.Sequential(nn.Linear(5, 7), nn.GELU())
    assert read(net, torch.randn(2, 3, 4, 5))["1"].units == 7


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        ("resnet18", "relu", 17),
        ("convnext_atto", "gelu", 12),
        ("test_vit", "gelu", 6),
        ("efficientnet_b0", "silu", 33),
    ],
)
def test_timm(name, kind, count):
    options = {"img_size": 32} if "vit" in name else {}
    layers = read(timm.create_model(name, **options), torch.randn(2, 3, 32, 32)).values()
    assert sum(layer.kind == kind and not layer.gate for layer in layers) == count
    assert all(layer.samples == 2 for layer in layers)


@pytest.mark.parametrize("make", [timm.create_model, lambda name: torchvision.models.mobilenet_v3_small()])
def test_gates_are_marked_with_their_branch(make):
    layers = read(make("seresnext26d_32x4d"), torch.randn(2, 3, 64, 64))
    gates = [layer for layer in layers.values() if layer.kind in ("sigmoid", "hardsigmoid")]
    assert gates
    assert all(layer.gate for layer in gates)
    branch = [name for name, layer in layers.items() if layer.gate and layer.kind == "relu"]
    assert len(branch) == len(gates)
    assert all(name.rpartition(".")[0].endswith(("se", "block.1", "block.2")) for name in branch)


def test_what_is_only_part_of_the_loss_is_left_out():
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

        def training_step(self, x):
            logits = self.last(F.relu(self.first(x)))
            return (1 - logits).clamp(min=0).sum() + nn.BCEWithLogitsLoss()(logits, torch.ones_like(logits))

    module = Module()
    with recording(module) as record:
        module.training_step(torch.randn(2, 3))
    assert [(layer.name, layer.hidden) for layer in record.read()] == [("relu", True)]


# No trace


def hooks(module):
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_after_an_error_at_any_depth(error):
    def fail(x):
        raise error

    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Sequential(Identity(fail)))
    before = torch.overrides._get_current_function_mode_stack()
    with pytest.raises(error), recording(net) as record:
        net(torch.randn(2, 3))
    assert hooks(net) == 0
    assert torch.overrides._get_current_function_mode_stack() == before
    assert [layer.name for layer in record.read()] == ["1"]


def test_an_error_that_is_caught_does_not_shift_the_names():
    def fail(x):
        raise ValueError

    class Caught(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = Identity(fail), Identity(F.relu)

        def forward(self, x):
            try:
                self.inner(x)
            except ValueError:
                return self.outer(x)

    assert list(read(Caught(), torch.randn(2, 3))) == ["outer.relu"]


def test_nothing_is_kept_alive():
    net = nn.Sequential(nn.Linear(3, 3), Identity(torch.sigmoid))
    with recording(net) as record:
        output = net(torch.randn(2, 3))
    gone = weakref.ref(output)
    del output
    gc.collect()
    assert gone() is None
    assert record.read()


def test_outputs_and_gradients_are_the_same_to_the_bit():
    torch.manual_seed(0)
    net, x = timm.create_model("resnet10t"), torch.randn(4, 3, 32, 32)
    plain = net(x)
    plain.sum().backward()
    gradients = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    with recording(net):
        watched = net(x)
    watched.sum().backward()
    assert torch.equal(plain, watched)
    assert all(torch.equal(p.grad, g) for p, g in zip(net.parameters(), gradients, strict=True))


def test_a_compiled_part_is_passed_over():
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), torch.compile(nn.Tanh(), backend="eager"))
    assert list(read(net, torch.randn(2, 3))) == ["1"]


def test_what_cannot_be_measured_is_passed_over():
    class Odd(nn.Module):
        def forward(self, x):
            torch.relu(torch.tensor(1.0))
            torch.relu(torch.arange(6).reshape(2, 3))
            torch.relu(torch.zeros(0, 3))
            return x

    assert read(Odd(), torch.randn(2, 3)) == {}


def test_values_that_are_not_finite_are_shown_as_such():
    x = torch.tensor([[1.0, float("nan")], [2.0, 3.0]])
    layer = read(nn.Sequential(nn.ReLU()), x)["0"]
    assert layer.mean != layer.mean
    assert layer.dead == 0


# The lecture's table


LECTURE = {
    "tanh, 0.01 N": (torch.tanh, 0.01, [0.49, 0.29, 0.18, 0.11, 0.07, 0.05]),
    "tanh, 0.05 N": (torch.tanh, 0.05, [0.87, 0.85, 0.85, 0.85, 0.85, 0.85]),
    "tanh, Xavier": (torch.tanh, 4096**-0.5, [0.63, 0.49, 0.41, 0.36, 0.32, 0.30]),
    "ReLU, Xavier": (torch.relu, 4096**-0.5, [0.58, 0.41, 0.30, 0.21, 0.15, 0.10]),
    "ReLU, Kaiming": (torch.relu, (2 / 4096) ** 0.5, [0.83, 0.83, 0.83, 0.81, 0.81, 0.81]),
}


@pytest.fixture(scope="module")
def normal():
    return [torch.randn(4096, 4096, generator=torch.Generator().manual_seed(i)) for i in range(6)]


@pytest.mark.parametrize("case", LECTURE)
def test_the_lecture_s_table_of_six_layers(case, normal):
    function, size, expected = LECTURE[case]

    class Net(nn.Module):
        def forward(self, x):
            for weight in normal:
                x = function(x @ weight * size)
            return x

    x = torch.randn(16, 4096, generator=torch.Generator().manual_seed(6))
    stds = [layer.std for layer in read(Net(), x).values()]
    assert stds == pytest.approx(expected, abs=0.03)
