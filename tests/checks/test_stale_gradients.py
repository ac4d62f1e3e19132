import pytest

from lightning_recipes.checks.stale_gradients import stale_gradients


@pytest.mark.parametrize(
    ("stale", "windows", "steps", "batches", "status"),
    [
        (0, 11, 12, 12, "PASS"),
        (11, 11, 12, 12, "FAIL"),
        (9, 11, 12, 12, "FAIL"),  # Lightning clears them before a validation
        (1, 11, 12, 12, "PASS"),
        (0, 0, 1, 4, "SKIP"),
        (0, 0, 0, 4, "FAIL"),
        (0, 0, 0, 0, "SKIP"),
    ],
)
def test_stale_gradients(stale, windows, steps, batches, status):
    found = stale_gradients(stale, windows, steps=steps, batches=batches)
    assert found.status == status
    if status == "FAIL":
        assert found.causes == ("missing-zero-grad",) if steps else ("missing-step",)
