"""From which confidence on a label is kept: chosen on a part of the sample, certified on the rest of it.

The lowest confidence is chosen at which the labels kept of a third of the sample differ from the reference in at most
a quarter of what is allowed, since the lowest of many looks better than it is. Then it is tested once, on the other two
thirds, for each classifier, by the exact test of `certificate`. One test of one threshold needs no correction. Frames
in, a record out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from semtel_batch.quality.certificate import Target, p_value

_KEY = ["conversation_id", "classifier"]
_GUIDE = 1 / 3
_LOWEST, _HIGHEST = 0.0001, 0.9999
TARGET = Target(max_disagreement=0.05, delta=0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One classifier's items that the threshold was not chosen on."""

    classifier: str
    n_kept: int
    n_kept_different: int
    n: int  # kept, or asked again alone
    n_different: int

    @property
    def p_value(self) -> float:
        return p_value(self.n_kept_different, self.n_kept, TARGET.max_disagreement) if self.n_kept else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A confidence, and what the labels that reach it are worth."""

    below: float  # labels under it are asked again
    held: tuple[Held, ...]

    @property
    def certified(self) -> bool:
        """Whether at least 95 % of the kept labels of every classifier equal the reference's, with 95 % confidence."""
        return bool(self.held) and max(one.p_value for one in self.held) <= TARGET.delta


def threshold(first: pl.DataFrame, reference: pl.DataFrame, again: pl.DataFrame, seed: int) -> Threshold | None:
    """Choose and test a threshold; None where no threshold keeps few enough different labels.

    All have conversation_id, classifier and label, `first` confidence too: the labels before any was asked again.
    `again` are the reference's labels asked anew, which is what asking a doubted item alone is. A label without a
    confidence is kept, as it is in a run.
    """
    items = _items(first, reference, again)
    ids = items["conversation_id"].unique().sort()
    chosen = np.random.default_rng(seed).permutation(len(ids))[: math.ceil(_GUIDE * len(ids))]
    is_guide = pl.col("conversation_id").is_in(ids[chosen].implode())
    below = _chosen(items.filter(is_guide))
    if below is None:
        return None
    rest = items.filter(~is_guide)
    return Threshold(
        below=below, held=tuple(_held(rest, str(name), below) for name in rest["classifier"].unique().sort())
    )


def _items(first: pl.DataFrame, reference: pl.DataFrame, again: pl.DataFrame) -> pl.DataFrame:
    known = [
        frame.select(*_KEY, pl.col("label").alias(name)).drop_nulls().unique(_KEY, keep="first", maintain_order=True)
        for frame, name in ((reference, "truth"), (again, "again"))
    ]
    items = first.select(*_KEY, "label", sure=pl.col("confidence").fill_null(math.inf).cast(pl.Float64))
    items = items.drop_nulls("label").unique(_KEY, keep="first", maintain_order=True)
    items = items.join(known[0], on=_KEY).join(known[1], on=_KEY)
    return items.with_columns(wrong=pl.col("label") != pl.col("truth"), still=pl.col("again") != pl.col("truth"))


def _chosen(guide: pl.DataFrame) -> float | None:
    """The lowest confidence whose kept labels differ, in every classifier, in at most a quarter of what is allowed."""
    for below in _candidates(guide["sure"].to_list()):
        shares = guide.filter(pl.col("sure") >= below).group_by("classifier").agg(pl.col("wrong").mean())["wrong"]
        if len(shares) and max(shares.to_list()) <= TARGET.max_disagreement / 4:
            return below
    return None


def _candidates(confidences: Sequence[float]) -> list[float]:
    """Ascending; rounded up, so that what is kept was seen."""
    rounded = (min(_HIGHEST, max(_LOWEST, math.ceil(one * 1e4) / 1e4)) for one in confidences if math.isfinite(one))
    return sorted(set(rounded))


def _held(rest: pl.DataFrame, classifier: str, below: float) -> Held:
    own = rest.filter(pl.col("classifier") == classifier)
    kept, doubted = own.filter(pl.col("sure") >= below), own.filter(pl.col("sure") < below)
    return Held(
        classifier=classifier,
        n_kept=kept.height,
        n_kept_different=int(kept["wrong"].sum()),
        n=own.height,
        n_different=int(kept["wrong"].sum()) + int(doubted["still"].sum()),
    )
