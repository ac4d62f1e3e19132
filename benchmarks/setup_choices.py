"""What another activation, initialization or schedule gives, one at a time, against the defaults.

Result (mean ± sd over 3 seeds, each with its own 20 images a class; test split, 10,000 images; accuracy %,
NLL nats; at the right, differences to the defaults, which are ReLU, timm's weights and one_cycle, by seed):

    defaults                                     72.2 ± 0.7   0.861 ± 0.019
    activation leaky_relu                        72.2 ± 1.0   0.864 ± 0.027   -0.1 ± 0.2   +0.003 ± 0.011
    activation elu                               72.4 ± 1.1   0.909 ± 0.033   +0.2 ± 0.4   +0.048 ± 0.029
    activation selu                              71.8 ± 1.8   0.967 ± 0.067   -0.4 ± 1.1   +0.106 ± 0.051
    activation gelu                              71.7 ± 0.5   0.879 ± 0.021   -0.5 ± 0.2   +0.018 ± 0.002
    activation silu                              71.8 ± 1.4   0.894 ± 0.042   -0.3 ± 0.7   +0.033 ± 0.028
    activation tanh                              73.5 ± 1.1   0.842 ± 0.034   +1.3 ± 0.5   -0.019 ± 0.019
    activation sigmoid                           73.3 ± 1.8   0.892 ± 0.032   +1.1 ± 1.1   +0.031 ± 0.018
    initialization kaiming                       70.0 ± 0.8   0.977 ± 0.030   -2.2 ± 0.2   +0.116 ± 0.030
    initialization xavier                        71.3 ± 1.1   0.931 ± 0.048   -0.9 ± 0.4   +0.070 ± 0.039
    initialization glorot                        70.9 ± 0.9   0.966 ± 0.034   -1.3 ± 0.3   +0.105 ± 0.032
    initialization orthogonal                    72.0 ± 1.2   0.889 ± 0.034   -0.2 ± 1.1   +0.028 ± 0.041
    initialization normal                        74.8 ± 1.3   0.827 ± 0.039   +2.6 ± 0.6   -0.034 ± 0.026
    initialization LSUV                          69.4 ± 1.9   0.972 ± 0.049   -2.8 ± 1.6   +0.111 ± 0.061
    initialization zero-residual                 72.2 ± 0.7   0.861 ± 0.019   +0.0 ± 0.0   +0.000 ± 0.000
    schedule constant                            71.9 ± 0.9   0.948 ± 0.016   -0.3 ± 0.5   +0.087 ± 0.006
    schedule linear                              71.6 ± 0.9   0.885 ± 0.020   -0.6 ± 0.4   +0.024 ± 0.001
    schedule cosine                              71.3 ± 1.0   0.893 ± 0.022   -0.9 ± 0.4   +0.032 ± 0.006
    schedule cosine, warm-up of a tenth          71.9 ± 0.8   0.866 ± 0.021   -0.3 ± 0.2   +0.004 ± 0.011
    schedule cyclic_cosine                       71.4 ± 1.0   0.890 ± 0.031   -0.8 ± 0.5   +0.029 ± 0.012
    schedule step, by thirds                     71.4 ± 1.0   0.866 ± 0.031   -0.8 ± 0.7   +0.005 ± 0.013
    schedule exponential                         71.5 ± 0.8   0.918 ± 0.023   -0.7 ± 0.3   +0.057 ± 0.004
    schedule inverse_sqrt, warm-up of a tenth    71.0 ± 0.8   0.872 ± 0.030   -1.2 ± 0.1   +0.011 ± 0.011
    schedule inverse_time, warm-up of a tenth    69.4 ± 0.7   0.951 ± 0.040   -2.8 ± 1.0   +0.090 ± 0.028

So small a set, and so short a run (240 steps), is no verdict on a choice; each was taken as it comes, and
none was tuned. Zero-residual changes nothing, for timm's ResNets begin so.

All: test_resnet (0.37 million parameters) at 32 x 32, no augmentation, batches of 32, 40 epochs; AdamW with a
rate of 2e-3 and no decay. AMD EPYC, 2 cores, one thread; python 3.11.7, torch 2.15.0, lightning 2.6.6, timm
1.0.31; results/setup_choices.csv, whose values are means with standard deviations.

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
