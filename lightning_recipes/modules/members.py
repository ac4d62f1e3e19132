"""A member of an ensemble, between the module and the plain data that rebuilds it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from ..ensembles import member_description
from ..preprocessing import Preprocessing
from ..utils.classes import import_class
from ..utils.errors import UserError
from .portable import ELSEWHERE, PortableModule

_PLAIN = (type(None), bool, int, float, str)


@dataclass(frozen=True)
class Member:
    """A module, and what it says of itself.

    Args:
        name: What to call it.
        module: From images to logits.
        class_names: Its classes, None where it does not know them.
        num_classes: K, None where it does not say.
        multi_label: Whether several classes may hold at once.
        preprocessing: `Preprocessing.to_dict()`, None where it is not known.
    """

    name: str
    module: nn.Module
    class_names: list[str] | None
    num_classes: int | None
    multi_label: bool
    preprocessing: dict[str, Any] | None


def open_members(members: Sequence[nn.Module | Mapping[str, Any]]) -> list[Member]:
    """Return the members of an ensemble; a description becomes a module with fresh weights.

    Args:
        members: Modules, or what `describe_member` returned.

    Raises:
        UserError: A class that cannot be imported or built.
    """
    opened = []
    for number, member in enumerate(members):
        described = not isinstance(member, nn.Module)
        module = build_member(member) if isinstance(member, Mapping) else member
        name = member["name"] if isinstance(member, Mapping) else f"member {number}"
        hparams = module.hparams if isinstance(module, LightningModule) else {}
        count, names = hparams.get("num_classes"), getattr(module, "class_names", None)
        own = getattr(module, "preprocessing", None)
        opened.append(
            Member(
                name,
                module,
                None if described or names is None else list(names),  # the file has what they were trained on
                count if isinstance(count, int) else None,
                bool(hparams.get("multi_label", False)),
                own.to_dict() if isinstance(own, Preprocessing) else None,
            )
        )
    return opened


def describe_member(member: nn.Module, name: str) -> dict[str, Any]:
    """Return what rebuilds `member`: the import path of its class, and its hyperparameters.

    Args:
        member: A LightningModule that saves all hyperparameters that it needs, such as `ImageClassifier`.
        name: What to call it.

    Raises:
        UserError: It cannot be rebuilt from plain data.
    """
    kind = type(member)
    class_path = f"{kind.__module__}.{kind.__qualname__}"
    hparams = dict(member.hparams) if isinstance(member, LightningModule) else {}
    if isinstance(member, PortableModule):
        hparams |= ELSEWHERE
    try:
        known = import_class(class_path) is kind
    except (ImportError, AttributeError):
        known = False
    missing = _required(kind) - set(hparams)
    if not known or missing or not _is_plain(hparams):
        why = (
            "its class cannot be imported"
            if not known
            else f"its hyperparameters lack {', '.join(sorted(missing))}"
            if missing
            else "its hyperparameters are not plain data"
        )
        raise UserError(
            f"The ensemble cannot be saved: {name}, a {kind.__name__}, cannot be rebuilt from a file: "
            f"{why}. Make it a LightningModule that can be imported and calls `save_hyperparameters` with "
            "plain values; or keep the members' checkpoints and use `from_checkpoints(..., build=...)`."
        )
    return member_description(class_path, hparams, name)


def build_member(
    description: Mapping[str, Any], *, build: Callable[[], nn.Module] | None = None
) -> nn.Module:
    """Return a module of a member's architecture, with fresh weights.

    Args:
        description: By `describe_member` or of a checkpoint.
        build: Makes the module where its class is not known.

    Raises:
        UserError: The class is not known, cannot be imported or built, and there is no `build`.
    """
    name, path = description["name"], description["class_path"]
    try:
        if path is None:
            raise ImportError("the checkpoint does not name it")
        kind = import_class(path)
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise ImportError(f"{path} is no nn.Module")
        member: nn.Module = kind(**_accepted(kind, description["hyper_parameters"]))
    except UserError:
        raise
    except Exception as error:  # whatever its constructor raises
        if build is not None:
            return build()
        raise UserError(
            f"The class of {name} cannot be rebuilt from its checkpoint: {error}. Put it on PYTHONPATH, or "
            "give `EnsembleClassifier.from_checkpoints(..., build=...)` a function that returns the module."
        ) from error
    return member


def load_member(member: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load a member's weights.

    Raises:
        UserError: They are another architecture's.
    """
    own = member.state_dict()
    wrong = sorted(
        key
        for key in own.keys() | state.keys()
        if key not in own or key not in state or own[key].shape != state[key].shape
    )
    if wrong:
        raise UserError(
            f"The weights of {name} are not of its {type(member).__name__}: {len(wrong)} of {len(own)} "
            f"tensors do not fit, such as {wrong[0]}. Give `build` a function that returns what was trained."
        )
    member.load_state_dict(state)


def _required(kind: type) -> set[str]:
    """Return the constructor's arguments that have no default."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        name
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.default is parameter.empty and parameter.kind not in variable
    }


def _accepted(kind: type, hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters that the constructor takes: a checkpoint may hold others beside them."""
    parameters = inspect.signature(kind).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return {name: value for name, value in hparams.items() if not name.startswith("_")}
    return {name: value for name, value in hparams.items() if name in parameters}


def _is_plain(value: Any) -> bool:  # noqa: ANN401 - a hyperparameter
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return type(value) in _PLAIN
