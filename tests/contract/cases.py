"""One case for each public callback: how it is built, what it refuses, and whether it only watches."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import Callback

from lightning_recipes import callbacks


@dataclass(frozen=True)
class Case:
    """What the contract needs to know of a callback.

    Args:
        options: Settings for a short run on a toy.
        other: Other settings, under which a second instance lives beside the first.
        wrong: Settings that are refused, each with a part of the message.
        watches: It leaves training as it would be without it.
        follows_training: It keeps metrics of training, of which a resumed epoch has only the rest.
        of_process: Its state is of the process (random numbers, its own batches): two differ from one.
    """

    options: dict[str, Any] = field(default_factory=dict)
    other: dict[str, Any] = field(default_factory=dict)
    wrong: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    watches: bool = True
    follows_training: bool = False
    of_process: bool = False


CASES = {
    "ActivationMonitor": Case(
        options={"every_n_steps": 2, "table": False},
        other={"every_n_steps": 3, "name": "second"},
        wrong=[
            ({"every_n_steps": 0}, "`every_n_steps` must be at least 1, got 0. To measure nothing"),
            ({"name": "a/b"}, "file's name without folders, got 'a/b'. Give folders by `dirpath`"),
            ({"name": ""}, "file's name without folders, got ''"),
        ],
    ),
    "EMA": Case(
        options={"decay": 0.9, "start_step": 2},
        other={"decay": 0.5, "every_n_steps": 2},
        wrong=[
            ({"decay": 1.0}, "`decay` must lie in [0, 1), got 1.0. 0.999 looks back"),
            ({"decay": -0.1}, "in [0, 1), got -0.1"),
            ({"every_n_steps": 0}, "`every_n_steps` must be at least 1, got 0"),
            ({"start_step": -1}, "`start_step` must be at least 0, got -1"),
            ({"start_epoch": -1}, "`start_epoch` must be at least 0, got -1"),
            ({"device": "meta"}, "`device` must be a device of torch's, such as `cpu`, got 'meta'"),
            ({"device": "cup"}, "`device` must be a device of torch's, such as `cpu`, got 'cup'"),
        ],
        watches=False,
    ),
    "EarlyStoppingWithRestore": Case(
        options={"patience": 2, "verbose": False},
        other={"patience": 3, "mode": "max", "monitor": "train/loss"},
        wrong=[
            ({"patience": 0}, "`patience` must be at least 1, got 0. To never stop, set it to null"),
            ({"mode": "least"}, "`mode` must be `min` or `max`, got 'least'"),
            ({"unit": "days"}, "`unit` must be checks, epochs or steps, got 'days'"),
            ({"min_delta": -1.0}, "`min_delta` must be at least 0, got -1.0"),
            ({"warmup": -1}, "`warmup` must be at least 0, got -1"),
            ({"every_n_steps": 0}, "`every_n_steps` must be at least 1, got 0"),
        ],
        watches=False,
    ),
    "ExactResume": Case(of_process=True),
    "FineTuning": Case(
        options={"backbone": "net", "probe_epochs": 1, "backbone_scale": 0.5},
        other={"backbone": "net.1", "policy": "linear_probe"},
        wrong=[
            ({"policy": "fine_tune"}, "got 'fine_tune'. Did you mean `finetune`"),
            ({"backbone_scale": 0.0}, "`backbone_scale` must be above 0, got 0.0. To freeze it, take"),
            ({"layer_decay": 1.5}, "`layer_decay` must lie in (0, 1], got 1.5"),
            ({"layer_decay": 0.0}, "`layer_decay` must lie in (0, 1], got 0.0"),
            ({"unfreeze_every": 0}, "`unfreeze_every` must be at least 1, got 0"),
            ({"probe_epochs": 1.5}, "a whole number of epochs or a fraction in (0, 1), got 1.5"),
            ({"probe_epochs": -1}, "a whole number of epochs or a fraction in (0, 1), got -1"),
        ],
        watches=False,
    ),
    "GradientMonitor": Case(
        options={"every_n_steps": 2},
        other={"every_n_steps": 3, "name": "second"},
        wrong=[
            ({"every_n_steps": 0}, "`every_n_steps` must be at least 1, got 0"),
            ({"name": "a/b"}, "file's name without folders, got 'a/b'. Give folders by `dirpath`"),
        ],
    ),
    "InitialLossCheck": Case(
        options={"seconds": 600.0},
        other={"strict": True},
        of_process=True,
        wrong=[
            ({"seconds": 0.0}, "`seconds` must be above 0, got 0.0. A minute"),
        ],
    ),
    "LearningCurves": Case(
        other={"name": "second"},
        follows_training=True,
        wrong=[
            ({"name": "a/b"}, "file's name without folders, got 'a/b'. Give folders by `dirpath`"),
            ({"name": ""}, "file's name without folders, got ''"),
            ({"mode": "least"}, "`min` or `max`, got 'least'"),
        ],
    ),
    "MaxNorm": Case(
        options={"max_norm": 0.5},
        other={"max_norm": 0.4, "pattern": "net.*"},
        wrong=[
            (
                {"max_norm": 0.0},
                "`max_norm` must be above 0, got 0.0. To bound nothing, leave the callback out",
            ),
            ({"max_norm": -1.0}, "`max_norm` must be above 0, got -1.0"),
        ],
        watches=False,
    ),
    "LSUV": Case(
        options={"tol": 0.01},
        other={"pattern": "net.*", "max_iterations": 3},
        wrong=[
            ({"tol": 0.0}, "`tol` must lie between 0 and 1, got 0.0. The paper's is 0.1"),
            ({"tol": 1.0}, "`tol` must lie between 0 and 1, got 1.0"),
            ({"max_iterations": 0}, "`max_iterations` must be at least 1, got 0"),
        ],
        watches=False,
    ),
    "OverfitBatchCheck": Case(
        options={"seconds": 600.0},
        other={"strict": True},
        wrong=[({"seconds": -1.0}, "`seconds` must be above 0, got -1.0")],
        of_process=True,
    ),
    "TrainingDoctor": Case(
        options={"seconds": 600.0, "steps": 3, "every_n_steps": 2, "table": False},
        other={"strict": True, "steps": 4},
        wrong=[
            ({"seconds": 0.0}, "`seconds` must be above 0, got 0.0"),
            ({"steps": 0}, "`steps` must be at least 1, got 0"),
            ({"every_n_steps": 0}, "`every_n_steps` must be at least 1, got 0"),
        ],
        follows_training=True,
        of_process=True,
    ),
    "SnapshotEnsemble": Case(
        options={"cycles": 2, "lr_max": 1.0},
        other={"cycles": 3, "name": "second", "drop_weak": False},
        wrong=[
            ({"cycles": 0}, "`cycles` must be at least 1, got 0"),
            ({"lr_max": 0.0}, "`lr_max` must be above 0, got 0.0"),
            ({"lr_min": -0.1}, "`lr_min` must be at least 0 and below `lr_max`, got -0.1"),
            ({"lr_max": 0.1, "lr_min": 0.1}, "`lr_min` must be at least 0 and below `lr_max`, got 0.1"),
            ({"cycle": "square"}, "`cycle` must be cosine or triangle, got 'square'"),
            ({"start": 1.0}, "`start` must be a fraction of the run in [0, 1), got 1.0"),
            ({"name": "a/b"}, "`name` must be a folder's name, got 'a/b'. Give a path by `dirpath`"),
        ],
        watches=False,
    ),
    "SWA": Case(
        options={"start": 0.5},
        other={"start": 1, "every": 3},
        wrong=[
            ({"start": -0.5}, "`start` must be a fraction of the run in [0, 1) or a whole number, got -0.5"),
            ({"start": 1.5}, "or a whole number, got 1.5"),
            ({"every": 0}, "`every` must be `epoch` or a number of steps from 1 on, got 0"),
            ({"every": "step"}, "`every` must be `epoch` or a number of steps from 1 on, got 'step'"),
            ({"lr": 0.0}, "`lr` must be above 0, got 0.0. To leave the rate alone, set `anneal` to none"),
            ({"anneal": "sine"}, "`anneal` must be cosine, linear or none, got 'sine'"),
            ({"refresh_batches": -1}, "`refresh_batches` must be at least 0, got -1"),
        ],
        watches=False,
    ),
    "UpdateRatioMonitor": Case(
        options={"every_n_steps": 2},
        other={"every_n_steps": 3, "name": "second"},
        wrong=[
            ({"every_n_steps": 0}, "`every_n_steps` must be at least 1, got 0"),
            ({"name": "a/b"}, "file's name without folders, got 'a/b'. Give folders by `dirpath`"),
        ],
    ),
    "WeightPenalty": Case(
        options={"l1": 0.01, "l2": 0.05},
        other={"l1": 0.02, "name": "second", "pattern": "net.*"},
        wrong=[
            ({"l1": -0.1}, "`l1` must be at least 0, got -0.1"),
            ({"l2": -0.1}, "`l2` must be at least 0, got -0.1"),
            ({"l1": float("nan")}, "`l1` must be at least 0, got nan"),
            ({"l1": 0.0}, "`l1` or `l2` must be above 0, got 0 for both. To penalise nothing, leave"),
        ],
        watches=False,
    ),
}


def class_of(name: str) -> Callable[..., Callback]:
    return getattr(callbacks, name)


def make(name: str, **options: Any) -> Callback:
    return class_of(name)(**{**CASES[name].options, **options})


def settings(name: str) -> list[str]:
    return list(inspect.signature(class_of(name)).parameters)


def make_other(name: str) -> Callback:
    return class_of(name)(**CASES[name].other)
