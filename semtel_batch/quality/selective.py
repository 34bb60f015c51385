"""Which of a small model's labels may be kept: the surest, as many as an exact test certifies, and none of the rest.

A label is kept where the model's confidence reaches a threshold. Thresholds are tried from the safest to the boldest,
in an order fixed before any label of the calibration sample was looked at, each by the exact test of `certificate` over
the labels it would keep; the first that fails ends it. So P(the labels kept disagree more than the target allows) ≤ δ,
with no correction for how many were tried (fixed-sequence testing; Geifman and El-Yaniv, NeurIPS 2017, search the same
thresholds with a union bound instead). Pure; arrays in, records out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semtel_batch.quality import special
from semtel_batch.quality.certificate import Target, p_value, zero_error_size

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_START = 1.6  # times the labels that certify with no error: room for one error at the first step
_GROWTH = 1.06  # each step keeps so many more


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is kept at a certified threshold. With `threshold` infinite nothing is, and nothing is claimed."""

    threshold: float
    n: int  # labels of the calibration sample that are kept
    n_different: int
    p_value: float
    coverage: float  # share of the population that is kept

    @property
    def certified(self) -> bool:
        return bool(np.isfinite(self.threshold))


NOTHING = Kept(threshold=float("inf"), n=0, n_different=0, p_value=1.0, coverage=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """Confidences on labels that are not the calibration sample's, and which were right: where to begin is told by it.

    It may be biased: a bad beginning certifies less, and never too much.
    """

    confidence: Floats
    right: Flags


def certified_threshold(
    confidence: Floats, right: Flags, population: Floats, target: Target, guide: Guide | None = None
) -> Kept:
    """The boldest threshold of the fixed sequence up to the first that fails.

    `confidence` and `right` are of a uniform sample; `population` are the confidences of all that it was drawn from,
    itself included, and only coverage is told of it: the labels promised are those of conversations still to come, so
    the test is the binomial one. Of a finite population with all labels at hand, whatever was seen would be certain,
    and say nothing. What is never to be kept, whatever the threshold, has confidence -inf in both.
    """
    order = np.argsort(-confidence, kind="stable")
    sure = confidence[order].astype(np.float64)
    different = np.cumsum(~right[order])
    everyone = np.sort(population.astype(np.float64))
    best = NOTHING
    for n in _sizes(int(np.isfinite(sure).sum()), target, guide):
        # Ties are kept together: a threshold can't tell them apart.
        threshold = float(sure[n - 1])
        n_kept = int(np.searchsorted(-sure, -threshold, side="right"))
        n_population = len(everyone) - int(np.searchsorted(everyone, threshold, side="left"))
        x = int(different[n_kept - 1])
        p = p_value(x, n_kept, target.max_disagreement)
        if p > target.delta:
            break
        best = Kept(
            threshold=threshold, n=n_kept, n_different=x, p_value=p, coverage=n_population / max(1, len(everyone))
        )
    return best


def _sizes(n: int, target: Target, guide: Guide | None) -> list[int]:
    """How many of the sample's labels each step keeps; the sample's size and the guide decide, not its labels."""
    first = min(n, int(np.ceil(_START * zero_error_size(target))))
    if first < zero_error_size(target):
        return []
    sizes = [first]
    while sizes[-1] < n:
        sizes.append(min(n, max(sizes[-1] + 1, int(sizes[-1] * _GROWTH))))
    return sizes[_likeliest(sizes, n, target, guide) :] if guide is not None and len(guide.right) else sizes


def _likeliest(sizes: list[int], n: int, target: Target, guide: Guide) -> int:
    """The step that is likeliest to pass, if the sample errs as the guide does: a few labels bear hardly an error."""
    order = np.argsort(-guide.confidence, kind="stable")
    share_wrong = (np.cumsum(~guide.right[order]) + 0.5) / (np.arange(len(order)) + 1)
    chances = []
    for size in sizes:
        at = min(len(order) - 1, int(size / n * len(order)))
        allowed = int(size * target.max_disagreement)
        while allowed >= 0 and p_value(allowed, size, target.max_disagreement) > target.delta:
            allowed -= 1
        chances.append(float(special.bdtr(allowed, size, min(1.0, share_wrong[at]))) if allowed >= 0 else 0.0)
    return int(np.argmax(chances))
