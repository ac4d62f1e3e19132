"""A scheduler gives each layer its share of what it would have given all, at every step of the run."""

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.swa_utils import SWALR

from lightning_recipes.schedules import SHAPES, Schedule
from lightning_recipes.transfer import Share, layerwise_rates, rate_shares, scale_peaks, schedulers_of
from lightning_recipes.transfer.depth import Depths
from lightning_recipes.utils.errors import UserError

STEPS = 12
S = torch_schedulers


def sequential(*parts):
    def build(optimizer):
        made = [part(optimizer) for part in parts]
        return S.SequentialLR(optimizer, made, [4 * n for n in range(1, len(made))])

    return build


SCHEDULERS = {
    "OneCycleLR": lambda o: S.OneCycleLR(o, 0.7, STEPS),
    "OneCycleLR in three phases": lambda o: S.OneCycleLR(o, 0.7, STEPS, three_phase=True, pct_start=0.4),
    "CyclicLR": lambda o: S.CyclicLR(o, 0.01, 0.7, step_size_up=3, mode="triangular2"),
    "CosineAnnealingLR": lambda o: S.CosineAnnealingLR(o, STEPS),
    "CosineAnnealingWarmRestarts": lambda o: S.CosineAnnealingWarmRestarts(o, 5),
    "StepLR": lambda o: S.StepLR(o, 5),
    "ExponentialLR": lambda o: S.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: S.PolynomialLR(o, STEPS, 2.0),
    "LambdaLR": lambda o: S.LambdaLR(o, lambda step: 1 / (1 + step)),
    "warm-up and cosine": sequential(
        lambda o: S.LinearLR(o, 0.1, total_iters=4), lambda o: S.CosineAnnealingLR(o, 8)
    ),
    "warm-up and one cycle": sequential(
        lambda o: S.LinearLR(o, 0.1, total_iters=4), lambda o: S.OneCycleLR(o, 0.7, 8)
    ),
    "SWALR": lambda o: SWALR(o, 0.2, anneal_epochs=5),
    "a constant rate and SWALR": sequential(
        lambda o: S.ConstantLR(o, 0.5, 2), lambda o: SWALR(o, 0.2, anneal_epochs=5)
    ),
    "ChainedScheduler": lambda o: S.ChainedScheduler([S.ConstantLR(o, 0.5, 4), S.ExponentialLR(o, 0.9)]),
    **{f"our {s}": lambda o, s=s: Schedule(o, STEPS, shape=s, epochs=100) for s in SHAPES},
    "our cosine behind a warm-up": lambda o: Schedule(o, STEPS, shape="cosine", warmup=0.3),
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
        self.head = nn.Linear(1, 1, bias=False)


def shares(net):
    layers = {"0.weight": 0, "1.weight": 1}
    lies = Depths(layers, layers, ["0", "1"])
    return rate_shares(net.backbone, lies, backbone_scale=0.1, layer_decay=0.5)


SCALES = torch.tensor([0.05, 0.1, 1.0], dtype=torch.float64)  # of the parameters of `Net`, in their order


def rates(net, optimizer, scheduler):
    """Return the rate of each parameter at each step."""
    course = []
    for step in range(STEPS):
        found = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        course.append([found[id(p)] for p in net.parameters()])
        optimizer.step()
        if step < STEPS - 1:
            plateau = isinstance(scheduler, S.ReduceLROnPlateau)
            scheduler.step(*([1.0] if plateau else []))
    return torch.tensor(course, dtype=torch.float64)


OPTIMIZERS = {"SGD": lambda p: SGD(p, 0.5, momentum=0.9), "AdamW": lambda p: AdamW(p, 0.5)}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_ratios_hold_over_the_whole_run(name, optimizer):
    plain, cut = Net(), Net()
    one = OPTIMIZERS[optimizer](plain.parameters())
    expected = rates(plain, one, SCHEDULERS[name](one))
    with layerwise_rates(shares(cut)) as cuts:
        two = OPTIMIZERS[optimizer](cut.parameters())
        scheduler = SCHEDULERS[name](two)
    scale_peaks(schedulers_of({"optimizer": two, "lr_scheduler": {"scheduler": scheduler}}), cuts)
    found = rates(cut, two, scheduler)
    # float64, with products and sums in another order over a dozen steps
    torch.testing.assert_close(found, expected * SCALES, rtol=1e-9, atol=1e-12)


def cut_with(build, lr=0.5):
    net = Net()
    with layerwise_rates(shares(net)) as cuts:
        optimizer = SGD(net.parameters(), lr)
        scheduler = build(optimizer)
    scale_peaks(schedulers_of([[optimizer], [scheduler]]), cuts)
    return net, optimizer, scheduler


def test_a_plateau_s_floor_is_shared_out():
    net, optimizer, scheduler = cut_with(lambda o: S.ReduceLROnPlateau(o, patience=0, factor=0.5, min_lr=0.2))
    course = rates(net, optimizer, scheduler)
    torch.testing.assert_close(course / course[:, 2:], SCALES.expand(STEPS, 3))
    assert course[-1, 2] == 0.2


def test_peaks_that_were_given_group_by_group_stay():
    def build(optimizer):
        return S.OneCycleLR(optimizer, [3 * group["lr"] for group in optimizer.param_groups], STEPS)

    net, optimizer, scheduler = cut_with(build)
    assert [group["max_lr"] for group in optimizer.param_groups] == pytest.approx([1.5, 0.15, 0.075])
    course = rates(net, optimizer, scheduler)
    torch.testing.assert_close(course / course[:, 2:], SCALES.expand(STEPS, 3))


def test_an_optimizer_of_the_backbone_alone_has_its_share_of_the_peak():
    net = Net()
    with layerwise_rates(shares(net)) as cuts:
        one, two = SGD(net.backbone[1].parameters(), 0.5), SGD(net.head.parameters(), 0.5)
        schedulers = [S.OneCycleLR(optimizer, 0.7, STEPS, cycle_momentum=False) for optimizer in (one, two)]
    scale_peaks(schedulers_of(([one, two], schedulers)), cuts)
    assert [optimizer.param_groups[0]["max_lr"] for optimizer in (one, two)] == pytest.approx([0.07, 0.7])


@pytest.mark.parametrize("name", ["OneCycleLR", "CyclicLR", "SWALR", "CosineAnnealingLR"])
def test_two_backbones_have_their_shares_of_the_peak(name):
    plain, cut = Net(), Net()
    one = SGD(plain.parameters(), 0.5, momentum=0.9)
    expected = rates(plain, one, SCHEDULERS[name](one))
    first, second = cut.backbone
    with layerwise_rates({first.weight: Share("backbone", 0.05)}) as outer:
        with layerwise_rates({second.weight: Share("backbone", 0.1)}) as inner:
            two = SGD(cut.parameters(), 0.5, momentum=0.9)
            scheduler = SCHEDULERS[name](two)
        scale_peaks([scheduler], inner)
    scale_peaks([scheduler], outer)
    torch.testing.assert_close(rates(cut, two, scheduler), expected * SCALES, rtol=1e-9, atol=1e-12)


def test_a_floor_above_a_layer_s_rate_is_refused():
    with pytest.raises(UserError, match=r"`eta_min` of CosineAnnealingLR must lie below .* got 0.1"):
        cut_with(lambda o: S.CosineAnnealingLR(o, STEPS, eta_min=0.1))


def test_a_floor_below_all_rates_is_left_as_it_is():
    net, optimizer, scheduler = cut_with(lambda o: S.CosineAnnealingLR(o, STEPS, eta_min=1e-4))
    course = rates(net, optimizer, scheduler)
    assert (course.diff(dim=0) < 0).all()


def test_a_resumed_scheduler_goes_on():
    """A new optimizer and scheduler, scaled again when they are built, and then given the old states."""
    _, optimizer, scheduler = cut_with(lambda o: S.OneCycleLR(o, 0.7, STEPS, cycle_momentum=False))
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    states = optimizer.state_dict(), scheduler.state_dict()
    _, other, resumed = cut_with(lambda o: S.OneCycleLR(o, 0.7, STEPS, cycle_momentum=False))
    other.load_state_dict(states[0])
    resumed.load_state_dict(states[1])
    for each in (scheduler, resumed):
        each.optimizer.step()
        each.step()
    assert [g["lr"] for g in other.param_groups] == [g["lr"] for g in optimizer.param_groups]


@pytest.mark.parametrize(
    "pack",
    [
        lambda o, s: {"optimizer": o, "lr_scheduler": s},
        lambda o, s: {"optimizer": o, "lr_scheduler": {"scheduler": s, "interval": "step"}},
        lambda o, s: ([o], [s]),
        lambda o, s: [[o], [{"scheduler": s}]],
        lambda o, s: ({"optimizer": o, "lr_scheduler": {"scheduler": s}},),
    ],
)
def test_schedulers_are_found_in_every_form_that_lightning_takes(pack):
    optimizer = SGD(Net().parameters(), 0.5)
    scheduler = SCHEDULERS["warm-up and cosine"](optimizer)
    assert list(schedulers_of(pack(optimizer, scheduler))) == [scheduler, *scheduler._schedulers]


@pytest.mark.parametrize("configured", [None, SGD(Net().parameters(), 0.5), [SGD(Net().parameters(), 0.5)]])
def test_without_schedulers_none_is_found(configured):
    assert list(schedulers_of(configured)) == []
