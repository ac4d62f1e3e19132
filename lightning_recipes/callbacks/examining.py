"""What callbacks that examine a run before its first step have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from ..checks import Finding
from ..diagnosis.examination import Examination, Stage
from ..diagnosis.verdict import weighed
from ..utils.errors import UserError


class Examining(Callback):
    """Run stages of the examination before the first batch of a fit, on copies, and say what they find.

    A run that is resumed has been examined. With several processes the first one examines its own batches
    and tells the others.

    Args:
        seconds: That the stages may take together.
        strict: Whether a WARN or a FAIL ends the run; else it is warned of.

    Raises:
        UserError: `seconds` is not above 0.
    """

    stages: ClassVar[Sequence[tuple[str, Stage]]] = ()

    def __init__(self, *, seconds: float, strict: bool) -> None:
        if not seconds > 0:
            raise UserError(f"`seconds` must be above 0, got {seconds}. A minute examines a small network.")
        self.seconds, self.strict = seconds, strict
        self._reset()

    def _reset(self) -> None:
        self._found: list[Finding] = []
        self._examined = False
        self._examination: Examination | None = None

    @property
    def findings(self) -> list[Finding]:
        """What was found so far, worst first."""
        return weighed(self._found)

    @property
    def state_key(self) -> str:
        """Apart for strict and lenient ones."""
        return self._generate_state_key(strict=self.strict)

    def state_dict(self) -> dict[str, Any]:
        """Return what was found."""
        return {"examined": self._examined, "findings": [finding.to_dict() for finding in self._found]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was found before the run was cut off."""
        self._examined = state_dict["examined"]
        self._found = [Finding(**finding) for finding in state_dict["findings"]]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew; a resumed fit then loads what was found."""
        if stage == "fit":
            self._reset()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Come before callbacks that watch the first batch, so that they see nothing of the copies."""
        trainer.callbacks = sorted(trainer.callbacks, key=lambda c: not isinstance(c, Examining))  # type: ignore[attr-defined]

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401 - batches have any form
        batch_idx: int,
    ) -> None:
        """Examine the run, once, when all is set up and nothing has been trained."""
        if self._examined:
            return
        self._examined = True
        if trainer.global_step > 0:
            self._found = [Finding("examination", "SKIP", "The run had begun already.")]
            return
        self._examination = Examination(trainer, seconds=self.seconds)
        if trainer.is_global_zero:
            self._examination.run(self.stages)
        self._found = self._shared(trainer, self._examination.findings)
        self.report(trainer)

    def report(self, trainer: Trainer) -> None:
        """Warn of what is wrong, or end the run.

        Raises:
            UserError: The callback is strict, and something is wrong.
        """
        alarms = [finding for finding in self.findings if finding.status in ("FAIL", "WARN")]
        if not alarms:
            return
        said = f"{type(self).__name__}: " + " ".join(sentence(finding) for finding in alarms)
        if self.strict:
            raise UserError(f"{said} To go on all the same, set `strict` to false.")
        rank_zero_warn(said)

    def _shared(self, trainer: Trainer, findings: list[Finding]) -> list[Finding]:
        """Return the findings of the first process, on all."""
        if trainer.world_size == 1:
            return list(findings)
        plain = trainer.strategy.broadcast([finding.to_dict() for finding in findings])
        return [Finding(**finding) for finding in plain]


def sentence(finding: Finding) -> str:
    """Return a finding as one or two sentences.

    >>> sentence(Finding("dropout", "WARN", "It drops 95 %.", causes=("dropout-too-strong",)))[:47]
    'dropout (WARN): It drops 95 %. Set the dropout '
    """
    message = finding.message if finding.message.endswith(".") else finding.message + "."
    return f"{finding.check} ({finding.status}): {message} {finding.advice}".strip()
