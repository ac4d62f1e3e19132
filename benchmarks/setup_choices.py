"""What another activation, initialization or schedule gives, one at a time, against the defaults.

python benchmarks/setup_choices.py
"""

from __future__ import annotations

from typing import Any

from _ablation import Case, compare
from torch.optim import Optimizer

from lightning_recipes import LSUV, Schedule
from lightning_recipes.initialization import zero_residual


def scheduled(shape: str, **options: Any) -> Case:
    """Return the case of a schedule."""

    def build(optimizer: Optimizer, steps: int) -> Schedule:
        return Schedule(optimizer, steps, shape=shape, **options)  # type: ignore[arg-type]

    return Case(model={"schedule": build})


THIRD = {"every": 1 / 3, "unit": "fraction"}
WARM = {"warmup": 0.1}
ACTIVATIONS = ("leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid")
SCHEMES = ("kaiming", "xavier", "glorot", "orthogonal", "normal")
CASES = {
    "defaults": Case(),
    **{f"activation {name}": Case(model={"act": name}) for name in ACTIVATIONS},
    **{f"initialization {name}": Case(model={"init": name}) for name in SCHEMES},
    "initialization LSUV": Case(callbacks=lambda: [LSUV()]),
    "initialization zero-residual": Case(change=lambda model: zero_residual(model.backbone)),
    "schedule constant": scheduled("constant"),
    "schedule linear": scheduled("linear"),
    "schedule cosine": scheduled("cosine"),
    "schedule cosine, warm-up of a tenth": scheduled("cosine", **WARM),
    "schedule cyclic_cosine": scheduled("cyclic_cosine"),
    "schedule step, by thirds": scheduled("step", **THIRD),
    "schedule exponential": scheduled("exponential"),
    "schedule inverse_sqrt, warm-up of a tenth": scheduled("inverse_sqrt", **WARM),
    "schedule inverse_time, warm-up of a tenth": scheduled("inverse_time", **WARM),
}

if __name__ == "__main__":
    compare("setup_choices", CASES)
