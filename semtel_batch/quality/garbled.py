"""How many conversations a prompt bears before answers drop or garble them: counts by pack size in, a size out; pure.

A pack is *broken* where its answer left out, or was cut off before, a quarter or more of its items, or could not be
read at all: what is asked again then costs more than the pack saved. A size doesn't hold where surely more than a tenth
of its packs break: by the exact lower bound, so that one bad answer shrinks nothing and only more packs, not another
look at the same ones, can.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from semtel_batch.measurements import Packs
from semtel_batch.quality.agreement import clopper_pearson
from semtel_batch.records import Outcome

MOST_BROKEN = 0.1  # share of the packs of a size
BROKEN_FROM = 0.25  # share of a pack's items
_LEVEL = 0.01  # of calling a size broken that isn't, a look
_ROUNDING = 1e-9  # two of two bound it at a tenth exactly
_LOST = (Outcome.MISSING.value, Outcome.TRUNCATED.value)
_READABLE = (Outcome.ANSWERED.value, Outcome.TRUNCATED.value)


def half(n: int) -> int:
    """The size of the packs that a failed pack of `n` is split into."""
    return -(-n // 2)


def halves(n: int) -> tuple[int, ...]:
    """A size and all that splitting it can come to, down to one."""
    return (n,) if n <= 1 else (n, *halves(half(n)))


def tally(answers: pl.DataFrame, labels: pl.DataFrame, model: str, classifiers: Iterable[str]) -> tuple[Packs, ...]:
    """Count a shard's packs by size; of two conversations or more, and only those that the model answered.

    `answers` has request and outcome, `labels` request, slot and outcome, one row an item.
    """
    executed = answers.filter(pl.col("outcome").is_in(_READABLE)).select("request")
    outcome = pl.col("outcome")
    packs = labels.join(executed, on="request", how="semi").group_by("request")
    counted = packs.agg(
        size=pl.col("slot").n_unique(),
        lost=outcome.is_in(_LOST).mean(),
        unread=(outcome == Outcome.INVALID.value).all(),
    ).filter(pl.col("size") > 1)
    broken = (pl.col("lost") >= BROKEN_FROM) | pl.col("unread")
    by_size = counted.group_by("size").agg(n=pl.len(), n_broken=broken.sum()).sort("size")
    versions = tuple(sorted(classifiers))
    return tuple(
        Packs(model=model, classifiers=versions, size=size, n=n, n_broken=n_broken)
        for size, n, n_broken in by_size.iter_rows()
    )


def size_that_holds(seen: Sequence[Packs], size: int) -> int:
    """Give the largest of a size and its halves below which nothing breaks too often; the size where nothing is known.

    Packs of (half, size] are counted together, and where a smaller size breaks, no larger one is held to be better. So
    a size never grows back within what was seen, and evidence of other sizes is not needed to shrink it twice.
    """
    holds = size
    for upper in halves(size)[:-1]:
        lower = half(upper)
        if breaks(one for one in seen if lower < one.size <= upper):
            holds = lower
    return holds


def breaks(packs: Iterable[Packs]) -> bool:
    """Whether surely more than a tenth of such packs break."""
    found = [(one.n_broken, one.n) for one in packs]
    n_broken, n = sum(x for x, _ in found), sum(n for _, n in found)
    return n > 0 and clopper_pearson(n_broken, n, 1 - 2 * _LEVEL)[0] > MOST_BROKEN + _ROUNDING
