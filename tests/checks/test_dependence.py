import pytest
import torch
from sklearn.datasets import load_digits

from lightning_recipes.checks.dependence import dependence_of_training, label_dependence


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))[:256]
    return torch.from_numpy(data.images).float()[order, None], torch.from_numpy(data.target)[order]


def test_digits_show_their_labels(digits):
    images, labels = digits
    found = label_dependence(images, labels)
    assert found.status == "PASS"
    assert found.evidence["agreement"] > 0.8
    assert label_dependence(images, torch.eye(10)[labels]).evidence == found.evidence


def test_p_is_uniform_for_shuffled_labels(digits):
    images, labels = digits
    p = []
    for seed in range(100):
        order = torch.randperm(256, generator=torch.Generator().manual_seed(1000 + seed))
        p.append(label_dependence(images, labels[order], permutations=99, seed=seed).evidence["p"])
    p = torch.tensor(p).sort().values
    distance = (p - (torch.arange(100) + 0.5) / 100).abs().max()
    assert distance < 0.17  # Kolmogorov's 0.5 %


def test_identical_samples_count_once():
    found = label_dependence(torch.ones(256, 3), torch.arange(256) % 2)
    assert found.status == "SKIP"


def test_training_on_real_and_permuted_inputs():
    real, permuted = [0.50, 0.52, 0.49, 0.51, 0.50], [2.30, 2.42, 2.31, 2.39, 2.32]
    assert dependence_of_training(real, permuted).status == "PASS"
    found = dependence_of_training([2.300, 2.301, 2.302, 2.301, 2.300], [2.301, 2.300, 2.302, 2.301, 2.301])
    assert (found.status, found.causes[0]) == ("WARN", "input-ignored")
    found = dependence_of_training(
        [2.300, 2.301, 2.302, 2.301, 2.300], [2.301, 2.300, 2.302, 2.301, 2.301], learned=True
    )
    assert (found.status, found.causes[0]) == ("FAIL", "labels-misaligned")
    assert dependence_of_training(permuted, permuted).causes[0] == "input-ignored"
    assert dependence_of_training([2.0, 1.0, 3.0, 2.0, 2.5], [2.2, 1.9, 2.9, 2.1, 2.4]).status == "INFO"
    assert dependence_of_training([1.0], [2.0]).status == "SKIP"


def test_the_t_test_is_that_of_scipy():
    from scipy import stats

    real, permuted = [1.0, 1.2, 0.9, 1.1], [1.3, 1.25, 1.4, 1.2]
    p = stats.ttest_rel(permuted, real, alternative="greater").pvalue
    assert dependence_of_training(real, permuted).evidence["p"] == pytest.approx(p)
