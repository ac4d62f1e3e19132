import json
from math import inf, nan

import pytest
import torch

from lightning_recipes.checks.causes import CAUSES
from lightning_recipes.checks.finding import WORST_FIRST, Finding, worst_first


def test_findings_name_known_causes_and_statuses():
    with pytest.raises(ValueError, match="causes"):
        Finding("a", "FAIL", "", causes=("no-such-cause",))
    with pytest.raises(ValueError, match="status"):
        Finding("a", "BAD", "")
    assert all(Finding("a", "FAIL", "", causes=(slug,)).advice == CAUSES[slug] for slug in CAUSES)
    assert Finding("a", "FAIL", "", causes=("dead-relu",), advice="mine").advice == "mine"
    assert Finding("a", "PASS", "").advice == ""


def test_findings_go_through_json():
    evidence = {"a": 1, "b": nan, "c": [torch.tensor(2.5), inf], "d": {"e": None, 3: True}, "f": "word"}
    found = Finding("check", "WARN", "said", evidence, ("dead-relu",))
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["evidence"] == {
        "a": 1,
        "b": "nan",
        "c": [2.5, "inf"],
        "d": {"e": None, "3": True},
        "f": "word",
    }
    assert Finding(**plain).to_dict() == plain


def test_worst_first_keeps_the_order_of_equals():
    found = [Finding(str(i), WORST_FIRST[i % 5], "") for i in range(20)]
    ordered = worst_first(found)
    assert [f.status for f in ordered] == [status for status in WORST_FIRST for _ in range(4)]
    assert [f.check for f in ordered[:4]] == ["0", "5", "10", "15"]
