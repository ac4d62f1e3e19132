"""The command line. This file imports nothing heavy, so that help comes at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from ..utils.errors import UserError, did_you_mean

COMMANDS = {
    "fit": "Train, keep the best weights, and measure them. Without arguments: on the embedded digits.",
    "check": "Say what is wrong with a run before it is begun, and what to do about it.",
    "validate": "Measure a checkpoint on the validation split.",
    "test": "Measure a checkpoint on the test split.",
    "ensemble": "Pool checkpoints into one classifier, and report what that is worth.",
    "init-table": "Show what an initialization does to the activations of six layers, beside the handbook's.",
    "predict": "Write the class of each image in a folder to a CSV. Needs nothing but a checkpoint.",
    "plot-schedule": "Draw learning rates over a run, before it is begun.",
    "advise-transfer": "Say how to transfer a pretrained backbone to these images.",
}

HELP = """\
usage: lightning-recipes [-h] [--version] COMMAND [ARGUMENT ...]

The handbook of training neural networks, as PyTorch Lightning parts.

commands:
{commands}

Each command lists its arguments with --help, prints them as YAML with --print_config, and reads YAML with
--config FILE. Several --config files are laid over each other; `callbacks+:` in a file appends.

examples:
  lightning-recipes fit
  lightning-recipes fit --data ImageFolderDataModule --data.root DIR --model.backbone resnet18
  lightning-recipes check --model my_package.MyModule --data my_package.MyData
  lightning-recipes predict --ckpt_path runs/NAME/best.ckpt IMAGE_OR_FOLDER ...
  lightning-recipes ensemble runs/NAME-1/best.ckpt runs/NAME-2/best.ckpt
  lightning-recipes plot-schedule --shape cosine step --warmup 5 --warmup_unit epochs
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, or 2 after a mistake that the user can mend.

    `check` also returns 2 for a FAIL, and with `--strict` 1 for a WARN; `init-table` 1 for figures that are
    not the handbook's.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS)) + 2
        print(HELP.format(commands="\n".join(f"  {name:<{width}}{text}" for name, text in COMMANDS.items())))
        return 0
    if arguments[0] == "--version":
        from .. import __version__

        print(f"lightning-recipes {__version__}")
        return 0
    command, *rest = arguments
    try:
        if command not in COMMANDS:
            hint = did_you_mean(command, COMMANDS)
            raise UserError(f"There is no command {command!r}.{hint} Commands: {', '.join(COMMANDS)}.")
        if command in ("fit", "validate", "test"):
            from .train import run

            run(command, rest)
            return 0
        room = command.replace("-", "_")  # of its own name, with a function run_NAME
        status: int | None = getattr(import_module(f".{room}", __name__), f"run_{room}")(rest)
        return status or 0
    except UserError as error:
        # An error in a worker process arrives with that process's traceback before its own text.
        print(f"error: {str(error).rpartition('UserError: ')[2].strip()}", file=sys.stderr)
        return 2
