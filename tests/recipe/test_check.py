import copy
import json
import random
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_recipes.checks import CAUSES
from lightning_recipes.recipe import check
from lightning_recipes.utils.errors import UserError

from ..contract.toys import QUIET, same
from .faulty import DATA, MODULES, Cleared, Net, Scans, SoftmaxFirst, digits

SECONDS = 60.0  # more than enough: what is found must not depend on the machine


def alarms(report):
    return [finding for finding in report.findings if finding.status in ("FAIL", "WARN")]


def examined(module, data, **options):
    torch.manual_seed(0)
    return check(module(), data(), seconds=SECONDS, **options)


@pytest.mark.parametrize(("module", "cause"), MODULES.items(), ids=lambda x: getattr(x, "__name__", None))
def test_a_fault_of_the_module_is_the_first_thing_found(module, cause):
    first = examined(module, Scans).findings[0]
    assert first.status in ("FAIL", "WARN")
    assert first.causes[0] == cause
    assert first.advice == CAUSES[cause]


@pytest.mark.parametrize(("data", "cause"), DATA.items(), ids=lambda x: getattr(x, "__name__", None))
def test_a_fault_of_the_data_is_the_first_thing_found(data, cause):
    first = examined(Net, data).findings[0]
    assert first.status in ("FAIL", "WARN")
    assert first.causes[0] == cause


@pytest.mark.parametrize("module", [Net, Cleared], ids=lambda module: module.__name__)
def test_a_healthy_run_is_left_alone(module):
    report = examined(module, Scans)
    assert alarms(report) == []
    assert report.status in ("PASS", "INFO")
    assert sum(finding.status == "PASS" for finding in report.findings) >= 20
    assert all(finding.message for finding in report.findings if finding.status == "SKIP")


def test_a_clip_that_leaves_nothing_is_found_in_the_trainer():
    found = examined(Net, Scans, trainer=Trainer(**QUIET, gradient_clip_val=1e-6))
    assert found.findings[0].causes[0] == "gradient-clipping-too-strong"


def test_a_schedule_that_ends_early_is_found():
    class Early(Net):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, 20, gamma=1e-5)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    found = examined(Early, Scans, trainer=Trainer(**QUIET, max_epochs=10))
    assert found.findings[0].causes[0] == "schedule-too-short"


def test_nothing_of_the_module_or_the_process_changes():
    torch.manual_seed(0)
    module, data = SoftmaxFirst(), Scans()
    before = copy.deepcopy(module.state_dict())
    modes = [part.training for part in module.modules()]
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    check(module, data, seconds=SECONDS)
    assert same(module.state_dict(), before)
    assert [part.training for part in module.modules()] == modes
    assert all(parameter.grad is None for parameter in module.parameters())
    assert module._trainer is None
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert same(after, states)


def loaders():
    train, val = digits()
    return DataLoader(TensorDataset(*train), 32, shuffle=True), DataLoader(TensorDataset(*val), 64)


@pytest.mark.parametrize("form", ["loader", "pair", "mapping"])
def test_plain_loaders_are_taken(form):
    train, val = loaders()
    given = {"loader": train, "pair": (train, val), "mapping": {"train": train, "val": val}}[form]
    report = check(Net(), given, seconds=SECONDS)
    assert alarms(report) == []
    skipped = [finding.check for finding in report.findings if finding.status == "SKIP"]
    assert ("validation data" in skipped) is (form == "loader")


@pytest.mark.parametrize(
    ("given", "said"),
    [("digits", "got str"), ({"val": []}, "must have `train`"), (7, "got int"), ([1], "got list")],
)
def test_what_are_no_data_is_refused(given, said):
    with pytest.raises(UserError, match=said):
        check(Net(), given, seconds=5)


def test_no_time_is_refused():
    with pytest.raises(UserError, match="`seconds` must be above 0, got 0"):
        check(Net(), Scans(), seconds=0)


def test_with_little_time_checks_say_that_they_could_not_run():
    report = check(Net(), Scans(), seconds=0.01)
    assert alarms(report) == []
    assert any(finding.status == "SKIP" and "time" in finding.message for finding in report.findings)


def test_the_report_as_json():
    report = examined(SoftmaxFirst, Scans)
    read = json.loads(report.to_json())
    assert read["status"] == "FAIL"
    assert read["findings"][0]["causes"][0] == "softmax-before-cross-entropy"
    assert [finding["check"] for finding in read["findings"]] == [
        finding.check for finding in report.findings
    ]


def test_loaders_and_datamodules_are_left_as_they_were():
    data = Scans()
    check(Net(), data, seconds=0.1)
    assert data.trainer is None
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(TensorDataset(*digits()[0]), 32, shuffle=True, generator=generator)
    before = generator.get_state()
    check(Net(), loader, seconds=0.1)
    assert torch.equal(generator.get_state(), before)


