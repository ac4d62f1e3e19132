import pytest
import torch
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import nn
from torch.nn import functional

from lightning_recipes.evidence.loss_calls import BINARY, CLASSIFICATION, REGRESSION, LossCalls, rows_of

N, K = 6, 4


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def weights(*shape):
    return torch.randn(*(shape or (N, K)), requires_grad=True)


def arguments(name):
    """Return inputs and targets that a function takes."""
    z = weights()
    if name in ("cross_entropy", "multi_margin_loss"):
        return z, torch.arange(N) % K
    if name == "nll_loss":
        return z - 1, torch.arange(N) % K
    if name == "binary_cross_entropy":
        return z.sigmoid(), torch.rand(N, K)
    if name in ("soft_margin_loss", "hinge_embedding_loss"):
        return z * 1, torch.randint(2, (N, K)) * 2.0 - 1
    return z * 1, torch.rand(N, K)


MODULES = {
    "cross_entropy": nn.CrossEntropyLoss,
    "nll_loss": nn.NLLLoss,
    "multi_margin_loss": nn.MultiMarginLoss,
    "binary_cross_entropy": nn.BCELoss,
    "binary_cross_entropy_with_logits": nn.BCEWithLogitsLoss,
    "soft_margin_loss": nn.SoftMarginLoss,
    "mse_loss": nn.MSELoss,
    "smooth_l1_loss": nn.SmoothL1Loss,
    "huber_loss": nn.HuberLoss,
    "l1_loss": nn.L1Loss,
    "multilabel_soft_margin_loss": nn.MultiLabelSoftMarginLoss,
    "hinge_embedding_loss": nn.HingeEmbeddingLoss,
}


