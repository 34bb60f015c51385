"""The noise floor, and label changes net of it: what a strategy changes beyond what the reference changes by itself.

The reference is run twice on one uniform sample: its two labels of an item differ by chance (the self-flip), and no
strategy can be told to agree with a run better than that run agrees with its own repetition. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semtel_batch.quality import special
from semtel_batch.quality.agreement import clopper_pearson
from semtel_batch.quality.certificate import Target, percent

_NUISANCE_DELTA = 0.001
"""Spent on bounding how many items change at all (see `excess_p_value`)."""

_GRID = 13
_MANY = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseFloor:
    """How often a classifier's label changes if the same question is asked twice, with an exact 95 % interval."""

    classifier: str
    n: int
    n_flipped: int

    @property
    def self_flip(self) -> float | None:
        return self.n_flipped / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        return clopper_pearson(self.n_flipped, self.n)

    def allows(self, target: Target) -> bool:
        """Whether the target can be reached item by item: the reference itself changes fewer labels than it allows."""
        return self.n == 0 or self.n_flipped / self.n < target.max_disagreement

    @property
    def wording(self) -> str:
        if not self.n:
            return f"{self.classifier}: noise floor unmeasured"
        low, high = self.interval
        return (
            f"{self.classifier}: asked twice in the same way, {percent(self.n_flipped / self.n)} of labels change "
            f"({percent(low)} – {percent(high)}, n={self.n:,})"
        )


def beyond_reach(floor: NoiseFloor, target: Target) -> str | None:
    """Say that a target asks for more than the reference keeps with itself, and what can be had; None where it can."""
    if floor.allows(target):
        return None
    return (
        f"{percent(1 - target.max_disagreement)} of single {floor.classifier} labels can't be promised: the reference "
        f"itself changes {percent(floor.self_flip or 0)} of them when it is asked again (n={floor.n:,}). What can be "
        "had is the distribution: label shares with intervals, or agreement net of that noise"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """Of each item 1[strategy ≠ reference] - 1[second reference ≠ reference], counted: +1, 0, -1."""

    n_worse: int
    n_same: int
    n_better: int

    @property
    def n(self) -> int:
        return self.n_worse + self.n_same + self.n_better

    @property
    def mean(self) -> float | None:
        """Label changes beyond the reference's own, as a share of items; negative: fewer."""
        return (self.n_worse - self.n_better) / self.n if self.n else None


def excess(strategy_differs: npt.ArrayLike, reference_differs: npt.ArrayLike) -> Excess:
    """Count the pairs of both flags, item by item; the two arrays are of one length."""
    strategy, reference = np.asarray(strategy_differs, dtype=bool), np.asarray(reference_differs, dtype=bool)
    worse, better = int((strategy & ~reference).sum()), int((~strategy & reference).sum())
    return Excess(n_worse=worse, n_same=len(strategy) - worse - better, n_better=better)


def excess_p_value(seen: Excess, max_excess: float) -> float:
    """Give the p-value of "at least max_excess more labels change than by the reference alone".

    How many items change at all, d, is not known: the p-value is the largest over d's exact confidence interval, plus
    what that interval may miss (R. Berger, D. Boos, JASA 89, 1994), each from the exact law of n_worse - n_better. At
    max_excess 3 %, no true excess and n=500 with a self-flip of 3 % it certifies 91 % of the time, where bets whose
    wealth may be looked at any time reach 64 %.
    """
    if not seen.n:
        return 1.0
    low, high = clopper_pearson(seen.n_worse + seen.n_better, seen.n, 1 - _NUISANCE_DELTA)
    if high <= abs(max_excess):  # so few items change at all that their net can't be as many
        return _NUISANCE_DELTA if max_excess > 0 else 1.0
    changing = np.linspace(max(low, abs(max_excess), 1e-9), high, _GRID)
    net = seen.n_worse - seen.n_better
    return min(1.0, float(net_cdf(net, seen.n, changing, max_excess).max()) + _NUISANCE_DELTA)


def net_cdf(net: int, n: int, changing: npt.ArrayLike, max_excess: float) -> npt.NDArray[np.float64]:
    """Give P(n_worse - n_better ≤ net) if a share `changing` of n items changes and max_excess more to the worse.

    One probability for each share given.
    """
    d = np.atleast_1d(np.asarray(changing, dtype=np.float64))[:, None]
    reach = 10 * np.sqrt(n * d * (1 - d)) + 20  # beyond it lies less than 1e-20 of the binomial
    first, last = max(0, int((n * d - reach).min())), min(n, int((n * d + reach).max()) + 1)
    m = np.arange(first, last + 1)  # items that change: binomial; the worse among them: binomial again
    log_m = special.xlogy(m, d) + special.xlog1py(n - m, -d)
    log_m += -special.betaln(1 + n - m, 1 + m) - math.log1p(n)
    worse = np.floor((m + net) / 2)
    below = np.where(worse < 0, 0.0, special.bdtr(np.clip(worse, 0, m), m, (d + max_excess) / (2 * d)))
    return np.asarray((np.exp(log_m) * below).sum(axis=1))


def excess_interval(seen: Excess, confidence: float = 0.95) -> tuple[float, float]:
    """Give an interval of the excess share of items, both ends by inverting `excess_p_value`.

    Beyond 400 changing items the normal one, which is a tenth narrower there and covers as much."""
    if not seen.n:
        return -1.0, 1.0
    tail = (1 - confidence) / 2
    if seen.n_worse + seen.n_better > _MANY:
        return _normal_interval(seen, tail)
    mirrored = Excess(n_worse=seen.n_better, n_same=seen.n_same, n_better=seen.n_worse)
    return -_upper(mirrored, tail), _upper(seen, tail)


def _normal_interval(seen: Excess, tail: float) -> tuple[float, float]:
    mean, changing = (seen.n_worse - seen.n_better) / seen.n, (seen.n_worse + seen.n_better) / seen.n
    reach = -float(special.ndtri(tail)) * math.sqrt((changing - mean * mean) / seen.n)
    return max(mean - reach, -1.0), min(mean + reach, 1.0)


def _upper(seen: Excess, delta: float) -> float:
    low = seen.mean or 0.0
    changing = (seen.n_worse + seen.n_better) / seen.n
    high = min(1.0, low + 8 * math.sqrt(changing / seen.n) + 12 / seen.n)  # the normal limit lies far below
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if excess_p_value(seen, middle) <= delta else (middle, high)
    return high