def test_the_classes_of_the_copies_bear_other_names():
    def below(kind):
        return [kind.__name__, *(name for child in kind.__subclasses__() for name in below(child))]

    before = below(LightningModule).count("Net")
    check(Net(), Scans(), seconds=0.1)
    assert below(LightningModule).count("Net") == before


def test_ctrl_c_ends_it_and_leaves_the_handler():
    class Interrupted(Net):
        def training_step(self, batch, batch_idx):
            signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        check(Interrupted(), Scans(), seconds=5)
    assert signal.getsignal(signal.SIGINT) is handler


# Modules that are no classifiers, and steps of all kinds: a check that cannot run says so


class Dictionary(Net):
    def training_step(self, batch, batch_idx):
        return {"loss": super().training_step(batch, batch_idx), "more": 1}


class Nothing(Net):
    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)


class OwnLoss(Net):
    def loss(self, logits, targets):
        return (logits.logsumexp(1) - logits[torch.arange(len(logits)), targets]).mean()


class Regression(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))

    def training_step(self, batch, batch_idx):
        return functional.mse_loss(self.net(batch[0])[:, 0], batch[0].flatten(1).mean(1))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-3)


class Gan(LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64))
        self.judge = nn.Sequential(nn.Linear(64, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))

    def training_step(self, batch, batch_idx):
        real = batch[0].flatten(1)
        one, two = self.optimizers()
        fake = self.generator(torch.randn(len(real), 8))
        ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)
        bce = functional.binary_cross_entropy_with_logits
        self.toggle_optimizer(one)
        one.zero_grad()
        self.manual_backward(bce(self.judge(fake), ones))
        one.step()
        self.untoggle_optimizer(one)
        self.toggle_optimizer(two)
        two.zero_grad()
        self.manual_backward(bce(self.judge(real), ones) + bce(self.judge(fake.detach()), zeros))
        two.step()
        self.untoggle_optimizer(two)

    def configure_optimizers(self):
        return [torch.optim.Adam(part.parameters(), 1e-3) for part in (self.generator, self.judge)]


class Variational(LightningModule):
    """A squared error and a divergence, whose least sum nobody knows."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 16))
        self.decoder = nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 64))

    def training_step(self, batch, batch_idx):
        mean, log_variance = self.encoder(batch[0]).chunk(2, 1)
        code = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        error = functional.mse_loss(self.decoder(code), batch[0].flatten(1), reduction="sum") / len(code)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
        return error + divergence

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-3)


class Contrastive(Net):
    """Each image against its noisy twin: the classes are the samples of the batch."""

    def training_step(self, batch, batch_idx):
        one, two = (
            functional.normalize(self(batch[0] + 0.1 * torch.randn_like(batch[0])), dim=1) for _ in range(2)
        )
        return functional.cross_entropy(one @ two.T / 0.1, torch.arange(len(one)))


class NoOptimizer(Net):
    def configure_optimizers(self):
        return None


class Endless(IterableDataset):
    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        (images, targets), _ = digits()
        while True:
            index = int(torch.randint(len(images), (), generator=generator))
            yield images[index], int(targets[index])


@pytest.mark.parametrize(
    "module",
    [Dictionary, Nothing, OwnLoss, Regression, Gan, Variational, Contrastive],
    ids=lambda module: module.__name__,
)
def test_no_crash_and_no_false_verdict_on(module):
    report = check(module(), loaders(), seconds=SECONDS)
    assert [
        f for f in alarms(report) if not (module in (Nothing, NoOptimizer) and "step" in str(f.causes))
    ] == []
    assert not any("could not run" in finding.message for finding in report.findings)


def test_no_optimizer_is_said_so():
    first = check(NoOptimizer(), loaders(), seconds=SECONDS).findings[0]
    assert (first.check, first.status) == ("parameters", "WARN")
    assert first.causes == ("optimizer-misses-parameters",)


def test_an_iterable_dataset_without_end():
    report = check(Net(), DataLoader(Endless(), 32), seconds=SECONDS)
    assert alarms(report) == []


def test_a_module_that_cannot_be_copied():
    module = Net()
    module.held = SimpleNamespace(__deepcopy__=None, generator=(i for i in range(3)))
    report = check(module, loaders(), seconds=SECONDS)
    assert [finding.status for finding in report.findings] == ["SKIP"]


def test_a_step_that_raises_is_reported():
    class Broken(Net):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    first = examined(Broken, Scans).findings[0]
    assert (first.check, first.status, first.causes[0]) == ("first step", "FAIL", "shape-mismatch")


def test_a_trainers_settings_are_used():
    seen = []

    class Noting(Net):
        def training_step(self, batch, batch_idx):
            seen.append((self.trainer.precision, self.trainer.gradient_clip_val))
            return super().training_step(batch, batch_idx)

    trainer = Trainer(**QUIET, precision="bf16-mixed", gradient_clip_val=1.0, accumulate_grad_batches=2)
    report = examined(Noting, Scans, trainer=trainer)
    assert set(seen) == {("bf16-mixed", 1.0)}
    assert alarms(report) == []
