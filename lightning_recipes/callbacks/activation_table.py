"""The table of a first batch's activations, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from ..checks.dead_units import SAMPLES
from ..checks.layer_scale import layer_word
from ..evidence.activation_sums import LayerActivations
from ..utils.tables import rows_table

_MOST_ROWS = 32


def activation_table(layers: Sequence[LayerActivations], *, title: str = "Activations at first") -> Table:
    """Return a table with a row a layer: the one by which a bad initialization shows.

    Args:
        layers: In the order of depth; of more than some thirty, evenly spaced ones are shown.
        title: Above the table.

    >>> from ..evidence.activations import recording
    >>> import torch
    >>> with recording(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh())) as record:
    ...     pass
    >>> activation_table(record.read()).row_count
    0
    """
    rows = min(_MOST_ROWS, len(layers))
    shown = [layers[round(i * (len(layers) - 1) / max(rows - 1, 1))] for i in range(rows)]
    samples = layers[0].samples if layers else 0
    notes = ["spread: standard deviation of a unit between samples and positions"]
    notes += [f"dead: units that are zero on all of {samples} samples"]
    if rows < len(layers):
        notes.append(f"{rows} of {len(layers)} layers")
    columns = ["layer", "kind", "mean", "std", "spread", "zero", "dead", "at bounds", ""]
    cells = [
        [
            layer.name,
            layer.kind,
            f"{layer.mean:.2f}",
            _number(layer.std),
            _number(layer.spread),
            f"{layer.zero:.0%}",
            f"{layer.dead:.0%}" if layer.kind == "relu" else "–",
            "–" if layer.saturated is None else f"{layer.saturated:.0%}",
            "gate" if layer.gate else _word(layer, layers[0]),
        ]
        for layer in shown
    ]
    return rows_table(columns, cells, title=title, notes=notes)


def _number(value: float) -> str:
    return f"{value:.2f}" if not 0 < value < 0.01 else f"{value:.0e}"


def _word(layer: LayerActivations, first: LayerActivations) -> str:
    bounded = layer.saturated is not None and first.saturated is not None
    return layer_word(  # a sigmoid's units keep values of their own when the samples have become alike
        std=layer.spread if bounded else layer.std,
        first_std=first.spread if bounded else first.std,
        dead=layer.dead - layer.silent if layer.can_die and layer.unit_samples >= SAMPLES else None,
        saturated=layer.saturated,
    )
