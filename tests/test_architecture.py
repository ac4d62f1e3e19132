"""The house: who may import whom, how long a file may be, and the two views at the top level."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lightning_recipes"
FILES = sorted(PACKAGE.rglob("*.py"))
RANKS = {
    "cli": 5,
    "recipe": 4,
    **dict.fromkeys(("modules", "callbacks", "datamodules", "reports"), 3),
    "diagnosis": 2,
    **dict.fromkeys(
        (
            "layers",
            "schedules",
            "initialization",
            "optimizers",
            "transfer",
            "plots",
            "checks",
            "evidence",
            "preprocessing",
            "averaging",
            "batch_norm",
            "penalties",
            "ensembles",
            "scores",
        ),
        1,
    ),
    "utils": 0,
}


def room(path):
    """Return the folder or file of the package that `path` belongs to; None for the package's own files."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return None if first in ("__init__", "__main__") else first


def imported_rooms(path):
    """Yield the rooms that a file imports, by relative or absolute name, wherever in the file."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = (*start, *(node.module.split(".") if node.module else ()))
            names = [base] if len(base) > 1 else [(*base, alias.name) for alias in node.names]
        else:
            continue
        rooms = (name[1] for name in names if name[0] == PACKAGE.name and len(name) > 1)
        yield from (name for name in rooms if not name.startswith("__"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    own = room(path)
    if own is None:
        return  # the package's own files show what is there
    assert own in RANKS, f"{own} has no rank: add it to docs/architecture.md and here"
    for other in imported_rooms(path):
        assert other == own or RANKS[other] < RANKS[own], f"{own} imports {other}, which is not below it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_is_longer_than_300_lines(path):
    assert len(path.read_text().splitlines()) <= 300


def test_the_ranks_are_those_of_the_documentation():
    table = (ROOT / "docs" / "architecture.md").read_text()
    documented = {}
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0].isdigit():
            documented |= {name.strip("` "): int(cells[0]) for name in cells[1].split(",")}
    assert documented == RANKS


@pytest.mark.parametrize("name", ["callbacks", "datamodules"])
def test_the_top_level_views_show_the_package(name):
    link = ROOT / name
    assert link.is_symlink()
    assert link.resolve() == PACKAGE / name


@pytest.mark.parametrize("name", ["callbacks", "datamodules"])
def test_the_top_level_views_refuse_to_be_imported(name):
    done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"Import `lightning_recipes.{name}`" in done.stderr


def test_no_tracked_file_names_a_registry_or_a_machine_path():
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split("\0")
    words = ["pypi" + ".org", "python" + "hosted", "/" + "root/", "/" + "work/"]
    for name in filter(None, tracked):
        path = ROOT / name
        if path.is_file() and path.suffix not in (".png", ".ckpt"):
            text = path.read_text(errors="ignore")
            assert not [word for word in words if word in text], name
