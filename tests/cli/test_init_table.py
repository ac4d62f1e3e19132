import json

import pytest

from lightning_recipes.initialization import reference
from lightning_recipes.initialization.reference import REFERENCES


def test_the_table_reproduces_the_handbook_s(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = run("init-table")
    assert (status, err) == (0, "")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert [row[0] for row in rows[::2]] == list(REFERENCES)
    for measured, handbook in zip(rows[::2], rows[1::2], strict=True):
        assert (measured[-1], handbook[-1]) == ("measured", "handbook")
        stds = [float(cell) for cell in measured[1:-1]]
        assert stds == pytest.approx([float(cell) for cell in handbook[1:-1]], abs=0.035)  # of two rounded
        assert [float(cell) for cell in handbook[1:-1]] == list(REFERENCES[measured[0]].stds)
    assert "within 0.03" in out
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80


def test_figures_that_are_not_the_handbook_s_end_in_1(run, monkeypatch):
    measured = {name: [figure + 0.031 for figure in case.stds] for name, case in REFERENCES.items()}
    monkeypatch.setattr("lightning_recipes.cli.init_table.reference_table", lambda **_: measured)
    status, out, _ = run("init-table")
    assert status == 1
    assert "largest difference 0.031, NOT within 0.03" in out


def test_another_width_is_measured_and_not_compared(run):
    status, out, _ = run("init-table", "--width", "64", "--seed", "1", "--json")
    assert status == 0
    found = json.loads(out)
    assert found["width"] == 64
    assert found["largest_difference"] is None
    assert found["measured"] == reference.reference_table(width=64, seed=1)
    status, out, _ = run("init-table", "--width", "64")
    assert status == 0
    assert "the handbook's figures are of width 4096" in out
    assert "measured" in out
    assert "│ handbook" not in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--width", "0"), "`width` must be at least 1, got 0. The handbook's is 4096."),
        (("--width", "wide"), "`--width` must be int"),
        (("--sead", "1"), "There is no argument `--sead`. Did you mean `--seed`?"),
    ],
)
def test_wrong_arguments_end_in_one_line(run, arguments, said):
    status, out, err = run("init-table", *arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1
