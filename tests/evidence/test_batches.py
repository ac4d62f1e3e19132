import pytest
import torch

from lightning_recipes.evidence.batches import (
    Served,
    copied,
    fresh_batches,
    inputs_of,
    joined,
    labels_of,
    moved,
    size_of,
    take,
    tensors_of,
    with_inputs,
)
from tests.diagnosis.toys import Classifier, fit, loader

X, Y = torch.randn(6, 3, 4), torch.arange(6)
FORMS = {
    "pair": (X, Y),
    "list": [X, Y],
    "mapping": {"image": X, "label": Y, "name": ["a"] * 6},
    "nested": {"views": (X, X[:, :1]), "target": {"label": Y[:, None]}},
    "with a number": (3.5, X, Y),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form(name):
    batch = FORMS[name]
    assert size_of(batch) == 6
    assert inputs_of(batch) is X
    assert torch.equal(labels_of(batch), Y)
    half = take(batch, slice(2, 4))
    assert type(half) is type(batch)
    assert torch.equal(inputs_of(half), X[2:4])
    assert torch.equal(labels_of(half), Y[2:4])
    picked = take(batch, torch.tensor([5, 0]))
    assert torch.equal(inputs_of(picked), X[[5, 0]])
    whole = joined([half, take(batch, slice(1))])
    assert torch.equal(inputs_of(whole), X[[2, 3, 0]])
    assert torch.equal(labels_of(whole), Y[[2, 3, 0]])
    doubled = with_inputs(batch, lambda x: 2 * x)
    assert torch.equal(inputs_of(doubled), 2 * X)
    assert torch.equal(labels_of(doubled), Y)
    own = copied(batch)
    inputs_of(own).zero_()
    assert bool(X.any())


def test_taking_apart_and_joining_is_the_identity():
    parts = [take((X, Y), slice(i, i + 2)) for i in (0, 2, 4)]
    assert all(torch.equal(a, b) for a, b in zip(joined(parts), (X, Y), strict=True))


@pytest.mark.parametrize(
    "others", [(X[:, :, :2], Y), [X, Y], (X, Y, Y), {"x": X}], ids=["shape", "kind", "length", "keys"]
)
def test_what_does_not_fit_together_is_left_apart(others):
    first = (X, Y)
    assert joined([first, others]) is first


def test_what_is_not_there():
    assert size_of("nothing") == 0
    assert inputs_of((Y,)) is None
    assert inputs_of((torch.rand(6), Y)) is None
    assert labels_of((X, Y, Y)) is None
    assert labels_of((X, torch.eye(6))) is None
    assert labels_of((X, torch.eye(6).long())) is None
    assert with_inputs((Y,), torch.neg)[0] is Y
    assert [tensor is X for tensor in tensors_of([X, "a", None, 3])] == [True]


def test_served_batches_come_in_order_as_copies_over_epochs_that_are_cut_off():
    given = [(torch.full((2,), float(i)),) for i in range(3)]
    served = Served(given, 5)
    assert len(served) == 5
    seen = []
    for _ in range(2):  # an epoch whose end nobody waits for
        iterator = iter(served)
        for _ in range(5):
            (tensor,) = next(iterator)
            seen.append(int(tensor[0]))
            tensor.fill_(-1)
    assert seen == [i % 3 for i in range(10)]
    assert given[0][0].tolist() == [0, 0]


class Transferring(Classifier):
    def on_before_batch_transfer(self, batch, dataloader_idx):
        return [batch[0] + 1, batch[1]]

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return [2 * batch[0], batch[1]]


def test_batches_are_moved_by_the_hooks_and_converted():
    raw = [torch.ones(2, 6), torch.tensor([0, 1])]
    found = fit(Transferring, lambda trainer, _: moved(trainer, raw), epochs=1, precision="64-true")[1]
    assert found[0].dtype == torch.float64
    assert bool((found[0] == 4).all())
    assert bool((raw[0] == 1).all())


def test_fresh_batches_are_those_of_the_step_and_the_epoch_goes_on():
    seen = {}

    class Noting(Transferring):
        def loss(self, batch):
            seen.setdefault("given", []).append(batch[0].clone())
            return super().loss(batch)

    def act(trainer, module):
        torch.manual_seed(1)
        before = torch.get_rng_state()
        found = [x for x, _ in fresh_batches(trainer, trainer.train_dataloader, 2)]
        assert torch.equal(torch.get_rng_state(), before)
        return found

    train = loader(shuffle=False)
    _, fresh = fit(Noting, act, epochs=1, train=train, validation=False)
    assert len(fresh) == 2
    assert len(seen["given"]) == 4
    assert all(torch.equal(a, b) for a, b in zip(fresh, seen["given"], strict=False))
