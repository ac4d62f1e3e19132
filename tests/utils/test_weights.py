"""Loading weights: what fits is set, what does not is named, and nothing is guessed."""

import os

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from lightning_recipes.utils.errors import UserError
from lightning_recipes.utils.state_dicts import read_state_dict
from lightning_recipes.utils.weights import adapt_channels, load_weights


def net(channels=3, width=4, classes=5, depth=2):
    layers = []
    for _ in range(depth):
        layers += [nn.Conv2d(channels, width, 3), nn.BatchNorm2d(width)]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(classes))


def made(*, seed=0, **options):
    """A net of seven tensors a layer (a counter among them) and two in its head, weights all distinct."""
    torch.manual_seed(seed)
    module = net(**options).eval()
    module(torch.zeros(1, options.get("channels", 3), 8, 8))
    for value in module.state_dict().values():
        value.copy_(torch.rand_like(value) + 0.5 if value.is_floating_point() else value + 7)
    return module


def renamed(tensors, *, counters=True):
    """The same tensors under names that nobody knows, kinds kept."""
    kept = {k: v for k, v in tensors.items() if counters or "num_batches" not in k}
    return {f"part_{100 - int(k.split('.')[0])}.{k.split('.')[1]}": v for k, v in kept.items()}


def same(module, donor, names=None):
    mine, theirs = module.state_dict(), donor.state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in names or mine)


# By name


def test_all_of_a_network_of_the_same_kind_is_set():
    donor, module = made(), made(seed=1)
    report = load_weights(module, donor.state_dict())
    assert same(module, donor)
    assert (report.loaded, report.missing, report.unused) == (list(donor.state_dict()), [], [])
    assert (report.matched, report.prefix, report.adapted) == ("name", "", "")


@pytest.mark.parametrize("prefix", ["module.", "model.backbone.", "model.module.net.", "0."])
def test_any_prefix_is_found_and_named(prefix):
    donor, module = made(), made(seed=1)
    tensors = {prefix + k: v for k, v in donor.state_dict().items()} | {"loss.weight": torch.ones(5)}
    report = load_weights(module, tensors)
    assert same(module, donor)
    assert (report.prefix, report.unused) == (prefix, ["loss.weight"])


def test_a_network_whose_own_names_begin_so_keeps_them():
    donor, module = (nn.ModuleDict({"model": made(seed=seed)}) for seed in (0, 1))
    assert load_weights(module, donor.state_dict()).prefix == ""
    assert same(module, donor)


def test_of_two_networks_in_a_file_the_average_is_taken():
    online, average, module = made(), made(seed=1), made(seed=2)
    both = {f"online_model.{k}": v for k, v in online.state_dict().items()}
    both |= {f"ema_model.{k}": v for k, v in average.state_dict().items()}
    report = load_weights(module, both)
    assert same(module, average)
    assert report.unused == [f"online_model.{k}" for k in online.state_dict()]


def test_of_two_networks_in_a_file_the_one_that_fits_is_taken():
    wide, fitting, module = made(width=6), made(seed=1), made(seed=2)
    both = {f"wide.{k}": v for k, v in wide.state_dict().items()}
    assert load_weights(module, both | {f"b.{k}": v for k, v in fitting.state_dict().items()}).prefix == "b."
    plain = {f"copy.{k}": v for k, v in wide.state_dict().items()} | fitting.state_dict()
    plain |= {f"old.{k}": v + 1 for k, v in fitting.state_dict().items()}
    assert load_weights(module, plain).prefix == ""
    assert same(module, fitting)


def test_a_head_for_other_classes_stays_fresh_and_is_named():
    donor, module = made(classes=7), made(seed=1)
    head = {k: v.clone() for k, v in module.state_dict().items() if k.startswith("5.")}
    report = load_weights(module, donor.state_dict())
    assert report.missing == report.unused == ["5.weight", "5.bias"] == list(head)
    assert same(module, donor, report.loaded)
    assert all(torch.equal(module.state_dict()[k], v) for k, v in head.items())


def test_a_tensor_of_another_shape_in_the_middle_is_named():
    donor, module = made(), made(seed=1)
    tensors = donor.state_dict() | {"2.weight": torch.zeros(4, 4, 5, 5)}
    report = load_weights(module, tensors)
    assert report.missing == report.unused == ["2.weight"]
    assert same(module, donor, report.loaded)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_floating_types_are_cast(dtype):
    donor, module = made(), made(seed=1, channels=1)
    tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in donor.state_dict().items()}
    assert not load_weights(module, tensors).missing
    assert all(v.dtype in (torch.float32, torch.int64) for v in module.state_dict().values())
    first = tensors["0.weight"].float().sum(1, keepdim=True)
    torch.testing.assert_close(module.state_dict()["0.weight"], first)
    assert torch.equal(module.state_dict()["2.weight"], tensors["2.weight"].float())


