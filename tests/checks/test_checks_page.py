"""The page of the checks says what the code does: names, thresholds, causes, and which statuses there are."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from lightning_recipes.checks import CAUSES
from lightning_recipes.diagnosis.first_steps import after_first_steps
from lightning_recipes.diagnosis.stages import BEFORE_TRAINING
from tests.checks.test_causes import literals

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "lightning_recipes"
PAGE = (ROOT / "docs/checks.md").read_text()
ENTRY = re.compile(r"^- \*\*(.+?)\*\* \(\[code\]\(\.\./(.+?)\)\): (.+?)(?=^- |^#|\Z)", re.M | re.S)
ENTRIES = {name: (path, " ".join(text.split())) for name, path, text in ENTRY.findall(PAGE)}


def emitted():
    """Return the names that the package gives to findings, as far as they stand in the code."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding" and node.args:
                yield from strings(node.args[0])
            elif isinstance(node, ast.Assign) and "CHECK" in ast.unparse(node.targets[0]):
                yield from strings(node.value)


def strings(node):
    return [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]


def module(path):
    return importlib.import_module(path.removesuffix(".py").replace("/", "."))


def slugs(text):
    return set(re.findall(r"`([a-z-]+)`", text)) & set(CAUSES)


def test_every_check_has_an_entry():
    assert set(emitted()) - {"examination"} == set(ENTRIES)
    stages = [name for name, _ in (*BEFORE_TRAINING, *after_first_steps(None, [], 0))]
    assert not [name for name in [*stages, "examination"] if name not in ENTRIES and f"`{name}`" not in PAGE]


@pytest.mark.parametrize("name", ENTRIES)
def test_thresholds_and_statuses_are_those_of_the_code(name):
    path, text = ENTRIES[name]
    for constant, value in re.findall(r"`([A-Z_0-9]+) = (.+?)`", text):
        assert getattr(module(path), constant) == ast.literal_eval(value)
    named = set(re.findall(r"\b(FAIL|WARN|INFO)\b", text))
    known = literals(ROOT / path) & {"FAIL", "WARN", "INFO"}
    alone = "/checks/" in path and [at for at, _ in ENTRIES.values()].count(path) == 1
    assert named == known if alone else named <= known


@pytest.mark.parametrize("path", sorted((PACKAGE / "checks").glob("*.py")), ids=lambda path: path.name)
def test_causes_are_those_of_the_code(path):
    if path.name == "causes.py":
        return
    here = [text for at, text in ENTRIES.values() if ROOT / at == path]
    assert set().union(*map(slugs, here)) == literals(path) & set(CAUSES)


@pytest.mark.parametrize("name", ENTRIES)
def test_each_entry_ends_with_causes(name):
    text = ENTRIES[name][1]
    listed = text.partition("Causes: ")[2]
    assert listed.endswith(".")
    assert "none" in listed or slugs(listed)
