"""What an installation brings, and what it costs to look at it."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import lightning_recipes

ROOT = Path(__file__).parent.parent


def python(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, **options
    )


def test_public_names_are_sorted_and_exist():
    assert lightning_recipes.__all__ == sorted(lightning_recipes.__all__)
    for name in lightning_recipes.__all__:
        assert getattr(lightning_recipes, name).__name__ == name
    assert set(lightning_recipes.__all__) < set(dir(lightning_recipes))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = lightning_recipes.Nothing


def test_every_callback_is_public():
    from lightning_recipes import callbacks

    assert set(callbacks.__all__) <= set(lightning_recipes.__all__)


@pytest.mark.parametrize(
    "code",
    [
        "import lightning_recipes",
        "from lightning_recipes.cli import main; main(['--help'])",
        "from lightning_recipes.cli import main; main(['--version'])",
        "from lightning_recipes.cli import main; main([])",
        "from lightning_recipes.cli import main; assert main(['ftt']) == 2",
    ],
)
def test_looking_does_not_import_torch(code):
    heavy = "{'torch', 'lightning', 'torchvision', 'timm', 'numpy', 'matplotlib', 'sklearn'}"
    done = python("-c", f"{code}\nimport sys; found = {heavy} & set(sys.modules); assert not found, found")
    assert done.returncode == 0, done.stderr


def test_fit_help_imports_neither_timm_nor_sklearn():
    code = "from lightning_recipes.cli import main\ntry: main(['fit', '--help'])\nexcept SystemExit: pass\n"
    done = python(
        "-c", f"{code}import sys; assert not {{'timm', 'sklearn', 'tensorboard'}} & set(sys.modules)"
    )
    assert done.returncode == 0, done.stderr
    assert "--trainer.max_epochs" in done.stdout
    assert "--run_dir" in done.stdout


@pytest.mark.slow
def test_a_wheel_in_a_clean_environment(tmp_path):
    built = python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT))
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"lightning_recipes"}

    venv.create(tmp_path / "clean", with_pip=True)
    clean = tmp_path / "clean" / "bin" / "python"
    subprocess.run(
        [clean, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)],
        check=True,
        cwd=tmp_path,
    )
    for name in ("callbacks", "datamodules"):
        done = subprocess.run([clean, "-c", f"import {name}"], capture_output=True, text=True, cwd=tmp_path)
        assert f"No module named '{name}'" in done.stderr
    command = subprocess.run(
        [clean.with_name("lightning-recipes"), "--help"], capture_output=True, text=True, cwd=tmp_path
    )
    assert command.returncode == 0, command.stderr
    assert "predict" in command.stdout
    # With the dependencies at hand, and the source out of sight, the installed package works.
    site = next(path for path in sys.path if path.endswith("site-packages"))
    code = (
        f"import sys; sys.path.append({site!r})\n"
        "from lightning_recipes.callbacks import LearningCurves\n"
        "import lightning_recipes; print(lightning_recipes.__file__)"
    )
    done = subprocess.run([clean, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "clean") in done.stdout