def test_integers_do_not_become_weights():
    donor, module = made(), made(seed=1)
    tensors = donor.state_dict() | {"2.weight": torch.ones(4, 4, 3, 3, dtype=torch.int8)}
    assert load_weights(module, tensors).missing == ["2.weight"]


def test_counters_of_batches_do_not_make_a_share():
    donor, module = made(width=6), made(seed=1)  # nothing fits but the counters and the head's bias
    with pytest.raises(UserError, match=r"1 of the network's 14 tensors fit from wide\.pth by name"):
        load_weights(module, donor.state_dict(), source="wide.pth")
    without = {k: v for k, v in made().state_dict().items() if "num_batches" not in k}
    report = load_weights(module, without, least=1.0)
    assert report.missing == ["1.num_batches_tracked", "3.num_batches_tracked"]


def test_the_share_is_what_least_says():
    donor = made().state_dict()
    half = {k: donor[k] for k in [k for k in donor if "num_batches" not in k][:7]}  # of 14
    assert len(load_weights(made(seed=1), half, least=0.5).loaded) == 7
    before = made(seed=1)
    with pytest.raises(UserError, match=r"7 of the network's 14 .* at least 51% must"):
        load_weights(before, half, least=0.51)
    assert same(before, made(seed=1))  # a refused file changes nothing


# In order


@pytest.mark.parametrize("counters", [True, False])
def test_unknown_names_are_matched_in_order(counters):
    donor, module = made(), made(seed=1)
    fresh = {k: v.clone() for k, v in module.state_dict().items()}
    report = load_weights(module, renamed(donor.state_dict(), counters=counters))
    counted = [k for k in fresh if "num_batches" in k]
    assert report.matched == "order"
    assert report.missing == ([] if counters else counted)
    assert report.unused == []
    assert same(module, donor, report.loaded)
    assert all(torch.equal(module.state_dict()[k], fresh[k]) for k in report.missing)


def test_in_order_too_the_ends_may_differ():
    donor, module = made(classes=7), made(seed=1, channels=1)
    report = load_weights(module, renamed(donor.state_dict()))
    assert report.missing == ["5.weight", "5.bias"]
    assert report.unused == ["part_95.weight", "part_95.bias"]
    assert report.adapted == "adapted from 3 to 1 channels"
    assert same(module, donor, [name for name in report.loaded if name != "0.weight"])


def test_in_order_either_side_may_lack_a_head():
    whole, module = made(), made(seed=1)
    headless = {k: v for k, v in whole.state_dict().items() if not k.startswith("5.")}
    report = load_weights(module, renamed(headless))
    assert (report.matched, report.missing) == ("order", ["5.weight", "5.bias"])
    report = load_weights(made(seed=1)[:-1], renamed(whole.state_dict()))
    assert (report.matched, report.missing) == ("order", [])
    assert report.unused == ["part_95.weight", "part_95.bias"]


def test_a_last_layer_that_is_no_head_is_not_taken_for_one():
    torch.manual_seed(0)
    whole, module = (nn.Sequential(*(nn.Linear(4, 4) for _ in range(3))) for _ in range(2))
    report = load_weights(module, renamed(whole[:2].state_dict()))
    assert (report.loaded, report.missing) == (
        ["0.weight", "0.bias", "1.weight", "1.bias"],
        ["2.weight", "2.bias"],
    )
    assert same(module, whole, report.loaded)
    assert not load_weights(module[:2], renamed(whole.state_dict())).missing


def test_a_file_without_an_order_is_not_matched_in_order():
    with pytest.raises(UserError, match="nor do they fit in order: the file keeps no order"):
        load_weights(made(), renamed(made().state_dict()), ordered=False)


def test_where_too_little_is_left_between_the_ends_it_is_refused():
    donor, module = (
        nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 7)),
        nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3)),
    )
    assert len(load_weights(module, renamed(donor.state_dict())).loaded) == 2
    with pytest.raises(UserError, match="too much differs at the two ends"):
        load_weights(module, renamed(donor.state_dict()), least=0.6)


