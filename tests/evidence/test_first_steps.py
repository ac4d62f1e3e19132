import pytest
import torch
from torch import nn

from lightning_recipes.evidence.first_steps import FirstSteps, not_finite
from tests.diagnosis.toys import ByHand, Classifier, Gan, fit


class Style(ByHand):
    """One optimizer by hand, cleared in one way or another."""

    clear = staticmethod(lambda optimizer: optimizer.zero_grad())
    when = "before"

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        if self.when == "before":
            self.clear(optimizer)
        loss = self.loss(batch)
        if self.when == "between":
            self.clear(optimizer)
        self.manual_backward(loss)
        optimizer.step()
        if self.when == "after":
            self.clear(optimizer)


class Accumulating(Style):
    every = 3

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        self.manual_backward(self.loss(batch) / self.every)
        if (batch_idx + 1) % self.every == 0:
            optimizer.step()
            self.clear(optimizer)


class Twice(Style):
    """Two backward passes a step."""

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        self.manual_backward(0.1 * sum(p.square().sum() for p in self.parameters()))
        optimizer.step()


class Closure(Style):
    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()

        def closure():
            optimizer.zero_grad()
            loss = self.loss(batch)
            self.manual_backward(loss)
            return loss

        optimizer.step(closure)


def never(optimizer):
    pass


def styled(base=Style, **attributes):
    return type("Styled", (base,), {k: staticmethod(v) if callable(v) else v for k, v in attributes.items()})


def by_module(optimizer):
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def in_place(optimizer):
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.zero_()


class Overridden(Classifier):
    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
        pass


class Kept(Classifier):
    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
        optimizer.zero_grad(set_to_none=False)


CORRECT = {
    "automatic": (Classifier, {}),
    "automatic, kept tensors": (Kept, {}),
    "automatic accumulation": (Classifier, {"accumulate_grad_batches": 3}),
    "before": (styled(), {}),
    "between": (styled(when="between"), {}),
    "after": (styled(when="after"), {}),
    "kept tensors": (styled(clear=lambda o: o.zero_grad(set_to_none=False)), {}),
    "kept tensors, after": (styled(when="after", clear=lambda o: o.zero_grad(set_to_none=False)), {}),
    "none by hand": (styled(clear=by_module), {}),
    "zero by hand": (styled(clear=in_place, when="after"), {}),
    "accumulation by hand": (Accumulating, {}),
    "accumulation by hand, kept tensors": (styled(Accumulating, clear=in_place), {}),
    "two backward passes": (Twice, {}),
    "closure": (Closure, {}),
    "two optimizers": (ByHand, {}),
    "GAN": (Gan, {"validation": False}),
    "clipped": (Classifier, {"gradient_clip_val": 1e-3}),
}
WRONG = {
    "never": (styled(clear=never), {}),
    "never, accumulating": (styled(Accumulating, clear=never), {}),
    "overridden": (Overridden, {}),
}


def watch(kind, **options):
    holder = []

    def act(trainer, module):
        holder.append(FirstSteps(trainer.optimizers))

    trainer, _ = fit(kind, act, epochs=3, **options)
    return holder[0], trainer


@pytest.mark.parametrize("name", CORRECT)
def test_correct_loops_are_not_stale(name):
    kind, options = CORRECT[name]
    watched, _ = watch(kind, **options)
    stale, windows = watched.stale()
    assert stale == 0
    assert windows >= 2


@pytest.mark.parametrize("name", WRONG)
def test_gradients_that_are_never_cleared_are_stale(name):
    kind, options = WRONG[name]
    stale, windows = watch(kind, validation=False, **options)[0].stale()
    assert stale == windows > 1


def test_before_a_validation_lightning_clears_them_itself():
    stale, windows = watch(WRONG["never"][0])[0].stale()
    assert (stale, windows) == (9, 11)


def test_steps_are_counted_and_only_the_first_are_watched():
    watched, trainer = watch(styled())
    assert watched.steps == {0: trainer.global_step} == {0: 12}
    assert watched.stale()[1] == 11
    short = []
    fit(styled(), lambda t, m: short.append(FirstSteps(t.optimizers, most=3)), epochs=3)
    assert short[0].stale()[1] == 3


def test_hooks_are_taken_back_and_training_goes_on_as_before():
    def weights(act):
        trainer, _ = fit(Classifier, act)
        module = trainer.lightning_module
        return trainer, [p.detach().clone() for p in module.parameters()]

    holder = []
    trainer, seen = weights(lambda trainer, module: holder.append(FirstSteps(trainer.optimizers)))
    _, plain = weights(lambda *_: None)
    assert all(torch.equal(a, b) for a, b in zip(seen, plain, strict=True))
    holder[0].close()
    assert not any(p._backward_hooks for p in trainer.lightning_module.parameters())
    assert not trainer.optimizers[0]._optimizer_step_post_hooks


def test_names_of_what_is_not_finite():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert not_finite(net) == []
    net[0].bias.data[0] = float("inf")
    net[1].running_var[0] = float("nan")
    assert not_finite(net) == ["0.bias", "1.running_var"]
    assert not_finite(nn.ReLU()) == []
