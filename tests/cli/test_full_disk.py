"""A disk that fills up while a run writes its checkpoints, in a process whose files may not grow."""

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import TINY

LIMITED = """
import resource, signal, sys
from lightning_recipes.cli import main
from lightning_recipes.cli import train
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing past the limit is then an OSError, as on a full disk
fit = train.RecipesCLI.fit
def limited(self):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
    fit(self)
train.RecipesCLI.fit = limited
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
def test_a_disk_that_fills_up(tmp_path):
    # 100 kB: the logs fit, the first checkpoint does not
    command = [sys.executable, "-c", LIMITED, "100000", "fit", *TINY, "--run_dir", "run"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Cannot write to run: " in line
    assert "Free some space, or give `run_dir` on another disk." in line
    assert "Traceback" not in done.stderr
    assert not Path(tmp_path / "run").exists()
