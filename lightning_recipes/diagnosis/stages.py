"""The stages before the first step, in their order: each stands on what the ones before it gathered."""

from __future__ import annotations

from . import data, layers, loss, overfitting, relevance, static
from .examination import Stage

BEFORE_TRAINING: tuple[tuple[str, Stage], ...] = (
    ("first step", loss.first),
    ("input scale", data.inputs),
    ("labels", data.targets),
    ("validation data", data.validation),
    ("layers", layers.settings),
    ("initial weights", layers.weights),
    ("optimizers", static.optimizers),
    ("schedule", static.schedules),
    ("logits", loss.given),
    ("initial loss", loss.initial),
    ("batch mixing", loss.mixing),
    ("label dependence", data.belonging),
    ("activations", layers.activations),
    ("learning rate", overfitting.rate),
    ("parameters", static.parameters),
    ("overfit", overfitting.by_heart),
    ("reach of inputs", relevance.reach),
    ("input dependence", relevance.learning),
)
_ALL = dict(BEFORE_TRAINING)
INITIAL_LOSS = tuple((name, _ALL[name]) for name in ("first step", "logits", "initial loss"))
OVERFIT = tuple((name, _ALL[name]) for name in ("overfit",))
