import pytest
import torch
from torch.nn import functional

from lightning_recipes.checks.logit_gradient import logit_gradient
from lightning_recipes.evidence.loss_calls import rows_of

N, K = 32, 10


def given(rows=N, classes=K, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = scale * torch.randn(rows, classes, generator=generator)
    return z.requires_grad_(), torch.randint(classes, (rows,), generator=generator)


def judged(loss, z, y, **options):
    (gradient,) = torch.autograd.grad(loss, z)
    found = logit_gradient(rows_of(gradient), rows_of(z.detach()), y, name="cross_entropy", **options)
    return found.status, found.causes[:1], found.evidence


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("rows", [1, 4, 8, 32, 256])
def test_a_mean_passes_and_its_factor_is_one_over_n(scale, rows):
    z, y = given(rows, scale=scale)
    status, _, evidence = judged(functional.cross_entropy(z, y), z, y)
    assert status == "PASS"
    assert evidence["of_a_sum"] == pytest.approx(1 / rows, rel=1e-3)
    assert evidence["row_sum"] < 1e-3
    assert evidence["right_sign"] == 1


@pytest.mark.parametrize("rows", [8, 32, 256])
def test_a_sum_fails(rows):
    z, y = given(rows)
    status, causes, evidence = judged(functional.cross_entropy(z, y, reduction="sum"), z, y)
    assert (status, causes) == ("FAIL", ("sum-reduction",))
    assert evidence["of_a_sum"] == pytest.approx(1, rel=1e-3)


def weighted(z, y):
    return functional.cross_entropy(z, y, weight=torch.linspace(0.01, 5, K))


HEALTHY = {
    "weights": weighted,
    "smoothing": lambda z, y: functional.cross_entropy(z, y, label_smoothing=0.1),
    "accumulation": lambda z, y: functional.cross_entropy(z, y) / 8,
    "with an auxiliary loss": lambda z, y: functional.cross_entropy(z, y) * 1.4,
    "tenfold": lambda z, y: 10 * functional.cross_entropy(z, y),
    "focal": lambda z, y: (
        (1 - z.softmax(1).gather(1, y[:, None])) ** 2 * -z.log_softmax(1).gather(1, y[:, None])
    ).mean(),
    "by hand": lambda z, y: -z.log_softmax(1).gather(1, y[:, None]).mean(),
    "first half": lambda z, y: functional.cross_entropy(z[:16], y[:16]),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_losses_pass(name):
    for seed in range(20):
        z, y = given(seed=seed)
        assert judged(HEALTHY[name](z, y), z, y)[0] == "PASS"


@pytest.mark.parametrize("name", HEALTHY)
def test_each_with_its_sign_flipped_fails(name):
    z, y = given()
    assert judged(-HEALTHY[name](z, y), z, y)[:2] == ("FAIL", ("loss-sign-flipped",))


def test_labels_of_other_samples_fail():
    z, y = given()
    status, causes, _ = judged(functional.cross_entropy(z, y.roll(1)), z, y)
    assert status == "FAIL"
    assert causes[0] in ("loss-sign-flipped", "labels-misaligned")


def test_ignored_rows_and_sequences():
    z, y = given()
    ignored = torch.where(torch.arange(N) < 20, -100, y)
    assert judged(functional.cross_entropy(z, ignored), z, None)[0] == "PASS"
    z = torch.randn(4, K, 7, generator=torch.Generator().manual_seed(1)).requires_grad_()
    y = torch.randint(K, (4, 7), generator=torch.Generator().manual_seed(2))
    assert judged(functional.cross_entropy(z, y), z, y.reshape(-1))[0] == "PASS"
    found = judged(functional.cross_entropy(z, y, reduction="sum"), z, y.reshape(-1))
    assert found[:2] == ("FAIL", ("sum-reduction",))


def test_blends_pass():
    z, y = given()
    loss = 0.4 * functional.cross_entropy(z, y) + 0.6 * functional.cross_entropy(z, y.flip(0))
    assert judged(loss, z, y, mixed=True)[0] == "PASS"


def test_a_right_answer_beyond_doubt_is_no_fault():
    z, y = given()
    sure = (40 * functional.one_hot(y, K).float()).requires_grad_()
    mixed = torch.cat([sure[:20], z[20:]]).detach().requires_grad_()
    assert judged(functional.cross_entropy(mixed, y), mixed, y)[0] == "PASS"


def test_none_and_not_finite():
    z, y = given()
    assert judged((z * 0).sum(), z, y)[:2] == ("FAIL", ("loss-detached",))
    assert judged((z * float("nan")).sum(), z, y)[0] == "FAIL"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    for seed in range(10):
        z, y = given(seed=seed)
        z = z.detach().to(dtype).requires_grad_()
        status, causes, _ = judged(functional.cross_entropy(z, y), z, y)
        assert status == "PASS", causes
