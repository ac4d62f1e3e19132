import json

import pytest
import timm
import torch

from .conftest import TINY


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_resnet", num_classes=7).state_dict(), path)
    return "--model.weights", path


def test_it_prints_what_it_measured_and_what_to_do(run, weights):
    status, out, _ = run("advise-transfer", *TINY, *weights)
    assert status == 0
    for said in ("6 (median), 6 (least)", "counts as similar)", "probe at layer1", "probe at layer4"):
        assert said in out
    setting = "--trainer.callbacks+=FineTuning --trainer.callbacks.policy linear_probe"
    assert f"Add to `fit`: {setting}\n" in out
    assert "act1" not in out


def test_what_it_says_to_do_can_be_done(run, weights, caplog):
    _, out, _ = run("advise-transfer", *TINY, *weights)
    setting = out.split("Add to `fit`: ")[1].split()
    status, _, err = run("fit", *TINY, *weights, *setting, "--run_dir", "followed")
    assert status == 0, err
    assert "training the head alone" in caplog.text
    stored = torch.load("followed/last.ckpt", weights_only=True)["state_dict"]
    given = torch.load(weights[1], weights_only=True)
    assert torch.equal(stored["backbone.layer4.0.conv1.weight"], given["layer4.0.conv1.weight"])


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ("2", ["layer3", "layer4"]),
        ("[layer1,layer4]", ["layer1", "layer4"]),
        ("null", ["act1", "layer1", "layer2", "layer3", "layer4"]),
    ],
)
def test_its_json_is_nothing_but_json(run, weights, stages, expected):
    status, out, _ = run("advise-transfer", *TINY, *weights, "--json", "--stages", stages)
    assert status == 0
    found = json.loads(out)
    assert list(found["stages"]) == expected
    assert (found["policy"], found["images_per_class"], found["similar"]) == ("linear_probe", 6.0, False)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--stages", "9"], "`stages` must lie in 1..5, the stages of the backbone (act1, layer1"),
        (["--stages", "many"], "`--stages` must be int or list, got many"),
        (["--model.weights", "null"], "needs a backbone with pretrained weights, got fresh ones"),
        (["--model.weights", "none.pth"], "none.pth"),
        (["--stagess", "3"], "There is no argument `--stagess`. Did you mean `--stages`"),
        (
            ["--data", "CachedFeatures", "--data.data", "DigitsDataModule"],
            "takes an ImageClassifier and an Image",
        ),
    ],
)
def test_says_what_is_wrong(run, weights, arguments, says):
    status, out, err = run(
        "advise-transfer",
        "--data.limit_per_class",
        "6",
        "--model.backbone",
        "test_resnet",
        *weights,
        *arguments,
    )
    assert status == 2
    assert says in err.splitlines()[-1]
    assert out == ""


def test_it_leaves_no_directory(run, weights, tmp_path):
    run("advise-transfer", *TINY, *weights)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"]
