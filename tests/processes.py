"""Processes of their own, for what a test cannot do in its own: be killed, or be two."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from multiprocessing.connection import wait
from pathlib import Path
from types import SimpleNamespace

import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port

ROOT = Path(__file__).parents[1]
_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(["lightning_recipes.callbacks", "lightning_recipes.modules", "torchvision"])


def run_module(module, *arguments):
    """Run `python -m module` from the root of the repository, and return what became of it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)


def run_forked(function, *arguments):
    """Call a function in a new process, and return its `returncode` and `stderr` as `run_module` does.

    It is forked from a server that has imported torch and done nothing else, which saves seconds.
    """
    return _forked([{}], function, arguments)


def run_pair(function, *arguments):
    """Call a function in two such processes, each of which is one of the two of its Trainer."""
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port()), "WORLD_SIZE": "2"}
    ranks = [{**common, "NODE_RANK": "0", "LOCAL_RANK": str(rank)} for rank in range(2)]
    return _forked(ranks, function, arguments)


def _forked(environments, function, arguments):
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / str(number) for number in range(len(environments))]
        running = [
            _FORKED.Process(target=_call, args=(output, environment, function, arguments))
            for output, environment in zip(outputs, environments, strict=True)
        ]
        for process in running:
            process.start()
        status = 0
        for process in _as_they_end(running):
            status = status or process.exitcode
            if status:  # the others would wait for it
                for other in running:
                    other.kill()
        return SimpleNamespace(returncode=status, stderr="".join(output.read_text() for output in outputs))


def _as_they_end(processes):
    left = {process.sentinel: process for process in processes}
    while left:
        for sentinel in wait(list(left)):
            process = left.pop(sentinel)
            process.join()
            yield process


def _call(output, environment, function, arguments):
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    torch.set_num_threads(1)
    function(*arguments)
