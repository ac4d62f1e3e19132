import pytest
import timm
import torch
from timm.layers import create_act
from torch import nn

from lightning_recipes import ImageClassifier
from lightning_recipes.layers.activations import activation_class, swap_activations
from lightning_recipes.utils.errors import UserError

GATES = (nn.Sigmoid, nn.Hardsigmoid, create_act.Sigmoid, create_act.HardSigmoid)
KNOWN = {layer for group in create_act._ACT_LAYERS for layer in group.values()} - {nn.Identity, *GATES}
KNOWN |= {nn.GELU, nn.Tanh, nn.PReLU}


def activations(model):
    """Return the classes of all activation modules that timm or torch have, but for the gates."""
    return {type(part) for part in model.modules()} & KNOWN


def gates(model):
    return [type(part) for part in model.modules() if isinstance(part, GATES)]


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",
        "test_vit",
        "test_efficientnet",
        "test_convnext",
        "test_byobnet",
        "test_maxvit",  # takes no `act_layer`
        "vgg11",
        "mobilenetv3_small_050",
        "densenet121",
        "regnety_002",
        "ghostnet_050",  # takes no `act_layer`
        "dla34",  # takes no `act_layer`
        "convmixer_768_32",  # gets two of them
        "pvt_v2_b0",  # takes no `act_layer`
    ],
)
def test_no_activation_of_a_timm_network_is_left_and_the_gates_are(name):
    with torch.device("meta"):  # shapes only
        model = timm.create_model(name)
        before = gates(model)
        names = swap_activations(model, "elu")
        assert activations(model) == {nn.ELU}
        assert gates(model) == before
        assert len(names) >= sum(isinstance(part, nn.ELU) for part in model.modules()) > 3
        assert model(torch.empty(1, *model.pretrained_cfg["input_size"])).shape == (1, model.num_classes)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_maxvit", "ghostnet_050", "pvt_v2_b0"])
def test_the_classifier_s_act_works_on_any_backbone(backbone):
    size = {"test_maxvit": 64}.get(backbone, 32)
    model = ImageClassifier(backbone, num_classes=3, in_chans=1, image_size=size, act="tanh").eval()
    assert activations(model) == {create_act.Tanh}
    assert model(torch.rand(2, 1, size, size)).shape == (2, 3)


def test_squeeze_and_excitation_keeps_its_sigmoids_and_they_come_through_there_and_back():
    model = timm.create_model("test_byobnet")
    assert len(gates(model)) == 4
    images = torch.rand(1, 3, 64, 64)
    model.eval()
    before = model(images)
    swap_activations(model, "sigmoid")
    assert len(gates(model)) > 4
    assert not torch.allclose(model(images), before)
    swap_activations(model, "relu")
    assert len(gates(model)) == 4
    assert torch.equal(model(images), before)


def test_computes_the_other_function_with_the_same_weights():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.GELU())
    other = nn.Sequential(model[0], nn.SiLU(), model[2], nn.SiLU())
    assert swap_activations(model, "silu") == ["1", "3"]
    x = torch.randn(5, 4)
    assert torch.equal(model(x), other(x))


def test_works_in_place_only_where_the_old_one_did():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.ReLU(), nn.GELU(), nn.Linear(1, 1))
    swap_activations(model, "selu")
    assert [part.inplace for part in model[:3]] == [True, False, False]
    x = torch.randn(3, 1)
    kept = x.clone()
    model[1:](x)
    assert torch.equal(x, kept)


def test_a_module_in_two_places_stays_one():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = self.second = nn.ReLU()
            self.inner = nn.Sequential(self.first, nn.Linear(2, 2))

    model = Shared()
    swap_activations(model, "prelu")
    assert model.first is model.second is model.inner[0]
    assert type(model.first) is activation_class("prelu")
    assert sum("weight" in name for name, _ in model.named_parameters()) == 2


def test_new_weights_are_of_the_network_s_kind_and_mode():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).double().eval()
    swap_activations(model, "prelu")
    assert model[1].weight.dtype == torch.float64
    assert not model[1].training
    assert model(torch.zeros(1, 2, dtype=torch.float64)).dtype == torch.float64


def test_sigmoids_are_activations_where_there_are_no_others():
    lenet = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 4), nn.Tanh())
    assert swap_activations(lenet, "relu") == ["1", "3"]
    binary = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1), nn.Sigmoid())
    assert swap_activations(binary, "gelu") == ["1"]
    assert type(binary[3]) is nn.Sigmoid
    gated = nn.ModuleDict({"act": nn.Sigmoid(), "gate": nn.Sigmoid()})
    assert swap_activations(gated, "relu") == ["act"]


def test_an_activation_that_is_the_wanted_one_stays_the_same_object():
    model = nn.Sequential(nn.LeakyReLU(0.3), nn.ReLU())
    own = model[0]
    assert swap_activations(model, "leaky_relu") == ["0", "1"]
    assert model[0] is own


@pytest.mark.parametrize(
    ("model", "act", "says"),
    [
        (nn.ReLU(), "gelo", "timm has no activation 'gelo'.*Did you mean `gelu`"),
        (nn.Sequential(nn.ReLU()), "", "timm has no activation ''"),
        (nn.Linear(1, 1), "relu", "Linear has no activation modules .*'relu'.*functions such as `F.relu`"),
        (nn.Sequential(nn.Linear(1, 1)), "relu", "Sequential has no activation modules"),
    ],
)
def test_says_what_is_wrong(model, act, says):
    with pytest.raises(UserError, match=says):
        swap_activations(model, act)


def test_activations_scaled_for_one_function_are_refused():
    with torch.device("meta"):
        model = timm.create_model("dm_nfnet_f0")
    with pytest.raises(UserError, match="NormFreeNet scales its activations by factors that belong to one"):
        swap_activations(model, "relu")
