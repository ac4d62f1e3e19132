import pytest
import torch

from lightning_recipes.checks.input_reach import input_reach


def test_reach_of_inputs():
    outputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    assert input_reach(outputs, outputs).causes[0] == "input-ignored"
    assert input_reach(outputs, outputs.roll(1, 0)).status == "PASS"
    found = input_reach(outputs, outputs + 1e-6)
    assert found.status == "PASS"
    assert found.evidence["change"] == pytest.approx(1e-6, rel=0.1)
