"""The first batches: what the loss is given, and what comes back from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from ..checks import Finding, worst_first
from ..checks.batch_mixing import FLOAT32, batch_mixing, moved_rows
from ..checks.initial_loss import initial_loss, label_independence
from ..checks.label_smoothing import label_smoothing
from ..checks.logit_gradient import logit_gradient
from ..checks.logits import logits
from ..evidence.batches import inputs_of, size_of, take, with_inputs
from ..evidence.first_batches import FirstBatches, first_batches, loss_of
from ..evidence.loss_calls import BINARY, REGRESSION, LossCall, LossCalls, rows_of
from ..evidence.trials import CannotTry
from ..utils.rng import seed_generators
from .errors import error_finding
from .examination import Examination

INDEPENDENCE_SAMPLES = 128


def first(examination: Examination) -> Iterator[Finding]:
    """Hand the first batches to a copy, and say whether its step works at all.

    Raises:
        CannotTry: The loader gives no batch; what it raises itself goes on.
    """
    batches = examination.train.batches
    if not batches:
        raise examination.train.error or CannotTry("the training loader gives no batch")
    seen = first_batches(examination.trials, batches, deadline=examination.until("first batches"))
    examination.first = seen
    error = seen.outcome.error if seen.outcome is not None else None
    if error is not None and not seen.losses:
        yield error_finding(error)
        return
    loss = next((loss for loss in seen.losses if loss is not None), None)
    automatic = examination.module.automatic_optimization
    if automatic and loss is None:
        said = f"The training step returns no loss in {len(seen.losses)} batches; Lightning leaves them out."
        yield Finding("first step", "SKIP", said)
    elif automatic and not any(seen.differentiable):
        said = "The loss does not depend on any weight that is trained."
        causes = ("loss-detached", "detached-backbone", "frozen-backbone")
        yield Finding("first step", "FAIL", said, {}, causes)
    elif error is not None:
        yield error_finding(error)
    else:
        names = sorted({call.name for calls in seen.calls for call in calls.seen})
        called = ", ".join(names) or "no function that is known"
        said = f"The step works on {len(seen.losses)} batches; the loss calls {called}."
        yield Finding("first step", "PASS", said, {"losses": names})


def initial(examination: Examination) -> Iterator[Finding]:
    """The size of the first loss, and whether it knows the labels."""
    seen = _seen(examination)
    calls = seen.classification()
    main = _main_calls(seen)
    if not main:
        value = next((loss for loss in seen.losses if loss is not None), None)
        said = "No loss over classes was called"
        if value is not None:
            said += f"; the step returns {float(value):.4g}"
        yield Finding("initial loss", "SKIP", f"{said}.")
        return
    call = main[0]
    first_loss = sum(float(c.value.mean()) for c in main) / len(main)
    rows = [rows_of(c.inputs).double() for c in main]
    spreads = [z.var(1).mean() for z in rows if z.dim() == 2 and z.shape[1] > 1]
    spread = float(torch.stack(spreads).mean()) if spreads else 0.0
    yield initial_loss(
        first_loss,
        name=call.name,
        num_classes=call.logits.shape[1] if call.inputs.dim() > 1 else 2,
        rows=len(call.logits),
        reduction=call.reduction,
        spread=spread,
        trained=examination.trained,
    )
    plain = [(c, labels) for c, labels, mixed in calls if labels is not None and not mixed]
    if not plain:
        yield Finding("label independence", "SKIP", "There is no single label for each row of logits.")
        return
    width = plain[0][0].logits.shape[1]
    alike = [(c, labels) for c, labels in plain if c.logits.shape[1] == width]
    z = torch.cat([c.logits for c, _ in alike])[:INDEPENDENCE_SAMPLES]
    given = torch.cat([labels for _, labels in alike])[:INDEPENDENCE_SAMPLES]
    valid = (given >= 0) & (given < width)
    yield label_independence(z[valid].float(), given[valid], trained=examination.trained)


def given(examination: Examination) -> Iterator[Finding]:
    """What the loss function was given, and the derivative at it."""
    seen = _seen(examination)
    calls = seen.classification()
    judged: list[Finding] = []
    slopes: list[Finding] = []
    for (call, labels, mixed), direct in zip(calls, _directly(seen), strict=False):
        rows = call.logits
        judged.append(
            logits(rows, name=call.name, made_by=call.made_by, by_model=direct, swapped=call.swapped)
        )
        if call.gradient is not None:
            gradient = rows_of(call.gradient)
            ignored = call.options.get("ignore_index", -100)
            usable = labels if labels is None or not bool((labels == ignored).any()) else None
            # with strong smoothing a right answer may already be too sure
            mixed = mixed or float(call.options.get("label_smoothing") or 0.0) > 0.3
            slopes.append(logit_gradient(gradient, rows, usable, name=call.name, mixed=mixed))
    binary = [c for calls_ in seen.calls for c in calls_.seen if c.name == "binary_cross_entropy_with_logits"]
    judged += [logits(_as_rows(c.inputs), name=c.name, made_by=c.made_by) for c in binary]
    if judged:
        yield worst_first(judged)[0]
    else:
        yield Finding("logits", "SKIP", "No loss over classes was called.")
    if slopes:
        yield worst_first(slopes)[0]
    smoothing = [call.options.get("label_smoothing") or 0.0 for call, _, _ in calls]
    soft = [
        rows_of(c.targets) for c, _, _ in calls if c.targets is not None and c.targets.is_floating_point()
    ]
    if smoothing:
        yield label_smoothing(max(smoothing) if max(smoothing) > 0 or not soft else torch.cat(soft))
    yield from _squared_error_of_classes(seen)


def mixing(examination: Examination) -> Iterator[Finding]:
    """Exchange one sample, all in eval mode, and see whether other samples' outputs move.

    Raises:
        CannotTry: There are too few samples, no inputs, or no known loss.
    """
    seen = _seen(examination)
    batch = take(seen.batches[0], slice(8))
    inputs = inputs_of(batch)
    if size_of(batch) < 4 or inputs is None or not seen.calls:
        raise CannotTry("needs batches of 4 samples with inputs")
    if any(call.contrastive for call in seen.calls[0].seen):
        said = "A contrastive loss compares the samples of a batch on purpose."
        yield Finding("batch mixing", "SKIP", said)
        return
    calls = seen.classification()
    if not calls and not any(c.name in BINARY + REGRESSION for cs in seen.calls for c in cs.seen):
        raise CannotTry("no known loss was called")
    if calls and calls[0][2]:
        said = "Targets are mixed within the batch, so outputs may be, too."
        yield Finding("batch mixing", "SKIP", said)
        return
    index = 1
    single = _moved(examination, batch, index, torch.float32)
    double = _moved(examination, batch, index, torch.float64) if single > FLOAT32 else None
    yield batch_mixing(single, double)


def _moved(examination: Examination, batch: Any, index: int, dtype: torch.dtype) -> float:  # noqa: ANN401
    """Return how far other rows move when the sample at `index` is exchanged for another one."""
    rows: list[Tensor] = []

    def exchanged(inputs: Tensor) -> Tensor:
        inputs = inputs.clone()
        inputs[index] = inputs[index].flip(-1) * 1.5 + 0.3
        return inputs

    def prepare(module: LightningModule) -> None:
        module.to(dtype)

    def step(module: LightningModule, own: Any, given: Any, _: int) -> Any:  # noqa: ANN401
        module.eval()
        given = with_inputs(given, lambda x: x.to(dtype))
        for each in (given, with_inputs(given, exchanged)):
            seed_generators(0)
            with LossCalls() as calls:
                output = own(each)
            call = next(iter(calls.classification() or calls.seen))
            rows.append(call.inputs if call.inputs.dim() > 1 else call.inputs[:, None])
        return loss_of(output)

    outcome = examination.trials.run([batch], 1, step=step, optimizer="held", prepare=prepare)
    if len(rows) < 2:
        raise CannotTry(
            f"with {dtype} and precision {examination.trainer.precision} the step raises {outcome.error}"
        )
    before, after = (r.flatten(1) for r in rows)
    if len(before) != size_of(batch):
        raise CannotTry("the loss is given another number of rows than the batch has samples")
    return moved_rows(before, after, index)


def _seen(examination: Examination) -> FirstBatches:
    if examination.first is None or not examination.first.calls:
        raise CannotTry("the first step did not work")
    return examination.first


def _main_calls(seen: FirstBatches) -> list[LossCall]:
    """Return the first call of each batch whose value can be expected."""
    found = []
    for calls in seen.calls:
        usable = [c for c in calls.classification() if c.name != "log_softmax"]
        usable += [c for c in calls.seen if c.name in BINARY]
        if usable:
            found.append(usable[0])
    return found


def _directly(seen: FirstBatches) -> list[bool]:
    """Return, for each call over classes, whether it was given a layer's very output."""
    return [
        direct
        for calls, direct in zip(seen.calls, seen.modelled, strict=False)
        for _ in calls.classification()
    ]


def _as_rows(inputs: Tensor) -> Tensor:
    return inputs if inputs.dim() == 2 and inputs.shape[1] > 1 else inputs.reshape(-1, 1).expand(-1, 2)


def _squared_error_of_classes(seen: FirstBatches) -> Iterator[Finding]:
    for call in (c for calls in seen.calls for c in calls.seen if c.name == "mse_loss"):
        t = call.targets
        if t is None or t.dim() != 2 or t.shape[1] < 2:
            continue
        if bool(((t == 0) | (t == 1)).all()) and bool((t.sum(1) == 1).all()):
            said = f"The loss is the squared error on one-hot targets of {t.shape[1]} classes."
            yield Finding("loss for classes", "INFO", said, {"loss": "mse_loss"}, ("mse-for-classification",))
            return
