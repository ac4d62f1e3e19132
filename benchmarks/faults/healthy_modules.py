"""Healthy modules that are not plain classifiers."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from .modules import Classifier
from .nets import mlp


class Mixup(Classifier):
    """Mixes pairs of images and their labels; the targets are soft."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of mixed images."""
        images, labels = batch
        targets = F.one_hot(labels, 10).float()  # (B, K)
        share = float(torch.distributions.Beta(0.2, 0.2).sample())
        other = torch.randperm(len(images))
        images = share * images + (1 - share) * images[other]
        return F.cross_entropy(self(images), share * targets + (1 - share) * targets[other])


class MixupOfLosses(Classifier):
    """Mixes pairs of images, and the losses to both labels."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the mixed loss of mixed images."""
        images, labels = batch
        share = float(torch.distributions.Beta(1.0, 1.0).sample())
        other = torch.randperm(len(images))
        logits = self(share * images + (1 - share) * images[other])
        return share * self.loss(logits, labels) + (1 - share) * self.loss(logits, labels[other])


class Smoothed(Classifier):
    """Label smoothing of .1."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the smoothed cross-entropy."""
        return F.cross_entropy(logits, labels, label_smoothing=0.1)


class Weighted(Classifier):
    """Classes weighted by how rare they are."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted cross-entropy."""
        weight = 1 / labels.bincount(minlength=10).clamp_min(1).float()
        return F.cross_entropy(logits, labels, weight=weight / weight.mean())


class Focal(Classifier):
    """The focal loss, written by hand."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the focal loss with gamma 2."""
        log_p = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]  # (B,)
        return -((1 - log_p.exp()) ** 2 * log_p).mean()


class LogSoftmaxNLL(Classifier):
    """A net with a log-softmax, and the NLL."""

    def forward(self, images: Tensor) -> Tensor:
        """Return log-probabilities (B, K)."""
        return super().forward(images).log_softmax(1)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the NLL."""
        return F.nll_loss(logits, labels)


class OneVersusAll(Classifier):
    """A binary cross-entropy for each class."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over classes."""
        return F.binary_cross_entropy_with_logits(logits, F.one_hot(labels, 10).float())


class Hinge(Classifier):
    """The multi-class margin loss."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the hinge loss."""
        return F.multi_margin_loss(logits, labels)


class Normalising(Classifier):
    """Normalises in the module what comes as 0..255."""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of bytes."""
        return super().forward((images / 255 - 0.29) / 0.35)


class Dictionary(Classifier):
    """Batches are dictionaries, and so is what the step returns."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the loss in a dictionary."""
        return {"loss": self.loss(self(batch["image"]), batch["label"])}

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:  # type: ignore[override]
        """Measure a batch."""
        super().validation_step((batch["image"], batch["label"]), batch_idx)


class ByHand(Classifier):
    """Manual optimization, with clipping and a schedule stepped by hand."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.automatic_optimization = False

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Take a step."""
        optimizer = self.optimizers()
        loss = self.loss(self(batch[0]), batch[1])
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(optimizer, gradient_clip_val=1.0)
        optimizer.step()
        scheduler = self.lr_schedulers()
        if scheduler is not None:
            scheduler.step()


class Accumulating(ByHand):
    """Manual optimization, a step for two batches."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Take a step after each second batch."""
        optimizer = self.optimizers()
        self.manual_backward(self.loss(self(batch[0]), batch[1]) / 2)
        if batch_idx % 2:
            optimizer.step()
            optimizer.zero_grad()


class Probe(Classifier):
    """A frozen body in eval mode, and a head that is trained."""

    def train(self, mode: bool = True) -> Probe:
        """Keep the body in eval mode."""
        super().train(mode)
        self.net.body.eval()
        return self

    def configure_optimizers(self) -> Any:
        """Return the optimizer of the head."""
        return self.make_optimizer(self.net.head.parameters())


class FineTuned(Classifier):
    """A tenth of the rate for the body."""

    def configure_optimizers(self) -> Any:
        """Return an optimizer with two groups."""
        body = {"params": self.net.body.parameters(), "lr": 1e-4}
        return torch.optim.AdamW([body, {"params": self.net.head.parameters(), "lr": 1e-3}])


class Binary(Classifier):
    """Is the label at least 5? One logit."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the binary cross-entropy."""
        logits = self(batch[0])[:, 0]
        return F.binary_cross_entropy_with_logits(logits, (batch[1] >= 5).float())

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Measure a batch."""
        self.log("val_acc", ((self(batch[0])[:, 0] > 0) == (batch[1] >= 5)).float().mean())


class MultiLabel(Classifier):
    """Three properties of a label, each with its own sigmoid."""

    @staticmethod
    def targets(labels: Tensor) -> Tensor:
        """Return odd, at least 5, divisible by three; (B, 3)."""
        return torch.stack([labels % 2 == 1, labels >= 5, labels % 3 == 0], 1).float()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the mean binary cross-entropy."""
        return F.binary_cross_entropy_with_logits(self(batch[0]), self.targets(batch[1]))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Measure a batch."""
        self.log("val_acc", ((self(batch[0]) > 0) == (self.targets(batch[1]) > 0.5)).float().mean())


class Regression(Classifier):
    """Features to numbers, both standardised."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the squared error."""
        return F.mse_loss(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Measure a batch."""
        self.log("val_loss", F.mse_loss(self(batch[0]), batch[1]))


class Autoencoder(LightningModule):
    """Images through 16 numbers to images."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(*mlp(pixels, depth=1), nn.Linear(128, 16))
        self.decoder = nn.Sequential(*mlp(16, depth=1), nn.Linear(128, pixels))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the squared error."""
        return F.mse_loss(self.decoder(self.encoder(batch[0])), batch[0].flatten(1))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Measure a batch."""
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class GAN(LightningModule):
    """A generator of images and a discriminator, by two optimizers."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(*mlp(16, depth=1), nn.Linear(128, pixels))
        self.discriminator = nn.Sequential(
            nn.Flatten(), nn.Linear(pixels, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1)
        )

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Take a step of each."""
        real = batch[0].flatten(1)
        for_generator, for_discriminator = self.optimizers()
        fake = self.generator(torch.randn(len(real), 16))
        yes, no = torch.ones(len(real), 1), torch.zeros(len(real), 1)
        loss = F.binary_cross_entropy_with_logits
        for_discriminator.zero_grad()
        of_real, of_fake = self.discriminator(real), self.discriminator(fake.detach())
        self.manual_backward((loss(of_real, yes) + loss(of_fake, no)) / 2)
        for_discriminator.step()
        for_generator.zero_grad()
        self.manual_backward(loss(self.discriminator(fake), yes))
        for_generator.step()
        self.log("fake_mean_loss", (fake.mean(0) - real.mean(0)).square().mean())

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return Adam for each."""
        parts = (self.generator, self.discriminator)
        return [torch.optim.Adam(part.parameters(), lr=5e-4, betas=(0.5, 0.999)) for part in parts]
