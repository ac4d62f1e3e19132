import pytest
import torch
from sklearn.linear_model import LogisticRegression

from lightning_recipes.transfer.probes import probe_accuracies
from lightning_recipes.utils.errors import UserError


def blobs(size, apart, seed):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(size) % 3
    return torch.randn(size, 5, generator=generator) + apart * torch.nn.functional.one_hot(
        targets, 5
    ), targets


def test_the_accuracy_is_that_of_a_logistic_regression_on_standardised_features():
    x, y = blobs(90, 1.5, 0)
    val_x, val_y = blobs(300, 1.5, 1)
    mean, std = x.mean(0), x.std(0, correction=0)
    oracle = LogisticRegression(max_iter=1000).fit(((x - mean) / std).numpy(), y.numpy())
    expected = oracle.score(((val_x - mean) / std).numpy(), val_y.numpy())
    found = probe_accuracies({"a": x}, y, {"a": val_x}, val_y)
    assert found == {
        "a": pytest.approx(expected, abs=1.01 / 300)
    }  # one image on the border may be rounded over
    assert 0.6 < expected < 0.95


def test_each_stage_is_judged_by_itself_and_in_its_order():
    good, y = blobs(90, 9.0, 0)
    noise, _ = blobs(90, 0.0, 2)
    val_good, val_y = blobs(90, 9.0, 1)
    found = probe_accuracies({"b": good, "a": noise}, y, {"a": noise, "b": val_good}, val_y)
    assert list(found) == ["b", "a"]
    assert found["b"] == 1
    assert found["a"] < 0.7


def test_the_scale_of_a_feature_does_not_matter():
    x, y = blobs(90, 1.5, 0)
    scale = torch.tensor([1e-3, 1, 1e3, 1, 1])
    assert probe_accuracies({"a": x}, y, {"a": x}, y) == probe_accuracies(
        {"a": x * scale}, y, {"a": x * scale}, y
    )


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        (torch.zeros(90, 3), "one label an image, got several"),
        (torch.ones(90, dtype=torch.int64), "at least 2 classes among the training images, got 1"),
    ],
)
def test_targets_that_no_probe_can_tell_apart(targets, says):
    x, _ = blobs(90, 1.0, 0)
    with pytest.raises(UserError, match=says):
        probe_accuracies({"a": x}, targets, {"a": x}, targets)
