"""timm backbones by name, with errors that say what to do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from ..initialization import Scheme, initialize
from ..layers import drop_connect as connections
from ..layers.activations import activation_class, swap_activations
from ..layers.fractional_pool import swap_max_pools
from ..utils.errors import UserError, did_you_mean
from ..utils.state_dicts import read_state_dict
from ..utils.weights import load_weights

_ARGUMENTS = {
    "drop_path_rate": "drop_path_rate",
    "in_chans": "in_chans",
    "drop_rate": "drop_rate",
}


def create_backbone(
    name: str,
    *,
    num_classes: int,
    in_chans: int = 3,
    image_size: int | None = None,
    pretrained: bool = False,
    weights: str | PathLike[str] | None = None,
    act: str | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float | None = None,
    init: Scheme | None = None,
    drop_connect: float = 0.0,
    fractional_pool: float | None = None,
) -> nn.Module:
    """Return a timm model with its classifier.

    Args:
        name: A name that `timm.list_models()` has, or one with a tag or a hub prefix.
        num_classes: Classes of its head.
        in_chans: Channels of the images.
        image_size: Side of the images, pixels; checked by a forward pass.
        pretrained: Fetch timm's weights.
        weights: Load a local file instead.
        act: Replace the activations by one that `timm.layers.create_act_layer` knows; gates stay.
        drop_rate: Dropout before the head.
        drop_path_rate: Stochastic depth; None leaves the architecture's own.
        init: Set the weights anew by a scheme of `initialize`.
        drop_connect: Probability that a linear layer or convolution drops a weight in training.
        fractional_pool: Output over input side of fractional max pools in the place of max pools.

    Raises:
        UserError: An unknown name, an argument that the architecture does not take, an image size that it
            cannot work on, weights that cannot be reached or do not fit, an unknown activation.
    """
    import timm  # slow to import

    if ":" not in name and not timm.is_model(name):
        hint = did_you_mean(name.split(".")[0], timm.list_models())
        raise UserError(f"timm has no backbone {name!r}.{hint} `timm.list_models()` lists them all.")
    if pretrained and weights is not None:
        raise UserError("`pretrained` and `weights` exclude each other. Give one of them.")
    if init is not None and (pretrained or weights is not None):
        raise UserError(f"`init: {init}` would set pretrained weights anew. Leave one of the two out.")
    if not 0 <= drop_connect < 1:  # by their names here, and before weights are fetched
        raise UserError(f"`drop_connect` must lie in [0, 1), got {drop_connect}. To drop none, set it to 0.")
    if fractional_pool is not None and not 0 < fractional_pool < 1:
        raise UserError(
            f"`fractional_pool` must lie in (0, 1), got {fractional_pool}. To leave it out, set it to null."
        )
    options: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_chans, "drop_rate": drop_rate}
    if drop_path_rate is not None:
        options["drop_path_rate"] = drop_path_rate
    if act is not None:
        activation_class(act)  # before the weights are fetched
    config = timm.get_pretrained_cfg(name, allow_unregistered=True) if ":" not in name else None
    if image_size is not None and config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    try:
        with _hub_without_retries() if pretrained else nullcontext():
            model: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
    except TypeError as error:
        unwanted = next((argument for key, argument in _ARGUMENTS.items() if f"'{key}'" in str(error)), None)
        if unwanted is None:
            raise
        raise UserError(f"The backbone {name!r} takes no `{unwanted}`. Leave it out.") from error
    except Exception as error:
        if not pretrained:
            raise UserError(f"timm cannot build {name!r}: {_first_line(error)}.") from error
        raise UserError(
            f"Cannot get the pretrained weights of {name!r}: {_first_line(error)}. "
            "Give a local file by `weights`, or set `pretrained: false`."
        ) from error
    if not pretrained or model.pretrained_cfg["num_classes"] != num_classes:  # type: ignore[index]
        calm_head(model)
    if act is not None:
        swap_activations(model, act)
    if init is not None:
        initialize(model, init)
    if weights is not None:
        load_local_weights(model, weights)
    if fractional_pool is not None:
        swap_max_pools(model, ratio=fractional_pool)
    if drop_connect:
        connections.drop_connect(model, drop_connect)
    if image_size is not None:
        _check_size(model, name, in_chans, image_size, fractional=fractional_pool is not None)
    return model


@torch.no_grad()
def calm_head(model: Any) -> None:  # noqa: ANN401 - timm's classes
    """Shrink a fresh classifier whose first logits would be large to the size of torch's linear layers.

    A network that knows nothing should say so, by a first loss of about log K. timm's EfficientNets and
    MobileNets begin with weights of three to eight times 1/√D instead of torch's 1/√(3D): their loss begins
    far above, and fine-tuning spends its first steps on spoiling features for the sake of a random head.

    Args:
        model: Whose classifier is a linear layer or a convolution; any other is left alone.

    >>> import timm
    >>> model = timm.create_model("test_efficientnet", num_classes=3)
    >>> calm_head(model)
    >>> round(model.get_classifier().weight.std().item() * (3 * 256) ** 0.5, 2)
    1.0
    """
    weight = getattr(model.get_classifier(), "weight", None)
    if isinstance(weight, Tensor) and weight.ndim > 1:
        inputs = weight[0].numel()
        if weight.std().item() > inputs**-0.5:
            weight.mul_((3 * inputs) ** -0.5 / weight.std())


def load_local_weights(model: Any, path: str | PathLike[str]) -> None:  # noqa: ANN401 - timm's classes
    """Load a file into a timm model, and say what came of it: a warning if more than its head stays fresh.

    Raises:
        UserError: The file cannot be read, or fits under half of the model's tensors.
    """
    ordered = Path(path).suffix != ".safetensors"
    report = load_weights(model, read_state_dict(path), ordered=ordered, source=str(path))
    heads = model.pretrained_cfg["classifier"] or ()
    heads = (heads,) if isinstance(heads, str) else heads
    expected = tuple(f"{head}." for head in heads)
    fresh = [n for n in report.missing if not n.startswith(expected) and "num_batches" not in n]
    (rank_zero_warn if fresh else rank_zero_info)(report.summary(str(path)))


def split_head(
    model: Any,  # noqa: ANN401 - timm's classes
    num_classes: int,
    *,
    init: Scheme | None = None,
    drop_connect: float = 0.0,
) -> tuple[nn.Module, nn.Linear]:
    """Take a timm model apart: images to features (B, D), and features to logits (B, num_classes).

    A classifier that is one linear layer, or a convolution of 1 × 1 pixels, keeps its weights; any other is
    replaced by a new one.

    Args:
        model: Whose head is taken off.
        num_classes: Of a new head.
        init: Its scheme.
        drop_connect: Probability that a head which was none of the model's layers drops a weight in training.
    """
    old = model.get_classifier()
    model.reset_classifier(0)
    if isinstance(old, nn.Linear):
        return model, old
    if isinstance(old, nn.Conv2d) and old.weight[0].numel() == old.in_channels:
        head = nn.Linear(old.in_channels, old.out_channels, bias=old.bias is not None)
        head.load_state_dict(
            {
                name: tensor.flatten(1) if tensor.ndim > 1 else tensor
                for name, tensor in old.state_dict().items()
            }
        )
    else:
        head = nn.Linear(model.head_hidden_size, num_classes)
        if init is not None:
            initialize(head, init)
    if drop_connect:
        connections.drop_connect(head, drop_connect)
    return model, head


def pretrained_normalization(
    model: Any,  # noqa: ANN401 - timm's classes
    in_chans: int,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and std that a timm model's weights were trained with, [0, 1] units, one a channel.

    For another number of channels than the weights', each is their average.
    """
    mean, std = (tuple(float(x) for x in model.pretrained_cfg[key]) for key in ("mean", "std"))
    if len(mean) == in_chans:
        return mean, std
    return (sum(mean) / len(mean),) * in_chans, (sum(std) / len(std),) * in_chans


def _check_size(
    model: nn.Module, name: str, in_chans: int, image_size: int, *, fractional: bool = False
) -> None:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(1, in_chans, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        near = max(round(image_size / 32) * 32, 32)
        hint = f"Try {near} or {near + 32}" if near != image_size else f"Try {near + 32}"
        if fractional:
            hint = f"It may be for `fractional_pool`: leave that out. {hint}"
        raise UserError(
            f"The backbone {name!r} does not work on {image_size} × {image_size} pixels: "
            f"{_first_line(error)}. {hint} for `image_size`, or another backbone."
        ) from error
    finally:
        model.train(training)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


@contextmanager
def _hub_without_retries() -> Iterator[None]:
    """Look into the local cache only when the hub's name does not resolve: retries take most of a minute."""
    from huggingface_hub import constants

    host = urlparse(constants.ENDPOINT).hostname
    try:
        reachable = bool(getproxies()) or host is None or bool(socket.getaddrinfo(host, 443))
    except OSError:
        reachable = False
    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = offline or not reachable
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
