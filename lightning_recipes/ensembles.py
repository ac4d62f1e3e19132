"""The file of an ensemble: a Lightning checkpoint of `EnsembleClassifier`, pooled from its members'."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from .utils.errors import UserError

CLASS_PATH = "lightning_recipes.modules.ensemble.EnsembleClassifier"
_RELATIVE = 1e-6  # of a mean or std: what a round trip through float32 may change


def pool_checkpoints(
    checkpoints: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    *,
    temperature: float = 1.0,
) -> dict[str, Any]:
    """Return the checkpoint of an ensemble of the modules that wrote `checkpoints`, as plain data.

    A checkpoint that is an ensemble's already gives its members, by their own names; its temperature, which
    was another pool's, is left behind.

    Args:
        checkpoints: As Lightning writes them.
        names: What to call them, in errors and in reports; as many.
        temperature: Of the mean probabilities.

    Raises:
        UserError: There is no checkpoint, one has no weights, or they differ in classes or preprocessing.

    >>> member = {"state_dict": {"weight": torch.ones(1)}, "hyper_parameters": {"depth": 2}}
    >>> pool = pool_checkpoints([member, member], ["one", "two"])
    >>> list(pool["state_dict"]), [member["name"] for member in pool["hyper_parameters"]["members"]]
    (['members.0.weight', 'members.1.weight'], ['one', 'two'])
    """
    if not checkpoints:
        raise UserError("An ensemble needs at least one member, got none.")
    parts = [
        part for each, name in zip(checkpoints, names, strict=True) for part in split_members(each, name)
    ]
    ours = [checkpoint.get("lightning_recipes") or {} for checkpoint in checkpoints]
    class_names = agree_on_classes(
        (name, stored.get("class_names"), _num_classes(checkpoint))
        for name, stored, checkpoint in zip(names, ours, checkpoints, strict=True)
    )
    preprocessing = agree_on_preprocessing(
        (name, stored.get("preprocessing")) for name, stored in zip(names, ours, strict=True)
    )
    state = {
        f"members.{number}.{key}": value
        for number, (_, member) in enumerate(parts)
        for key, value in member.items()
    }
    header = ensemble_header(
        [description for description, _ in parts],
        temperature=temperature,
        class_names=class_names,
        preprocessing=preprocessing,
    )
    return {"state_dict": state, **header}


def split_members(checkpoint: Mapping[str, Any], name: str) -> list[tuple[dict[str, Any], dict[str, Tensor]]]:
    """Return description and weights of each member of an ensemble's checkpoint, or of the one that it is.

    Args:
        checkpoint: As Lightning writes it.
        name: What to call it.

    Raises:
        UserError: It has no weights.
    """
    state = checkpoint.get("state_dict")
    if not state:
        raise UserError(
            f"{name} is a checkpoint without weights: it has no `state_dict`. Give one that Lightning wrote, "
            "with its `state_dict` kept."
        )
    hparams = dict(checkpoint.get("hyper_parameters") or {})
    class_path = (checkpoint.get("lightning_recipes") or {}).get("class_path")
    if class_path != CLASS_PATH:
        return [(member_description(class_path, hparams, name), dict(state))]
    parts: list[dict[str, Tensor]] = [{} for _ in hparams["members"]]
    for key, value in state.items():
        _, number, rest = key.split(".", 2)  # members.3.head.weight
        parts[int(number)][rest] = value
    return list(zip(hparams["members"], parts, strict=True))


def member_description(class_path: str | None, hparams: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what rebuilds a member, as plain data.

    Args:
        class_path: Import path of its class; None where that is not known.
        hparams: Its constructor's arguments.
        name: What to call it.
    """
    return {"class_path": class_path, "hyper_parameters": dict(hparams), "name": name}