def test_all_known_functions_are_tried():
    assert {*CLASSIFICATION[:-1], *BINARY, *REGRESSION} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("form", ["module", "positional", "keyword"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_every_known_function_in_every_form(name, form, reduction):
    function, (inputs, targets) = getattr(functional, name), arguments(name)
    with LossCalls() as calls:
        if form == "module":
            value = MODULES[name](reduction=reduction)(inputs, targets)
        elif form == "positional":
            value = function(inputs, targets, reduction=reduction)
        else:
            value = function(target=targets, input=inputs, reduction=reduction)
    (call,) = calls.seen
    assert (call.name, call.reduction) == (name, reduction)
    assert torch.equal(call.inputs, inputs)
    assert torch.equal(call.targets, targets)
    assert torch.equal(call.value, value)
    expected = torch.autograd.grad(value, inputs, retain_graph=True)[0]
    value.backward()
    assert torch.equal(call.gradient, expected)


def test_options_are_noted_and_defaults_filled_in():
    weight = torch.rand(K)
    with LossCalls() as calls:
        functional.cross_entropy(weights(), torch.arange(N) % K, weight, ignore_index=2, label_smoothing=0.2)
    options = calls.seen[0].options
    assert options["weight"] is weight
    assert (options["ignore_index"], options["label_smoothing"], options["reduction"]) == (2, 0.2, "mean")


def test_several_calls_in_their_order_and_none_outside():
    z, y = weights(), torch.arange(N) % K
    functional.cross_entropy(z, y)
    with LossCalls() as calls:
        functional.mse_loss(z, z.detach() + 1)
        functional.cross_entropy(z, y)
        functional.cross_entropy(2 * z, y)
    functional.cross_entropy(z, y)
    assert [call.name for call in calls.seen] == ["mse_loss", "cross_entropy", "cross_entropy"]
    assert [call.name for call in calls.classification()] == ["cross_entropy", "cross_entropy"]


@pytest.mark.parametrize(
    "same", [lambda z: z, torch.Tensor.double, torch.clone, lambda z: z.view(N, 1, K).squeeze(1)]
)
def test_mixed_targets_share_their_source_and_the_whole_gradient(same):
    layer, y = nn.Linear(3, K), torch.arange(N) % K
    with LossCalls() as calls:
        z = layer(torch.randn(N, 3))
        z.retain_grad()
        first, second = functional.cross_entropy(same(z), y), functional.cross_entropy(same(z), y.flip(0))
        loss = 0.3 * first + 0.7 * second
    loss.backward()
    one, two = calls.seen
    assert one.source == two.source
    if same(z) is z:
        assert torch.equal(one.gradient, z.grad)
        assert torch.equal(two.gradient, z.grad)


def test_two_heads_do_not_share_their_source():
    """Nodes of the graph come and go in Python: their ids are used again."""
    heads, x, y = [nn.Linear(3, K) for _ in range(8)], torch.randn(N, 3), torch.arange(N) % K
    with LossCalls() as calls:
        sum(functional.cross_entropy(head(x), y) for head in heads).backward()
    assert len({call.source for call in calls.seen}) == len(heads)


def test_soft_targets():
    z, t = weights(), torch.rand(N, K).softmax(1)
    with LossCalls() as calls:
        functional.cross_entropy(z * 1, t)
    call = calls.seen[0]
    assert not call.hard
    assert torch.equal(call.indices, t.argmax(1))
    assert torch.equal(call.targets, t)


@pytest.mark.parametrize("further", [(5,), (2, 3)])
@pytest.mark.parametrize("soft", [False, True])
def test_rows_of_dense_predictions(further, soft):
    z = weights(2, K, *further)
    y = torch.randint(K, (2, *further))
    t = functional.one_hot(y, K).movedim(-1, 1).float() if soft else y
    with LossCalls() as calls:
        loss = functional.cross_entropy(z * 1, t)
    call = calls.seen[0]
    assert torch.equal(call.indices, y.reshape(-1))
    assert call.hard is not soft
    torch.testing.assert_close(functional.cross_entropy(call.logits, call.indices), loss.detach())
    loss.backward()
    assert rows_of(call.gradient).sum(1).abs().max() < 1e-6


MAKERS = {
    "softmax": lambda z: z.softmax(1),
    "log softmax": lambda z: functional.log_softmax(z, dim=-1),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": functional.relu,
    "module": nn.ReLU(),
    "clamp": lambda z: z.clamp(-1, 1),
    "log of softmax": lambda z: torch.log(torch.softmax(z, -1)),
    "views": lambda z: z.softmax(1).view(1, N, K).squeeze(0).float().double().clone().reshape(N, K),
    "two": lambda z: z.relu().sigmoid(),
}
MADE = {
    "log softmax": ("log_softmax",),
    "module": ("relu",),
    "log of softmax": ("log", "softmax"),
    "views": ("softmax",),
    "two": ("sigmoid", "relu"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_what_made_the_logits(name):
    z = weights() * 1
    with LossCalls() as calls:
        functional.cross_entropy(MAKERS[name](z), torch.arange(N) % K)
    (call,) = calls.classification()
    assert call.made_by == MADE.get(name, (name,))
    assert torch.equal(call.before, z)
    assert call.live is z


@pytest.mark.parametrize("rectify", [torch.relu_, nn.ReLU(inplace=True), lambda z: functional.relu(z, True)])
def test_work_in_place(rectify):
    plain = weights()
    with LossCalls() as calls:
        loss = functional.cross_entropy(rectify(plain * 1), torch.arange(N) % K)
    assert calls.seen[0].made_by == ("relu",)
    loss.backward()
    assert bool((plain.grad[plain < 0] == 0).all())
    assert torch.equal(calls.seen[0].inputs, plain.detach().relu())


def test_nothing_made_the_logits_of_a_layer():
    with LossCalls() as calls:
        functional.cross_entropy(nn.Linear(3, K)(torch.randn(N, 3)), torch.arange(N) % K)
        hidden = nn.Linear(3, 5)(torch.randn(N, 3)).softmax(1)  # attention, say
        functional.cross_entropy(nn.Linear(5, K)(hidden), torch.arange(N) % K)
        functional.cross_entropy(weights(), torch.arange(N) % K)
    assert [call.made_by for call in calls.seen] == [(), (), ()]


def test_autocast():
    """Lower precision: the softmax of an autocast layer is seen through the casts."""
    layer = nn.Linear(3, K)
    with torch.autocast("cpu", torch.bfloat16), LossCalls() as calls:
        z = layer(torch.randn(N, 3))
        functional.cross_entropy(z, torch.arange(N) % K)
        functional.cross_entropy(z.softmax(1), torch.arange(N) % K)
        functional.cross_entropy(z.float(), torch.arange(N) % K)
    assert [call.made_by for call in calls.seen] == [(), ("softmax",), ()]
    assert calls.seen[0].inputs.dtype == torch.bfloat16
    assert calls.seen[0].source == calls.seen[2].source != calls.seen[1].source


@pytest.mark.parametrize(
    "log_softmax",
    [
        lambda z: functional.log_softmax(z, 1),
        lambda z: functional.log_softmax(input=z, dim=-1),
        lambda z: torch.log_softmax(z, 1),
        lambda z: z.log_softmax(-1),
        lambda z: z.log_softmax(dim=1),
        nn.LogSoftmax(1),
    ],
)
def test_a_loss_made_by_hand(log_softmax):
    z, y = weights(), torch.arange(N) % K
    with LossCalls() as calls:
        loss = -log_softmax(z * 1).gather(1, y[:, None]).mean()
    (call,) = calls.classification()
    assert (call.name, call.targets) == ("log_softmax", None)
    assert torch.equal(call.inputs, z)
    loss.backward()
    torch.testing.assert_close(
        call.gradient, (z.detach().softmax(1) - functional.one_hot(y, K)) / N, atol=1e-7, rtol=1e-5
    )


def test_a_softmax_over_other_dimensions_is_no_loss_over_classes():
    with LossCalls() as calls:
        functional.log_softmax(weights(), 0)
        functional.log_softmax(weights(2, K, 3), 1)
        weights().log_softmax(0)
    assert calls.seen == []


@pytest.mark.parametrize("loss", [LabelSmoothingCrossEntropy(0.1), SoftTargetCrossEntropy()])
def test_losses_of_timm(loss):
    z, y = weights(), torch.arange(N) % K
    t = y if isinstance(loss, LabelSmoothingCrossEntropy) else functional.one_hot(y, K).float()
    with LossCalls() as calls:
        value = loss(z * 1, t)
    (call,) = calls.classification()
    assert call.name == "log_softmax"
    value.backward()
    torch.testing.assert_close(call.gradient, z.grad)


def test_nothing_of_what_is_computed_changes():
    def run(watched):
        torch.manual_seed(3)
        net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Linear(8, K))
        optimizer = torch.optim.Adam(net.parameters(), 0.1)
        losses = []
        for _ in range(4):
            x, y = torch.randn(N, 3), torch.randint(K, (N,))
            if watched:
                with LossCalls():
                    loss = functional.cross_entropy(net(x).log_softmax(1), y)
                    loss = loss + functional.mse_loss(net(x).sigmoid(), torch.rand(N, K))
            else:
                loss = functional.cross_entropy(net(x).log_softmax(1), y)
                loss = loss + functional.mse_loss(net(x).sigmoid(), torch.rand(N, K))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return [*losses, *net.parameters(), *(p.grad for p in net.parameters()), torch.rand(2)]

    for plain, watched in zip(run(False), run(True), strict=True):
        assert torch.equal(plain, watched)


def test_no_gradient_where_none_flows():
    with LossCalls() as calls, torch.no_grad():
        functional.cross_entropy(weights().softmax(1), torch.arange(N) % K)
    assert calls.seen[0].gradient is None
    with LossCalls() as calls:
        functional.cross_entropy(weights().detach(), torch.arange(N) % K)
    assert calls.seen[0].made_by == ()


def test_a_wrong_call_fails_as_it_would():
    with pytest.raises(TypeError), LossCalls():
        functional.cross_entropy(weights())
    with pytest.raises(IndexError), LossCalls():
        functional.cross_entropy(weights(), torch.full((N,), K + 1))
