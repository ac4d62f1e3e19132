import pytest

from lightning_recipes.checks.modes import modes


@pytest.mark.parametrize(
    ("wrong", "total", "status"),
    [([], 0, "PASS"), ([], 3, "PASS"), (["a"], 3, "WARN"), (["a", "b"], 2, "FAIL")],
)
@pytest.mark.parametrize("stage", ["training", "validation"])
def test_modes(wrong, total, status, stage):
    found = modes(wrong, total, stage=stage)
    cause = {"training": "eval-mode-in-training", "validation": "train-mode-in-validation"}[stage]
    assert found.status == status
    assert found.causes == ((cause,) if wrong else ())
    assert found.check.endswith(stage)
