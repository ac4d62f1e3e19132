import re

import pytest
from torch import nn

from lightning_recipes.utils.errors import UserError
from lightning_recipes.utils.patterns import matching, matching_layers


@pytest.fixture
def network():
    return nn.ModuleDict(
        {
            "stem": nn.Conv2d(1, 2, 3),
            "layer3": nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU(), nn.Linear(2, 2)),
            "head": nn.Linear(2, 3),
        }
    )


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", ["stem", "layer3.0", "layer3.2", "head"]),
        ("layer3.*", ["layer3.0", "layer3.2"]),
        ("*.?", ["layer3.0", "layer3.2"]),
        ("*.[02]", ["layer3.0", "layer3.2"]),
        ("head", ["head"]),
    ],
)
def test_a_pattern_is_a_shell_s(network, pattern, names):
    found = matching_layers(network, pattern, (nn.Linear, nn.Conv2d))
    assert list(found) == names
    assert all(found[name] is network.get_submodule(name) for name in names)


def test_only_layers_of_the_kinds_are_found(network):
    assert list(matching_layers(network, "*", (nn.Conv2d,))) == ["stem", "layer3.0"]


def test_a_layer_itself_has_the_empty_name():
    layer = nn.Linear(1, 1)
    assert matching_layers(layer, "*", (nn.Linear,)) == {"": layer}


@pytest.mark.parametrize("pattern", ["Head", "heads", "layer3", "stem.*", ""])
def test_a_pattern_that_matches_nothing_shows_the_names(network, pattern):
    says = (
        f"`pattern` {pattern!r} matches none of the 4 Linear or Conv2d layers: "
        "stem, layer3.0, layer3.2, head."
    )
    with pytest.raises(UserError, match=re.escape(says)):
        matching_layers(network, pattern, (nn.Linear, nn.Conv2d))


def test_the_closest_name_is_shown(network):
    with pytest.raises(UserError, match=r"Did you mean `head`\?$"):
        matching_layers(network, "heads", (nn.Linear,))


def test_many_names_are_cut_short():
    names = {f"layer{number}": number for number in range(100)}
    with pytest.raises(UserError, match=r"layer28, layer29 and 70 more\.") as error:
        matching(names, "nothing", what="weights")
    assert "layer30" not in str(error.value)


def test_no_layers_at_all():
    with pytest.raises(UserError, match=r"'\*' matches nothing: there are no Linear layers\."):
        matching_layers(nn.ReLU(), "*", (nn.Linear,))
