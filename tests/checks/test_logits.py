import pytest
import torch
from torch.nn import functional

from lightning_recipes.checks.logits import BENDING, BOUNDING, logits

HALF = [torch.bfloat16, torch.float16]


def raw(rows=32, classes=10, scale=2.0, seed=0):
    return scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed))


def judged(z, name="cross_entropy", **options):
    found = logits(z, name=name, **options)
    return found.status, found.causes[:1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF])
@pytest.mark.parametrize("classes", [2, 3, 10, 100, 1000])
def test_softmax_before_cross_entropy_in_every_precision(dtype, classes):
    for seed in range(10):
        z = raw(classes=classes, seed=seed).to(dtype).softmax(1)
        assert judged(z) == ("FAIL", ("softmax-before-cross-entropy",))
        assert judged(z.float(), by_model=True) == ("FAIL", ("softmax-in-model",))
        assert judged(z, "log_softmax") == ("FAIL", ("softmax-before-cross-entropy",))


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 30.0])
@pytest.mark.parametrize("rows", [1, 2, 32])
def test_any_logits_pass(classes, scale, rows):
    for seed in range(20):
        z = raw(rows, classes, scale, seed)
        assert judged(z)[0] == "PASS"
        assert judged(z + 5)[0] == "PASS"
        assert judged(z, "log_softmax")[0] == "PASS"
        assert judged(z.bfloat16())[0] == "PASS"
        assert judged(z, "binary_cross_entropy_with_logits")[0] == "PASS"


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_log_probabilities_belong_to_nll(dtype, classes):
    z = raw(classes=classes).to(dtype)
    assert judged(z.log_softmax(1), "nll_loss") == ("PASS", ())
    assert judged(z, "nll_loss") == ("FAIL", ("nll-on-raw-logits",))
    assert judged(z.softmax(1), "nll_loss") == ("FAIL", ("nll-on-raw-logits",))
    assert judged(z.log_softmax(1))[0] == "INFO"


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_softmax_over_the_batch(name):
    z = raw(classes=7)
    over = z.softmax(0) if name == "cross_entropy" else z.log_softmax(0)
    assert judged(over, name) == ("FAIL", ("softmax-over-batch",))
    assert judged(raw(1, 7).softmax(0), "cross_entropy")[1] != ("softmax-over-batch",)  # of one row: all ones


@pytest.mark.parametrize("made", BOUNDING)
def test_bounded_logits_fail(made):
    assert judged(raw(), made_by=(made,)) == ("FAIL", ("activation-on-logits",))
    assert judged(raw(), made_by=("other", made))[0] == "PASS"


@pytest.mark.parametrize("made", BENDING)
def test_bent_logits_warn(made):
    assert judged(getattr(functional, made)(raw()), made_by=(made,)) == ("WARN", ("activation-on-logits",))


def test_relu_is_seen_by_its_zeros():
    assert judged(raw().relu()) == ("FAIL", ("activation-on-logits",))
    assert judged(torch.zeros(32, 10))[0] == "PASS"  # a zero-initialised head


@pytest.mark.parametrize("made", ["sigmoid", "softmax"])
def test_sigmoid_before_a_loss_that_takes_it(made):
    found = judged(raw().sigmoid(), "binary_cross_entropy_with_logits", made_by=(made,))
    assert found == ("FAIL", ("sigmoid-before-loss",))


def test_what_cannot_be_judged():
    assert judged(torch.full((4, 3), float("nan")))[0] == "SKIP"
    assert judged(torch.zeros(4, 1))[0] == "SKIP"
