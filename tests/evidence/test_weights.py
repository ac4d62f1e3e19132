from torch import nn

from lightning_recipes.evidence.weights import layer_weights


def test_linear_and_convolutions_with_their_units_first():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 5),
        nn.BatchNorm2d(4),
        nn.ConvTranspose2d(4, 6, 2),
        nn.Linear(6, 2),
        nn.Embedding(9, 2),
    )
    shapes = {name: tuple(weight.shape) for name, weight in layer_weights(net).items()}
    assert shapes == {"0.weight": (4, 3, 5, 5), "2.weight": (6, 4, 2, 2), "3.weight": (2, 6)}


def test_lazy_layers_are_passed_over():
    assert layer_weights(nn.LazyLinear(3)) == {}