def broken(how):
    tensors = renamed(made().state_dict())
    names = list(tensors)
    if how == "a shape in the middle":
        tensors["part_98.weight"] = torch.zeros(4, 4, 5, 5)
    elif how == "kinds in another order":  # as TensorFlow keeps them
        order = [*names[:2], *sorted(names[2:6], reverse=True), *names[6:]]
        tensors = {name: tensors[name] for name in order}
    elif how == "one more in the middle":
        tensors = {
            k: v for name in names for k, v in ((name, tensors[name]), ("part_98.scale", torch.ones(4)))
        }
    elif how == "the stem's width":
        tensors["part_100.weight"] = torch.zeros(6, 3, 3, 3)
    elif how == "deeper":
        tensors = renamed(made(depth=3).state_dict())
    elif how == "integers":
        tensors["part_98.weight"] = torch.ones(4, 4, 3, 3, dtype=torch.int64)
    return tensors


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("a shape in the middle", "network has 2.weight 4 × 4 × 3 × 3, it has part_98.weight 4 × 4 × 5 × 5"),
        ("kinds in another order", "network has 1.bias 4, it has part_99.running_var 4"),
        ("one more in the middle", "it has 15, from part_100.weight"),
        ("the stem's width", "network has 0.weight 4 × 3 × 3 × 3, it has part_100.weight 6 × 3"),
        ("deeper", "it has 20, from"),
        ("integers", "network has 2.weight"),
    ],
)
def test_nothing_is_loaded_in_order_unless_all_agrees(how, says):
    module = made(seed=1)
    with pytest.raises(UserError, match="0 of the network's 14 tensors fit") as caught:
        load_weights(module, broken(how), source="odd.pth")
    assert "nor do they fit in order: " in str(caught.value)
    assert says in str(caught.value)
    assert str(caught.value).endswith("Give weights of the same architecture.")
    assert same(module, made(seed=1))


# The first convolution


def logits(kernel, images):
    return F.conv2d(images, kernel)


@pytest.mark.parametrize(("given", "wanted"), [(3, 1), (4, 1), (2, 1), (1, 3), (1, 4), (3, 6), (3, 9)])
def test_images_with_equal_channels_give_what_they_gave(given, wanted):
    torch.manual_seed(0)
    kernel, grey = torch.randn(5, given, 3, 3), torch.randn(2, 1, 8, 8)
    adapted = adapt_channels(kernel, wanted)
    torch.testing.assert_close(
        logits(adapted, grey.expand(-1, wanted, -1, -1)),
        logits(kernel, grey.expand(-1, given, -1, -1)),
        rtol=1e-4,
        atol=1e-5,  # sums in another order
    )


@pytest.mark.parametrize("wanted", [1, 2, 3, 4, 5, 8])
def test_three_channels_are_adapted_as_timm_does(wanted):
    kernel = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        adapt_channels(kernel, wanted), timm.models.adapt_input_conv(wanted, kernel.clone())
    )


@pytest.mark.parametrize(("given", "wanted"), [(4, 3), (2, 3), (6, 2)])
def test_a_stem_that_cannot_be_adapted_stays_fresh_and_is_named(given, wanted):
    donor, module = made(channels=given), made(seed=1, channels=wanted)
    for tensors in (donor.state_dict(), renamed(donor.state_dict())):
        report = load_weights(module, tensors)
        assert (report.missing, report.adapted) == (["0.weight"], "")
    assert same(module, made(seed=1, channels=wanted), ["0.weight"])


def test_only_the_first_convolution_is_adapted():
    donor = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(1, 3, 1), nn.Conv2d(3, 3, 1))
    assert load_weights(module, donor.state_dict()).missing == ["1.weight"]


# What the user is told


def test_the_summary_is_a_line_and_counts_what_it_leaves_out():
    report = load_weights(made(), renamed(made(channels=1, classes=7).state_dict(), counters=False))
    assert report.summary("net.pth") == (
        "Loaded 12 of 16 tensors from net.pth in order, for the names differ: look at a few predictions; "
        "the first convolution was adapted from 1 to 3 channels; "
        "fresh: 5.weight, 5.bias, 2 × num_batches_tracked; unused: part_95.weight, part_95.bias."
    )
    tensors = {f"net.{k}": v for k, v in made().state_dict().items()}
    more = {f"other.{k}": torch.zeros(1) for k in range(9)}
    assert load_weights(made(), tensors | more).summary("net.pth") == (
        "Loaded 16 of 16 tensors from net.pth by name; under `net.`; unused: other.0, other.1, other.2, "
        "other.3, and 5 more."
    )


