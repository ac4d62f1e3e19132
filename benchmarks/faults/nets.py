"""Small nets of each family, a body and a head, that train in milliseconds a step on one core."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """A body to features (B, D), and a linear head to logits (B, K)."""

    def __init__(self, body: nn.Module, width: int, classes: int = 10, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.body, self.dropout = body, nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K)."""
        logits: Tensor = self.head(self.dropout(self.body(images)))
        return logits


def _conv(inputs: int, outputs: int, stride: int = 1, *, norm: bool = True) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=not norm)
    return [conv, *([nn.BatchNorm2d(outputs)] if norm else []), nn.ReLU()]


def _pooled() -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def cnn(channels: int, *, norm: bool = True) -> tuple[nn.Module, int]:
    """Return four convolutions, with BatchNorm or without."""
    layers = [
        *_conv(channels, 16, 2, norm=norm),
        *_conv(16, 32, norm=norm),
        *_conv(32, 32, 2, norm=norm),
        *_conv(32, 64, norm=norm),
        *_pooled(),
    ]
    if not norm:
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return nn.Sequential(*layers), 64


def vgg(channels: int) -> tuple[nn.Module, int]:
    """Return a VGG: pairs of convolutions and a pooling, without strides."""
    layers = [*_conv(channels, 8), nn.MaxPool2d(2), *_conv(8, 16), *_conv(16, 16), nn.MaxPool2d(2)]
    layers += [*_conv(16, 32), *_conv(32, 32), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(128), nn.ReLU()]
    return nn.Sequential(*layers), 128


class DropPath(nn.Module):
    """Stochastic depth: leaves a branch out, for a whole sample."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, …), some samples zero."""
        if not self.training or self.p == 0:
            return x
        kept = torch.rand(len(x), *[1] * (x.ndim - 1)) >= self.p
        return x * kept / (1 - self.p)


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, drop_path: float, zero: bool) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_conv(inputs, outputs, stride), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        )
        self.norm, self.drop_path = nn.BatchNorm2d(outputs), DropPath(drop_path)
        if zero:
            nn.init.zeros_(self.norm.weight)
        shortcut = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)]
        self.shortcut = nn.Sequential(*shortcut) if stride > 1 or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C', H', W')."""
        return (self.shortcut(x) + self.drop_path(self.norm(self.branch(x)))).relu()


def resnet(channels: int, *, drop_path: float = 0.0, zero: bool = True) -> tuple[nn.Module, int]:
    """Return a stem and four residual blocks; `zero` initialises the last norm of each with zeros."""
    shapes = [(16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2)]
    blocks = [BasicBlock(i, o, s, drop_path=drop_path, zero=zero) for i, o, s in shapes]
    return nn.Sequential(*_conv(channels, 16, 2), *blocks, *_pooled()), 64


class ViT(nn.Module):
    """Patches, positions, a few pre-norm layers, and the mean of the tokens."""

    def __init__(
        self, channels: int, size: int, *, width: int = 64, depth: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, size // 4, size // 4)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    width, 4, 2 * width, dropout, "gelu", batch_first=True, norm_first=True
                )
                for _ in range(depth)
            )
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, D)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions  # (B, 16, D)
        features: Tensor = self.norm(self.layers(tokens)).mean(1)
        return features


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution, LayerNorm, an inverted bottleneck with GELU, and layer scale."""

    def __init__(self, width: int, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 5, 1, 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))
        self.scale, self.drop_path = nn.Parameter(torch.full((width,), 1e-2)), DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        y = self.depthwise(x).permute(0, 2, 3, 1)
        return x + self.drop_path((self.scale * self.mlp(self.norm(y))).permute(0, 3, 1, 2))


def convnext(channels: int, *, drop_path: float = 0.0) -> tuple[nn.Module, int]:
    """Return a patch stem and three blocks, with a downsampling between."""
    layers = [nn.Conv2d(channels, 24, 2, 2), nn.GroupNorm(1, 24), ConvNeXtBlock(24, drop_path=drop_path)]
    layers += [nn.GroupNorm(1, 24), nn.Conv2d(24, 48, 2, 2), ConvNeXtBlock(48, drop_path=drop_path)]
    layers += [ConvNeXtBlock(48, drop_path=drop_path), *_pooled(), nn.LayerNorm(48)]
    return nn.Sequential(*layers), 48


class MBConv(nn.Module):
    """Expand, a depthwise convolution, squeeze and excite, project."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, drop_path: float = 0.0) -> None:
        super().__init__()
        inner = 3 * inputs
        self.expand = nn.Sequential(nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.SiLU())
        depthwise = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.depthwise = nn.Sequential(depthwise, nn.BatchNorm2d(inner), nn.SiLU())
        self.gate = nn.Sequential(nn.Conv2d(inner, 8, 1), nn.SiLU(), nn.Conv2d(8, inner, 1), nn.Sigmoid())
        self.project = nn.Sequential(nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.residual, self.drop_path = stride == 1 and inputs == outputs, DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C', H', W')."""
        y = self.depthwise(self.expand(x))
        y = self.project(y * self.gate(y.mean((2, 3), keepdim=True)))
        return x + self.drop_path(y) if self.residual else y


def efficientnet(channels: int, *, drop_path: float = 0.0) -> tuple[nn.Module, int]:
    """Return a stem, three inverted bottlenecks, and a wide last convolution."""
    stem = [nn.Conv2d(channels, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.SiLU()]
    blocks = [
        MBConv(12, 12, 1, drop_path=drop_path),
        MBConv(12, 20, 2),
        MBConv(20, 20, 1, drop_path=drop_path),
    ]
    last = [nn.Conv2d(20, 96, 1, bias=False), nn.BatchNorm2d(96), nn.SiLU()]
    return nn.Sequential(*stem, *blocks, *last, *_pooled()), 96


def mlp(inputs: int, *, depth: int = 2, width: int = 128, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Return `depth` hidden layers of a flat image."""
    layers: list[nn.Module] = [nn.Flatten()]
    for number in range(depth):
        layers += [nn.Linear(width if number else inputs, width), act()]
    return nn.Sequential(*layers)


def create(
    arch: str, channels: int, size: int, *, classes: int = 10, dropout: float = 0.0, drop_path: float = 0.0
) -> Net:
    """Return the net of that name: cnn, plain (no norm), resnet, vgg, vit, convnext, efficientnet, mlp."""
    if arch == "vit":
        return Net(ViT(channels, size, dropout=dropout / 4), 64, classes, dropout=dropout)
    if arch == "mlp":
        return Net(mlp(channels * size * size), 128, classes, dropout=dropout)
    if arch in ("resnet", "convnext", "efficientnet"):
        family = {"resnet": resnet, "convnext": convnext, "efficientnet": efficientnet}[arch]
        body, width = family(channels, drop_path=drop_path)
    elif arch == "vgg":
        body, width = vgg(channels)
        body(torch.zeros(2, channels, size, size))  # the size of the lazy layer
        for module in body.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
    else:
        body, width = cnn(channels, norm={"cnn": True, "plain": False}[arch])
    return Net(body, width, classes, dropout=dropout)
