import errno

import lightning
import pytest
import torch

from lightning_recipes.ensembles import (
    CLASS_PATH,
    pool_checkpoints,
    read_checkpoint,
    split_members,
)
from lightning_recipes.utils.errors import UserError
from lightning_recipes.utils.files import save_whole

PREPROCESSING = {"channels": 1, "image_size": 32, "crop_pct": 1.0, "mean": [0.3], "std": [0.2]}


def checkpoint(value=1.0, *, class_names=("a", "b"), preprocessing=PREPROCESSING, **hparams):
    return {
        "state_dict": {"backbone.weight": torch.full((2,), value), "head.bias": torch.zeros(2)},
        "hyper_parameters": {"backbone": "test_resnet", **hparams},
        "pytorch-lightning_version": lightning.__version__,
        "lightning_recipes": {
            "class_path": "lightning_recipes.modules.classifier.ImageClassifier",
            "class_names": class_names and list(class_names),
            "preprocessing": preprocessing,
        },
    }


def test_a_pool_has_everything_of_its_members(tmp_path):
    pool = pool_checkpoints([checkpoint(1.0), checkpoint(2.0, act="relu")], ["one", "two"], temperature=1.5)
    torch.save(pool, tmp_path / "pool.ckpt")
    pool = torch.load(tmp_path / "pool.ckpt", weights_only=True)  # plain data
    assert pool["state_dict"]["members.1.backbone.weight"].tolist() == [2.0, 2.0]
    assert len(pool["state_dict"]) == 4
    assert [member["name"] for member in pool["hyper_parameters"]["members"]] == ["one", "two"]
    assert pool["hyper_parameters"]["members"][1]["hyper_parameters"]["act"] == "relu"
    assert pool["hyper_parameters"]["temperature"] == 1.5
    assert pool["lightning_recipes"] == {
        "class_path": CLASS_PATH,
        "class_names": ["a", "b"],
        "preprocessing": PREPROCESSING,
    }
    assert pool["pytorch-lightning_version"] == lightning.__version__


def test_the_class_path_is_where_the_class_is():
    from lightning_recipes import EnsembleClassifier

    assert f"{EnsembleClassifier.__module__}.{EnsembleClassifier.__qualname__}" == CLASS_PATH


def test_an_ensemble_among_the_members_is_flattened():
    inner = pool_checkpoints([checkpoint(float(i)) for i in range(11)], [f"m{i}" for i in range(11)])
    outer = pool_checkpoints([checkpoint(50.0), inner], ["first", "inner"], temperature=2.0)
    names = [member["name"] for member in outer["hyper_parameters"]["members"]]
    assert names == ["first", *(f"m{i}" for i in range(11))]
    values = [state["backbone.weight"][0].item() for _, state in split_members(outer, "outer")]
    assert values == [50.0, *range(11)]  # the tenth too is in its place
    again = pool_checkpoints([outer], ["outer"], temperature=2.0)
    assert again["hyper_parameters"] == outer["hyper_parameters"]
    assert again["state_dict"].keys() == outer["state_dict"].keys()


def test_a_user_s_own_module_pools_too():
    own = {"state_dict": {"weight": torch.ones(1)}, "hyper_parameters": {}}
    named = {**own, "lightning_recipes": {"class_path": "mine.Net"}}
    pool = pool_checkpoints([own, named, checkpoint()], ["own", "named", "ours"])
    paths = [member["class_path"] for member in pool["hyper_parameters"]["members"]]
    assert paths == [None, "mine.Net", "lightning_recipes.modules.classifier.ImageClassifier"]
    assert pool["lightning_recipes"]["class_names"] == ["a", "b"]


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (checkpoint(class_names="abc"), "one has 2 classes, two has 3"),
        (checkpoint(class_names="ba"), "one and two name their classes differently: 'a' against 'b'"),
        (checkpoint(class_names=None, num_classes=7), "one has 2 classes, two has 7"),
        (checkpoint(preprocessing={**PREPROCESSING, "image_size": 64}), "`image_size` is 32 against 64"),
        (checkpoint(preprocessing={**PREPROCESSING, "mean": [0.4]}), r"`mean` is \[0.3\] against \[0.4\]"),
        (checkpoint(preprocessing={**PREPROCESSING, "channels": 3}), "`channels` is 1 against 3"),
        ({"hyper_parameters": {}}, "two is a checkpoint without weights: it has no `state_dict`"),
        ({"state_dict": {}}, "two is a checkpoint without weights"),
    ],
)
def test_members_that_do_not_go_together(second, says):
    with pytest.raises(UserError, match=says):
        pool_checkpoints([checkpoint(), second], ["one", "two"])


def test_the_last_digit_of_a_mean_is_no_difference():
    near = checkpoint(preprocessing={**PREPROCESSING, "mean": [0.3 + 1e-9]})
    assert pool_checkpoints([checkpoint(), near], ["one", "two"])


def test_members_of_different_images_are_told_apart_by_their_tensors():
    image = {**PREPROCESSING, "mean": torch.full((1, 4, 4), 0.3), "std": [1.0]}
    rotated = {**image, "matrix": torch.eye(16)}
    near = {**rotated, "mean": image["mean"] * (1 + 1e-7), "matrix": torch.eye(16) + 1e-8}
    pool = pool_checkpoints([checkpoint(preprocessing=rotated), checkpoint(preprocessing=near)], ["a", "b"])
    assert torch.equal(pool["lightning_recipes"]["preprocessing"]["matrix"], torch.eye(16))
    for one, two, says in (
        (PREPROCESSING, image, r"`mean` is \[0.3\] against a tensor \(1, 4, 4\) of mean 0.3"),
        (image, PREPROCESSING, r"`mean` is a tensor \(1, 4, 4\) of mean 0.3 against \[0.3\]"),
        (image, rotated, r"`matrix` is None against a tensor \(16, 16\)"),
        (rotated, image, r"`matrix` is a tensor \(16, 16\) of mean 0.0625 against None"),
        (rotated, {**rotated, "matrix": torch.eye(16).flip(0)}, "`matrix` is a tensor"),
        (image, {**image, "mean": torch.full((1, 8, 8), 0.3)}, r"\(1, 4, 4\) .* against .* \(1, 8, 8\)"),
    ):
        with pytest.raises(UserError, match=says):
            pool_checkpoints([checkpoint(preprocessing=one), checkpoint(preprocessing=two)], ["a", "b"])


def test_no_members():
    with pytest.raises(UserError, match="at least one member, got none"):
        pool_checkpoints([], [])


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="which is not there"):
        read_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    with pytest.raises(UserError, match=r"text\.ckpt cannot be read"):
        read_checkpoint(tmp_path / "text.ckpt")
    torch.save([1], tmp_path / "list.ckpt")
    with pytest.raises(UserError, match="holds a list"):
        read_checkpoint(tmp_path / "list.ckpt")
    torch.save({"hyper_parameters": {"f": torch.nn.Linear(1, 1)}}, tmp_path / "objects.ckpt")
    with pytest.raises(UserError, match="cannot be read as a checkpoint of plain data"):
        read_checkpoint(tmp_path / "objects.ckpt")


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "new" / "pool.ckpt"
    save_whole({"state_dict": {"a": torch.ones(1)}}, path)

    def full(checkpoint, file):
        file.write(b"half")
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("[enforce fail at inline_container.cc:677]")  # noqa: B904 - as torch does

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save_whole({}, path)
    assert [found.name for found in path.parent.iterdir()] == ["pool.ckpt"]
    assert torch.load(path, weights_only=True)["state_dict"]["a"] == 1