# Files


KEYS = ["state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "net", "module"]


@pytest.mark.parametrize("key", KEYS)
def test_containers_are_opened(key, tmp_path):
    tensors = made().state_dict()
    torch.save({"epoch": 3, key: tensors, "optimizer": {"state": {0: torch.ones(1)}}}, tmp_path / "net.pth")
    assert list(read_state_dict(tmp_path / "net.pth")) == list(tensors)


@pytest.mark.parametrize(("raw", "average"), [("state_dict", "state_dict_ema"), ("model", "model_ema")])
def test_an_average_goes_before_the_raw_weights(raw, average, tmp_path):
    torch.save({raw: {"a": torch.zeros(1)}, average: {"a": torch.ones(1)}}, tmp_path / "net.pth")
    assert read_state_dict(tmp_path / "net.pth")["a"] == 1


def test_a_tensor_named_model_is_no_container(tmp_path):
    torch.save({"model": torch.ones(1), "other": torch.ones(1)}, tmp_path / "net.pth")
    assert list(read_state_dict(tmp_path / "net.pth")) == ["model", "other"]


def test_compiled_modules_and_averages_of_torch_s(tmp_path):
    donor, module = made(), made(seed=1)
    average = torch.optim.swa_utils.AveragedModel(donor)
    torch.save(average.state_dict(), tmp_path / "swa.pth")
    report = load_weights(module, read_state_dict(tmp_path / "swa.pth"))
    assert same(module, donor)
    assert report.unused == ["n_averaged"]
    compiled = {f"net._orig_mod.{k}": v for k, v in donor.state_dict().items()}
    torch.save(compiled, tmp_path / "compiled.pth")
    assert load_weights(made(seed=1), read_state_dict(tmp_path / "compiled.pth")).prefix == "net."


def test_safetensors(tmp_path):
    tensors = {k: v.clone() for k, v in made().state_dict().items()}
    save_file(tensors, tmp_path / "net.safetensors")
    read = read_state_dict(tmp_path / "net.safetensors")
    assert all(torch.equal(read[k], v) for k, v in tensors.items())


class Evil:
    def __reduce__(self):
        return os.mkdir, ("owned",)


def bad_file(path, how):
    if how == "empty":
        path.touch()
    elif how == "text":
        path.write_text("no weights")
    elif how == "cut":
        torch.save(made().state_dict(), path)
        path.write_bytes(path.read_bytes()[:-500])
    elif how == "a module":
        torch.save(made(), path)
    elif how == "code":
        torch.save({"state_dict": made().state_dict(), "more": Evil()}, path)
    elif how == "a tensor":
        torch.save(torch.zeros(3), path)
    elif how == "no tensors":
        torch.save({"net": {"a": 1.0}, "epoch": 3, 0: torch.zeros(1)}, path)
    elif how == "two nets":
        torch.save({"student": {"a": torch.zeros(1)}, "teacher": {"a": torch.ones(1)}}, path)


@pytest.mark.parametrize(
    ("name", "how", "says"),
    [
        ("a.pth", "missing", "must be a file, got .*a.pth, which is not there"),
        ("a.pth", "empty", "it is empty. Fetch or save it again"),
        ("a.safetensors", "empty", "it is empty. Fetch or save it again"),
        ("a.pth", "text", "it is no weights file"),
        ("a.safetensors", "text", "Error while deserializing header"),
        ("a.pth", "cut", "it is cut off or of another format.*Fetch or save it again"),
        (
            "a.pth",
            "a module",
            r"holds objects beside tensors.*write `torch.save\(model.state_dict\(\), path\)`",
        ),
        ("a.pth", "code", "whose code is not run"),
        ("a.pth", "a tensor", "holds no tensors by name. Save a `state_dict"),
        ("a.pth", "no tensors", "holds no tensors by name. It has net, epoch, 0. Save a"),
        ("a.pth", "two nets", "holds no tensors by name. It has student, teacher. Save a"),
    ],
)
def test_bad_files_say_what_is_wrong(name, how, says, tmp_path):
    bad_file(tmp_path / name, how)
    with pytest.raises(UserError, match=says) as caught:
        read_state_dict(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))
    assert not os.path.exists("owned")


def test_the_share_of_zero_takes_what_there_is():
    assert load_weights(made(), {}, least=0).loaded == []
