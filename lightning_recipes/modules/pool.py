"""Members, what they share, and the file that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from ..ensembles import (
    agree_on_classes,
    agree_on_preprocessing,
    ensemble_header,
)
from ..preprocessing import Normalization, Preprocessing
from ..utils.errors import UserError
from ..utils.files import save_whole
from .members import describe_member, open_members

if TYPE_CHECKING:
    from typing_extensions import Self


class MemberPool(LightningModule):
    """Keeps its members, and all that predicting needs, in its checkpoint; a base of `EnsembleClassifier`.

    Args:
        members: Modules from images to logits, or what describes them in an ensemble's file.
        temperature: Of the mean probabilities, above 0.
        class_names: K names, in place of those that the members know.

    Raises:
        UserError: No members, or members that differ in classes, preprocessing or kind of labels.
    """

    def __init__(
        self,
        members: Sequence[nn.Module | dict[str, Any]],
        *,
        temperature: float = 1.0,
        class_names: list[str] | None = None,
    ) -> None:
        super().__init__()
        if not members:
            raise UserError("An ensemble needs at least one member, got none.")
        if not temperature > 0:
            raise UserError(f"`temperature` must be above 0, got {temperature}. 1 changes nothing.")
        for member in members:
            if isinstance(member, (str, PathLike)):
                raise UserError(f"Members are modules, got the path {member!r}. Take `from_checkpoints`.")
        self.temperature = temperature
        opened = open_members(members)
        self.names = [member.name for member in opened]
        self.members = nn.ModuleList(member.module for member in opened).requires_grad_(False).eval()
        kinds = {member.multi_label: member.name for member in opened}
        if len(kinds) > 1:
            raise UserError(
                f"{kinds[True]} gives several labels an image, {kinds[False]} gives one. Leave one of "
                "the two out."
            )
        self.multi_label = True in kinds
        asked = [("`class_names`", class_names, None)] if class_names else []
        known = [(m.name, None if class_names else m.class_names, m.num_classes) for m in opened]
        shared = agree_on_classes([*asked, *known])
        count = next((m.num_classes for m in opened if m.num_classes is not None), 0)
        self.class_names = class_names or shared or [str(number) for number in range(count)]
        stored = agree_on_preprocessing((m.name, m.preprocessing) for m in opened)
        self.preprocessing = None if stored is None else Preprocessing.from_dict(stored)

    @property
    def normalization(self) -> Normalization | None:
        """What the members were trained with; `ImageDataModule` reads it."""
        return None if self.preprocessing is None else self.preprocessing.normalization

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but the members, which stay in eval mode."""
        super().train(mode)
        self.members.eval()
        return self

    def save(self, path: str | PathLike[str]) -> None:
        """Write the file of the ensemble: all at once, or not at all.

        Raises:
            UserError: A member cannot be rebuilt from plain data.
        """
        save_whole({"state_dict": _own(self.state_dict()), **self._header()}, path)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make a checkpoint of the Trainer's the file of the ensemble."""
        checkpoint |= {**self._header(), "state_dict": _own(checkpoint["state_dict"])}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back temperature, class names and preprocessing.

        Raises:
            UserError: The checkpoint is not of such members.
        """
        own, weights = self.state_dict(), checkpoint["state_dict"]
        wrong = [key for key in own if key not in weights or weights[key].shape != own[key].shape]
        if self.strict_loading and wrong:
            raise UserError(
                f"The checkpoint is not of this ensemble's {len(self.members)} members: {len(wrong)} of "
                f"{len(own)} tensors do not fit, such as {wrong[0]}. Load it by "
                "`EnsembleClassifier.load_from_checkpoint`."
            )
        stored = checkpoint["hyper_parameters"]
        self.temperature = stored["temperature"]
        self._take(checkpoint["lightning_recipes"], [member["name"] for member in stored["members"]])
        self.class_names = stored.get("class_names") or self.class_names  # given to `load_from_checkpoint`

    def _header(self) -> dict[str, Any]:
        described = [describe_member(m, name) for m, name in zip(self.members, self.names, strict=True)]
        own = self.preprocessing
        return ensemble_header(
            described,
            temperature=self.temperature,
            class_names=self.class_names or None,
            preprocessing=None if own is None else own.to_dict(),
        )

    def _take(self, stored: dict[str, Any], names: list[str]) -> None:
        self.names, self.class_names = names, stored["class_names"] or self.class_names
        if stored["preprocessing"] is not None:
            self.preprocessing = Preprocessing.from_dict(stored["preprocessing"])


def _own(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors without the rest of the stack that they are views of: a file would hold all of it."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}
