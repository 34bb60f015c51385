"""From which confidence on a label is kept: certified by the exact test, tried from the safest to the boldest.

Thresholds are tried in an order that is fixed before any tested label is held against the reference's: each keeps a few
labels more than the one before. A third of the sample tells where to begin: at the threshold that is likeliest to hold.
From there on each is tested on the other two thirds by the exact test of `certificate`, for each classifier; the first
that fails ends it, and the last that held is certified, with no correction for how many were tried (fixed-sequence
testing, as in `quality.selective`). Frames in, a record out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from semtel_batch.quality import special
from semtel_batch.quality.certificate import Target, p_value, zero_error_size
from semtel_batch.records import Stage

_KEY = ["conversation_id", "classifier"]
_GUIDE = 1 / 3
_GROWTH = 1.02  # each step keeps so many more
_LOWEST, _HIGHEST = 0.0001, 0.9999
TARGET = Target(max_disagreement=0.05, delta=0.05)
"""What kept labels are to show where nothing else is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One classifier's items: those that were kept, and all of them."""

    classifier: str
    n_kept: int
    n_kept_different: int
    n: int  # kept, or asked again alone
    n_different: int

    def p_value(self, target: Target = TARGET) -> float:
        return p_value(self.n_kept_different, self.n_kept, target.max_disagreement) if self.n_kept else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A confidence, and what the labels that reach it are worth."""

    below: float  # labels under it are asked again
    held: tuple[Held, ...]
    target: Target = TARGET

    @property
    def certified(self) -> bool:
        """Whether enough of the kept labels of every classifier equal the reference's, with the target's confidence."""
        return bool(self.held) and max(one.p_value(self.target) for one in self.held) <= self.target.delta


def threshold(
    first: pl.DataFrame, reference: pl.DataFrame, again: pl.DataFrame, seed: int, target: Target = TARGET
) -> Threshold | None:
    """The boldest threshold up to the first that fails, or the one begun with where it fails; None of too few labels.

    All have conversation_id, classifier and label, `first` confidence too: the labels before any was asked again.
    `again` are the reference's labels asked anew, which is what asking a doubted item alone is. A label without a
    confidence is kept, as it is in a run. `seed` draws the conversations that say where to begin.
    """
    items = _items(first, reference, again)
    ids = items["conversation_id"].unique().sort()
    drawn = np.random.default_rng(seed).permutation(len(ids))[: math.ceil(_GUIDE * len(ids))]
    is_guide = pl.col("conversation_id").is_in(ids[drawn].implode())
    guide, tested = items.filter(is_guide), items.filter(~is_guide)
    found: Threshold | None = None
    for below in _from_the_likeliest(_steps(tested, target), guide, tested, target):
        step = Threshold(below=below, held=_held(tested, below), target=target)
        if not step.certified:
            return found or step
        found = step
    return found


def as_it_ran(labels: pl.DataFrame, reference: pl.DataFrame) -> tuple[Held, ...]:
    """Count what a way to doubt kept and asked again in its run, a classifier each.

    `labels` and `reference` have conversation_id, classifier and label, `labels` the stage that gave it too. A text
    that occurs twice counts once.
    """
    known = reference.select(*_KEY, truth="label").drop_nulls().unique(_KEY, keep="first", maintain_order=True)
    items = labels.select(*_KEY, "label", is_kept=pl.col("stage") != Stage.RECLASSIFY.value).drop_nulls()
    items = items.unique(_KEY, keep="first", maintain_order=True).join(known, on=_KEY)
    counted = (
        items.with_columns(wrong=pl.col("label") != pl.col("truth"))
        .group_by("classifier")
        .agg(
            n_kept=pl.col("is_kept").sum(),
            n_kept_different=(pl.col("is_kept") & pl.col("wrong")).sum(),
            n=pl.len(),
            n_different=pl.col("wrong").sum(),
        )
    )
    return tuple(Held(**row) for row in counted.sort("classifier").iter_rows(named=True))


def _items(first: pl.DataFrame, reference: pl.DataFrame, again: pl.DataFrame) -> pl.DataFrame:
    known = [
        frame.select(*_KEY, pl.col("label").alias(name)).drop_nulls().unique(_KEY, keep="first", maintain_order=True)
        for frame, name in ((reference, "truth"), (again, "again"))
    ]
    items = first.select(*_KEY, "label", sure=pl.col("confidence").fill_null(math.inf).cast(pl.Float64))
    items = items.drop_nulls("label").unique(_KEY, keep="first", maintain_order=True)
    items = items.join(known[0], on=_KEY).join(known[1], on=_KEY)
    return items.with_columns(wrong=pl.col("label") != pl.col("truth"), still=pl.col("again") != pl.col("truth"))


def _steps(items: pl.DataFrame, target: Target) -> list[float]:
    """Descending confidences to try, each keeping so many labels more; how sure labels are decides, not what they are.

    The first keeps as many of every classifier as certify with no error; none where there are not enough.
    """
    least = zero_error_size(target)
    groups = [group["sure"].sort(descending=True).to_list() for group in items.partition_by("classifier")]
    if not groups or min(map(len, groups)) < least:
        return []
    start = min(group[least - 1] for group in groups)
    pooled = items["sure"].sort(descending=True).to_list()
    n = sum(sure >= start for sure in pooled)
    steps = [start]
    while n < len(pooled):
        n = min(len(pooled), max(n + 1, int(n * _GROWTH)))
        steps.append(pooled[n - 1])
    return list(dict.fromkeys(map(_rounded, steps)))


def _from_the_likeliest(
    steps: Sequence[float], guide: pl.DataFrame, tested: pl.DataFrame, target: Target
) -> Sequence[float]:
    """The steps from the one on that is likeliest to pass, if the tested labels err as the guide's do."""
    chances = []
    for below in steps:
        sizes = {one.classifier: one.n_kept for one in _held(tested, below)}
        shares = {one.classifier: (one.n_kept_different + 0.5) / (one.n_kept + 1) for one in _held(guide, below)}
        chances.append(math.prod(_chance(n, shares.get(name, 0.5), target) for name, n in sizes.items()))
    return steps[int(np.argmax(chances)) :] if chances else ()


def _chance(n: int, share: float, target: Target) -> float:
    """That n kept labels pass the test, if a share of such labels differs."""
    allowed = int(n * target.max_disagreement)
    while allowed >= 0 and p_value(allowed, n, target.max_disagreement) > target.delta:
        allowed -= 1
    return float(special.bdtr(allowed, n, min(1.0, share))) if n and allowed >= 0 else 0.0


def _rounded(sure: float) -> float:
    """Rounded up, so that what is kept was seen."""
    return min(_HIGHEST, max(_LOWEST, math.ceil(sure * 1e4) / 1e4)) if math.isfinite(sure) else _HIGHEST


def _held(items: pl.DataFrame, below: float) -> tuple[Held, ...]:
    """What a threshold keeps, a classifier each."""
    kept, wrong, still = pl.col("sure") >= below, pl.col("wrong"), pl.col("still")
    counted = items.group_by("classifier").agg(
        n_kept=kept.sum(),
        n_kept_different=(kept & wrong).sum(),
        n=pl.len(),
        n_different=(kept & wrong).sum() + (~kept & still).sum(),
    )
    return tuple(Held(**row) for row in counted.sort("classifier").iter_rows(named=True))
