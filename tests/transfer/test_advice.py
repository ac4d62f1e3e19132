import pytest

from lightning_recipes.callbacks import FineTuning
from lightning_recipes.transfer.advice import FEW, advise

CELLS = [
    (FEW - 1, True, "linear_probe", 1.0, False, "a linear classifier on top"),
    (FEW - 1, False, "linear_probe", 1.0, True, "linear classifiers at several stages"),
    (FEW, True, "probe_then_finetune", 0.5, False, "the last layers"),
    (FEW, False, "probe_then_finetune", 0.0, False, "all layers"),
]


@pytest.mark.parametrize(("images", "similar", "policy", "frozen", "stages", "says"), CELLS)
def test_the_four_cells_of_the_table(images, similar, policy, frozen, stages, says):
    found = advise(images, similar=similar, distance=0.1)
    assert (found.policy, found.freeze_until, found.probe_stages) == (policy, frozen, stages)
    assert says in found.reason
    assert (found.images_per_class, found.distance, found.similar) == (images, 0.1, similar)
    FineTuning(found.policy)  # which is one


@pytest.mark.parametrize("similar", [True, False])
def test_the_reason_says_what_it_goes_by(similar):
    found = advise(37.0, similar=similar)
    assert "37 images a class are few" in found.reason
    assert ("unlike those of pretraining" in found.reason) == (not similar)
    assert found.distance is None


def test_more_images_never_freeze_more():
    for similar in (True, False):
        frozen = [advise(images, similar=similar).freeze_until for images in (1, 50, 99, 100, 1e6)]
        assert frozen == sorted(frozen, reverse=True)
