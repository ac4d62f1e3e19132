from math import exp, inf, nan

import pytest
import torch

from lightning_recipes.checks.progress import progress


@pytest.mark.parametrize("seed", range(30))
def test_noise_around_a_constant_is_no_alarm(seed):
    noise = torch.randn(100, generator=torch.Generator().manual_seed(seed)).tolist()
    assert progress([2.3 + 0.1 * n for n in noise]).status in ("PASS", "INFO")
    falling = [2.3 * exp(-t / 30) + 0.1 * n for t, n in enumerate(noise)]
    assert progress(falling).status == "PASS"
    rising = [2.3 + 0.1 * t + 0.1 * n for t, n in enumerate(noise)]
    assert progress(rising).status == "WARN"


def test_progress_at_the_edges():
    assert progress([2.3] * 19).status == "SKIP"
    assert progress([2.3] * 20).status == "INFO"
    assert progress([]).status == "SKIP"
    found = progress([2.3, 2.2, nan, 2.0])
    assert (found.status, found.evidence["step"]) == ("FAIL", 2)
    assert progress([2.3, 80.0, inf]).causes[0] == "learning-rate-too-high"
    assert progress([nan]).causes[0] == "non-finite-input"
    assert progress([2.3] * 30, broken=["net.bias"]).status == "FAIL"
    assert progress([-1.0 - 0.1 * t for t in range(40)]).status == "PASS"  # a loss below 0 that falls