def ensemble_header(
    descriptions: Sequence[Mapping[str, Any]],
    *,
    temperature: float,
    class_names: Sequence[str] | None,
    preprocessing: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return all of an ensemble's checkpoint but the weights.

    Args:
        descriptions: Of the members, by `member_description`.
        temperature: Of the mean probabilities.
        class_names: K names, where they are known.
        preprocessing: `Preprocessing.to_dict()`, where it is known.
    """
    return {
        "hyper_parameters": {
            "members": [dict(description) for description in descriptions],
            "temperature": float(temperature),
        },
        "lightning_recipes": {
            "class_path": CLASS_PATH,
            "class_names": None if class_names is None else list(class_names),
            "preprocessing": None if preprocessing is None else dict(preprocessing),
        },
        "pytorch-lightning_version": lightning.__version__,
    }


def agree_on_classes(
    members: Iterable[tuple[str, Sequence[str] | None, int | None]],
) -> list[str] | None:
    """Return the class names that the members share, None where none of them knows.

    Args:
        members: Name, class names and number of classes of each, None where they are not known.

    Raises:
        UserError: Two of them differ.
    """
    first: tuple[str, Sequence[str]] | None = None
    counted: tuple[str, int] | None = None
    for name, classes, count in members:
        count = count if classes is None else len(classes)
        if count is not None and counted is not None and count != counted[1]:
            raise UserError(
                f"{counted[0]} has {counted[1]} classes, {name} has {count}. The members of an ensemble "
                "share their classes: leave one of the two out."
            )
        if classes is not None and first is not None and list(classes) != list(first[1]):
            here, there = next(
                (a, b) for a, b in zip(first[1], classes, strict=True) if a != b
            )  # of the same number, in another order or by other names
            raise UserError(
                f"{first[0]} and {name} name their classes differently: {here!r} against {there!r} at the "
                "same place. Leave one of the two out, or train it on the other's classes."
            )
        counted = counted if count is None or counted is not None else (name, count)
        first = first if classes is None or first is not None else (name, classes)
    return None if first is None else list(first[1])


def agree_on_preprocessing(
    members: Iterable[tuple[str, Mapping[str, Any] | None]],
) -> dict[str, Any] | None:
    """Return how the members' images are made, None where none of them says.

    Args:
        members: Name and `Preprocessing.to_dict()` of each, None where it is not known.

    Raises:
        UserError: Two of them differ: one loader feeds them all.
    """
    first: tuple[str, Mapping[str, Any]] | None = None
    for name, stored in members:
        if stored is None:
            continue
        if first is None:
            first = name, stored
            continue
        for key in {**first[1], **stored}:
            one, two = first[1].get(key), stored.get(key)
            if not _same(one, two):
                raise UserError(
                    f"{first[0]} and {name} were trained on images that were made differently: `{key}` is "
                    f"{_shown(one)} against {_shown(two)}. One loader feeds all members: train them with the "
                    "same `data.image_size`, `data.crop_pct` and `data.normalize`, on the same split."
                )
    return None if first is None else dict(first[1])


def short_names(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return what to call the members of these files: folder and name, and more folders where two are alike.

    Raises:
        UserError: They are one path instead of several.

    >>> short_names(["runs/a/best.ckpt", "runs/b/best.ckpt"])
    ['a/best', 'b/best']
    >>> short_names(["a/checkpoints/1.ckpt", "b/checkpoints/1.ckpt"])
    ['a/checkpoints/1', 'b/checkpoints/1']
    """
    if isinstance(paths, (str, os.PathLike)):
        raise UserError(f"`paths` must be a list of checkpoints, got {paths!r}. Give [{str(paths)!r}].")
    parts = [(*Path(path).parent.parts, Path(path).stem) for path in paths]
    names: list[str] = []
    for depth in range(2, max(map(len, parts), default=0) + 3):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(set(parts)):
            break
    return names


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a checkpoint as plain data, on the CPU.

    Raises:
        UserError: There is no such file, or it cannot be read as plain data.
    """
    if Path(path).is_dir():
        raise UserError(
            f"A member must be a checkpoint, got {path}, a folder. Give its files: {path}/*.ckpt."
        )
    if not Path(path).is_file():
        raise UserError(f"A member must be a checkpoint, got {path}, which is not there.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if isinstance(error, (EOFError, OSError)) or "central directory" in str(error):
            raise UserError(f"{path} is empty or cut off: it cannot be read as a checkpoint.") from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path} cannot be read as a checkpoint of plain data: {reason} Where its hyperparameters are "
            "objects, build the members in Python: `EnsembleClassifier([...])`."
        ) from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path} is no checkpoint of Lightning's: it holds a {type(checkpoint).__name__}.")
    return checkpoint


def _num_classes(checkpoint: Mapping[str, Any]) -> int | None:
    count = (checkpoint.get("hyper_parameters") or {}).get("num_classes")
    return count if isinstance(count, int) else None


def _shown(value: Any) -> Any:  # noqa: ANN401 - plain data
    return f"a tensor {tuple(value.shape)} of mean {value.mean():.4g}" if isinstance(value, Tensor) else value


def _same(one: Any, two: Any) -> bool:  # noqa: ANN401 - plain data
    if isinstance(one, Tensor) or isinstance(two, Tensor):
        return (
            isinstance(one, Tensor)
            and isinstance(two, Tensor)
            and one.shape == two.shape
            and bool((one - two).abs().max() <= _RELATIVE * one.abs().max())
        )
    if isinstance(one, (list, tuple)):
        return (
            isinstance(two, (list, tuple))
            and len(one) == len(two)
            and all(_same(a, b) for a, b in zip(one, two, strict=True))
        )
    if isinstance(one, (int, float)) and isinstance(two, (int, float)):
        return abs(one - two) <= _RELATIVE * max(abs(one), abs(two))
    return bool(one == two)
