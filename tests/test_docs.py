"""What the documentation shows is run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_recipes import callbacks
from lightning_recipes.cli import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "docs/subclassing.md"]


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run_in_order(page):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)
    assert blocks
    space = {"__name__": "documentation"}
    for block in blocks:
        exec(compile(block, page, "exec"), space)


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", *map(str, (ROOT / "docs").rglob("*.md"))])
def test_links_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{page} links to {target}"


def test_tests_and_benchmarks_that_are_named_exist():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for name in re.findall(r"\b(?:tests|benchmarks)/[\w/]+(?:\.py|\.csv)?", page.read_text()):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_every_callback_has_a_card():
    cards = {
        path.read_text().splitlines()[0].removeprefix("# ") for path in (ROOT / "docs/methods").glob("*.md")
    }
    assert set(callbacks.__all__) <= cards


def test_the_readme_names_every_command_and_every_make_target_exists():
    readme = (ROOT / "README.md").read_text()
    assert all(command in readme for command in COMMANDS)
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:`| {4})make ([a-z]+)", readme)) <= targets


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_config_is_accepted(path, folder):
    extra = ["--data.root", str(folder)] if path.name == "folder.yaml" else []
    command = [
        sys.executable,
        "-m",
        "lightning_recipes",
        "fit",
        "--config",
        str(path),
        *extra,
        "--print_config",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "class_path" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_run(path):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": "."}}
    ).execute()


def test_the_makefile_and_ci_run_the_same_commands():
    ci = (ROOT / ".ci" / "run").read_text()
    assert re.findall(r"^make \w+", ci, re.M) == ["make lint", "make test"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
