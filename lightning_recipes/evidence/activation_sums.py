"""What is kept of a layer's activations: sums and extremes, on the device, that batches and ranks add to."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import gcd

import torch
from torch import Tensor

from .activation_kinds import BOUNDS

# Within 1/40 of the range of a sigmoid or tanh from either bound, its slope is under a tenth (9.75 %) of its
# largest: 0.975 · 0.025 / 0.25 for the sigmoid, and 1 − 0.95² for tanh, which is the same curve stretched.
SATURATED_WITHIN = 1 / 40
NEAR_ZERO = 1e-3  # of the layer's standard deviation
BINS = 40
_DEVIATIONS = 5  # around the mean that the histogram shows
_SAMPLED, _SAMPLED_AT_MOST = 4096, 16384  # values for the histogram: of a batch, and in all
_SUMS = 5


@dataclass(frozen=True)
class LayerActivations:
    """What one layer's activations were like.

    Args:
        name: The module's, `#2` behind it for the second call within a pass; a function's behind that of
            the module that calls it.
        kind: Such as `relu`, `tanh`; `linear` or `conv` for the outputs of a network without activations.
        samples: How many samples the figures are of.
        unit_samples: How many samples `dead` is of.
        units: Channels of (B, C, H, W), features of (B, D) or (B, N, D).
        mean, std: Over all values.
        spread: Standard deviation of a unit over samples and positions, root mean square over the units: what
            is left of `std` when each unit's own mean is taken out.
        zero: Fraction of values that are exactly zero.
        near_zero: Fraction of values below `NEAR_ZERO` of the standard deviation, zeros among them.
        dead: Fraction of units that were zero on all samples and positions.
        silent: The part of `dead` whose inputs were exactly zero too: nothing came, such as behind a
            normalisation whose scale begins at zero.
        saturated: Fraction of values within `SATURATED_WITHIN` of the range of a bound; None without bounds.
        gate: It is multiplied with something else, or part of the branch that makes such a factor.
        hidden: Layers with weights come after it.
        counts: Of the histogram, between `low` and `high`; the outermost bins hold what lies beyond.
    """

    name: str
    kind: str
    samples: int
    unit_samples: int
    units: int
    mean: float
    std: float
    spread: float
    zero: float
    near_zero: float
    dead: float
    silent: float
    saturated: float | None
    gate: bool
    hidden: bool
    counts: tuple[int, ...] = field(repr=False)
    low: float
    high: float

    @property
    def can_die(self) -> bool:
        """Whether a unit of it that is always zero has no gradient: ReLUs that are no gates."""
        return self.kind == "relu" and not self.gate


class LayerSums:
    """Sums over the values of one layer, and each unit's extremes. Nothing here waits for the device."""

    def __init__(self, name: str, kind: str, *, loose: bool = False) -> None:
        self.name, self.kind, self.loose = name, kind, loose
        self.gate = self.hidden = False
        self.shape: tuple[int, ...] = ()
        self.sums: Tensor | None = None  # (_SUMS,) float64: values, samples, zeros, near zeros, saturated
        self.moments: Tensor | None = None  # (2, C) float64: values and squares of each unit, summed
        self.peak: Tensor | None = None  # (C,) largest |output| of each unit
        self.lowest: Tensor | None = None  # (C,) of a ReLU the least input of each unit
        self.samples_before = 0  # of an earlier record, that the extremes are of too
        self.counts: Tensor | None = None  # (BINS,) over all processes, where there are several
        self._values: list[Tensor] = []

    def add(self, output: Tensor, dim: int, lowest: Tensor | None) -> None:
        """Take one batch in.

        Args:
            output: (B, ...), at least two dimensions.
            dim: The dimension of the units.
            lowest: (C,) from `lowest_of` of a ReLU's input, else None.
        """
        x = output if output.dtype in (torch.float32, torch.float64) else output.float()
        dims = [d for d in range(x.ndim) if d != dim]
        variances, means = torch.var_mean(x, dims, correction=0)  # (C,)
        std = (variances.mean() + means.var(correction=0)).sqrt()
        count = x.numel()
        near = (x.abs() <= NEAR_ZERO * std).sum()
        saturated = torch.zeros_like(std)
        if self.kind in BOUNDS:
            low, high = BOUNDS[self.kind]
            margin = SATURATED_WITHIN * (high - low)
            saturated = ((x < low + margin) | (x > high - margin)).sum()
        precise = torch.float32 if x.device.type == "mps" else torch.float64
        sums = torch.stack([part.to(precise) for part in ((x == 0).sum(), near, saturated)])
        counts = [torch.full((1,), number, dtype=precise, device=x.device) for number in (count, len(x))]
        sums = torch.cat([*counts, sums])
        means = means.to(precise)  # its square is taken out again: exactly, in one batch
        moments = torch.stack([means, variances.to(precise) + means * means]) * (count / len(means))
        peak = torch.maximum(x.amax(dims), -x.amin(dims))
        lowest = torch.zeros_like(peak) if lowest is None else lowest.to(peak.dtype)
        self.shape = tuple(x.shape)
        if self.sums is None or self.moments is None or self.moments.shape != moments.shape:
            self.sums, self.moments = sums, moments
        else:
            self.sums, self.moments = self.sums + sums, self.moments + moments
        self._extend(peak, lowest)
        if sum(map(len, self._values)) < _SAMPLED_AT_MOST:
            self._values.append(_some_of(x))

    def _extend(self, peak: Tensor, lowest: Tensor) -> None:
        if self.peak is not None and self.lowest is not None and self.peak.shape == peak.shape:
            peak, lowest = torch.maximum(self.peak, peak), torch.minimum(self.lowest, lowest)
        self.peak, self.lowest = peak, lowest

    def extend(self, peak: Tensor, lowest: Tensor, samples: int) -> None:
        """Have the extremes be of earlier batches too, on which units had these."""
        assert self.peak is not None
        if self.peak.shape == peak.shape:
            self._extend(peak.to(self.peak), lowest.to(self.peak))
            self.samples_before = samples

    def histogram(self) -> Tensor:
        """Return the counts of the values kept, (BINS,), between the bounds that the sums and peaks give."""
        assert self.sums is not None
        assert self.moments is not None
        assert self.peak is not None
        mean, squares = self.moments.sum(1) / self.sums[0]
        reach = _DEVIATIONS * (squares - mean * mean).clamp_min(0).sqrt()
        low, high = self._range(mean, reach, self.peak.max().to(mean.dtype))
        values = torch.cat(self._values).to(mean.dtype)
        places = ((values - low) / (high - low) * BINS).nan_to_num(-1).floor()
        places = places.clamp(0, BINS - 1).masked_fill(~values.isfinite(), -1)
        return (places[:, None] == torch.arange(BINS, device=values.device)).sum(0).to(mean.dtype)

    def _range(self, mean: Tensor, reach: Tensor, peak: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bounds: no far outlier shall squeeze the rest into one bin."""
        if self.kind in BOUNDS:
            low, high = (torch.full_like(mean, bound) for bound in BOUNDS[self.kind])
            return low, high
        low = torch.zeros_like(mean) if self.kind == "relu" else torch.maximum(mean - reach, -peak)
        high = torch.minimum(mean + reach, peak)
        return low, torch.where(high > low, high, low + 1)

    def flat(self) -> Tensor:
        """Return all that is kept as one float64 vector."""
        assert self.sums is not None
        assert self.peak is not None
        assert self.lowest is not None
        counts = self.histogram() if self.counts is None else self.counts
        assert self.moments is not None
        parts = (self.sums, self.moments.flatten(), counts, self.peak, self.lowest)
        return torch.cat([part.to(self.sums.dtype) for part in parts])

    def length(self) -> int:
        """Return the length of `flat`."""
        assert self.peak is not None
        return _SUMS + BINS + 4 * len(self.peak)

    def read(self, flat: Tensor, most_samples: int | None) -> LayerActivations:
        """Return the figures from what `flat` returned, in main memory."""
        assert self.peak is not None
        units = len(self.peak)
        count, samples, zero, near, saturated = flat[:_SUMS].tolist()
        means, squares, counts, peak, lowest = torch.split(flat[_SUMS:], [units, units, BINS, units, units])
        means, squares = means / (count / units), squares / (count / units)
        mean = means.mean().item()
        std = (squares.mean() - mean**2).clamp_min(0).sqrt().item()
        mean_, reach = flat.new_tensor(mean), flat.new_tensor(_DEVIATIONS * std)
        low, high = (bound.item() for bound in self._range(mean_, reach, peak.max()))
        seen = int(samples) if most_samples is None else min(int(samples), most_samples)
        dead = peak == 0
        return LayerActivations(
            name=self.name,
            kind=self.kind,
            samples=seen,
            unit_samples=seen + self.samples_before,
            units=units,
            mean=mean,
            std=std,
            spread=(squares - means * means).mean().clamp_min(0).sqrt().item(),
            zero=zero / count,
            near_zero=near / count,
            dead=dead.double().mean().item(),
            silent=(dead & (lowest == 0)).double().mean().item() if self.kind == "relu" else 0.0,
            saturated=saturated / count if self.kind in BOUNDS else None,
            gate=self.gate,
            hidden=self.hidden,
            counts=tuple(int(number) for number in counts.tolist()),
            low=low,
            high=high,
        )


def lowest_of(x: Tensor, dim: int) -> Tensor:
    """Return the least value of each unit, (C,)."""
    return x.amin([d for d in range(x.ndim) if d != dim])


def _some_of(x: Tensor) -> Tensor:
    """Return up to some thousand values, evenly from all samples, positions and units."""
    step = max(x.numel() // _SAMPLED, 1)
    while gcd(step, x.numel()) > 1:  # else it could meet the same units in each row
        step += 1
    return x.reshape(-1)[::step][:_SAMPLED].clone()
