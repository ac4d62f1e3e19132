"""A small classifier of the digits as somebody might write it, and one thing wrong with it at a time."""

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset


class Net(LightningModule):
    """An MLP with a norm; a subclass changes one method."""

    rate = 0.05

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU())
        self.hidden = nn.Sequential(nn.Linear(48, 48), nn.ReLU())
        self.head = nn.Linear(48, 10)

    def forward(self, images):
        return self.head(self.hidden(self.body(images)))

    def loss(self, logits, targets):
        return functional.cross_entropy(logits, targets)

    def training_step(self, batch, batch_idx):
        images, targets = batch
        loss = self.loss(self(images), targets)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        images, targets = batch
        self.log("val/loss", self.loss(self(images), targets))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.rate, momentum=0.9)


class SoftmaxFirst(Net):
    def loss(self, logits, targets):
        return functional.cross_entropy(logits.softmax(1), targets)


class SoftmaxOverBatch(Net):
    def loss(self, logits, targets):
        return functional.nll_loss(logits.softmax(0).log(), targets)


class SignFlipped(Net):
    def loss(self, logits, targets):
        return -functional.cross_entropy(logits, targets)


class Summed(Net):
    def loss(self, logits, targets):
        return functional.cross_entropy(logits, targets, reduction="sum")


class RawNll(Net):
    def loss(self, logits, targets):
        return functional.nll_loss(logits, targets)


class Rectified(Net):
    def forward(self, images):
        return super().forward(images).relu()


class RateTooHigh(Net):
    rate = 5.0


class RateTooLow(Net):
    rate = 5e-4


class Mixing(Net):
    def forward(self, images):
        return super().forward(images.permute(1, 2, 3, 0).reshape(images.shape))


class Evaluating(Net):
    def training_step(self, batch, batch_idx):
        self.eval()
        return super().training_step(batch, batch_idx)


class Detached(Net):
    def forward(self, images):
        return self.head(self.hidden(self.body(images)).detach())


class HeadOnly(Net):
    def configure_optimizers(self):
        return torch.optim.SGD(self.head.parameters(), self.rate, momentum=0.9)


class HeadReplaced(Net):
    def on_fit_start(self):
        self.head = nn.Linear(48, 10)


class Zero(Net):
    def __init__(self):
        super().__init__()
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


class StrongDropout(Net):
    def __init__(self):
        super().__init__()
        self.hidden.append(nn.Dropout(0.95))


class Stale(Net):
    """Steps by hand, and never clears the gradients."""

    rate = 0.005

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        self.optimizers().step()


class Cleared(Stale):
    def training_step(self, batch, batch_idx):
        self.optimizers().zero_grad()
        super().training_step(batch, batch_idx)


def digits():
    """Return standardised images (N, 1, 8, 8) and labels (N,) for training, and for validation."""
    images, targets = load_digits(return_X_y=True)
    images = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8)
    images = (images - images[:1200].mean()) / images[:1200].std()
    targets = torch.tensor(targets)
    return (images[:1200], targets[:1200]), (images[1200:], targets[1200:])


class Scans(LightningDataModule):
    """As somebody might write it; a subclass changes one thing."""

    def __init__(self):
        super().__init__()
        self.train, self.val = digits()
        self.shuffle = True
        self.change()

    def change(self):
        """Do nothing."""

    def train_dataloader(self):
        return DataLoader(TensorDataset(*self.train), 32, shuffle=self.shuffle)

    def val_dataloader(self):
        return DataLoader(TensorDataset(*self.val), 64)


class Sorted(Scans):
    def change(self):
        order = self.train[1].argsort(stable=True)
        self.train, self.shuffle = tuple(part[order] for part in self.train), False


class OneNan(Scans):
    def change(self):
        self.train[0][700, 0, 3, 3] = float("nan")


class Overlapping(Scans):
    def change(self):
        self.val = tuple(part[:300] for part in self.train)


class Bytes(Scans):
    def change(self):
        self.train, self.val = ((images * 80 + 80, targets) for images, targets in (self.train, self.val))


class ConstantLabels(Scans):
    def change(self):
        self.train[1].fill_(3)


class ManyOutputs(Net):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(48, 100)


class FewOutputs(Net):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(48, 9)


MODULES = {
    SoftmaxFirst: "softmax-before-cross-entropy",
    SoftmaxOverBatch: "softmax-over-batch",
    SignFlipped: "loss-sign-flipped",
    Summed: "sum-reduction",
    RawNll: "nll-on-raw-logits",
    Rectified: "activation-on-logits",
    RateTooHigh: "learning-rate-too-high",
    RateTooLow: "learning-rate-too-low",
    Mixing: "batch-mixing",
    Evaluating: "eval-mode-in-training",
    Detached: "detached-backbone",
    HeadOnly: "optimizer-misses-parameters",
    HeadReplaced: "head-replaced-after-optimizer",
    Zero: "zero-initialization",
    StrongDropout: "dropout-too-strong",
    Stale: "missing-zero-grad",
    ManyOutputs: "wrong-number-of-classes",
    FewOutputs: "wrong-number-of-classes",
}
DATA = {
    Sorted: "unshuffled-data",
    OneNan: "non-finite-input",
    Overlapping: "validation-in-training",
    Bytes: "raw-pixels",
    ConstantLabels: "constant-labels",
}
