import pytest
from torch.utils.data import DataLoader

from lightning_recipes.diagnosis.examination import Examination
from lightning_recipes.diagnosis.stages import BEFORE_TRAINING
from tests.contract.toys import same

from .toys import (
    ByHand,
    Classifier,
    Draws,
    Gan,
    Mapping,
    Nothing,
    Regression,
    Sometimes,
    Stream,
    fit,
    late_stages,
    state,
)

RUNS = {
    "classifier": (Classifier, {}),
    "draws": (Draws, {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5}),
    "by hand": (ByHand, {}),
    "regression": (Regression, {"precision": "bf16-mixed"}),
    "gan": (Gan, {}),
    "mapping": (Mapping, {"validation": False}),
    "nothing": (Nothing, {}),
    "sometimes": (Sometimes, {}),
    "stream": (Classifier, {"train": DataLoader(Stream(), batch_size=16)}),
}


def examine(trainer, module):
    examination = Examination(trainer, seconds=20)
    examination.run(BEFORE_TRAINING)
    examination.run(late_stages(examination))
    return examination


@pytest.mark.parametrize("name", RUNS)
def test_a_fit_goes_on_as_if_it_had_not_been_examined(name):
    kind, options = RUNS[name]
    plain, _ = fit(kind, **options)
    examined, examination = fit(kind, examine, **options)
    expected, found = state(plain), state(examined)
    assert [key for key in expected if not same(expected[key], found[key])] == []
    ran = [finding.check for finding in examination.findings]
    assert "first step" in ran
    if name in ("classifier", "draws", "mapping", "stream"):
        crashed = [f for f in examination.findings if f.message.startswith("could not run")]
        assert crashed == []


@pytest.mark.parametrize("stage", [name for name, _ in BEFORE_TRAINING])
def test_no_stage_alone_leaves_a_trace(stage):
    """Alone, as the first to look at the data and to copy the module."""
    expected = state(fit(Draws, epochs=1)[0])

    def alone(trainer, module):
        Examination(trainer, seconds=20).run([(stage, dict(BEFORE_TRAINING)[stage])])

    found = state(fit(Draws, alone, epochs=1)[0])
    assert [key for key in expected if not same(expected[key], found[key])] == []
