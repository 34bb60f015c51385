"""Decide what a leg asks next: at first, again, for a second opinion, or the doubtful items alone. Frames in, asks out.

A generation is all shards that ask one leg at one stage for the n-th time; the next one is decided only when all of
it has ended, from what was read. The same store therefore always leads to the same next generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.plans import Leg
from semtel_batch.quality.doubt import SECOND_PASS, check, doubtful
from semtel_batch.quality.garbled import half
from semtel_batch.records import Doubt, Outcome, Stage
from semtel_batch.results import latest, owed
from semtel_batch.rows import Generation

Rows = npt.NDArray[np.uint32]
_UNEXECUTED = (Outcome.EXPIRED.value, Outcome.CANCELLED.value)
_ITEM = ["row", "classifier"]
_SMALLEST_SPLIT = 4  # conversations a pack: half of three is nearly alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """These classifiers of these conversations, so many conversations a request."""

    classifiers: tuple[str, ...]
    rows: Rows
    per_request: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """The generation to cut now. No asks: it has nothing to do and ends at once."""

    generation: Generation
    asks: tuple[Ask, ...]


def next_generation(
    leg: Leg,
    history: Sequence[Generation],
    labels: pl.DataFrame,
    unique_rows: Rows,
    max_attempts: int,
    pack_size: int | None = None,
) -> Next | None:
    """What to cut for a leg, or None: its last generation still runs, or the leg is finished.

    `labels` is what was read of this leg so far, `unique_rows` the conversations worth asking, `pack_size` the
    conversations that a request bears, as learned from what was read; None: as many as the strategy says.
    """
    fits = pack_size or leg.strategy.conversations_per_request
    if not history:
        ask = Ask(classifiers=leg.classifiers, rows=unique_rows, per_request=leg.strategy.conversations_per_request)
        return _next(leg, Stage.CLASSIFY, 0, [ask] if len(unique_rows) else [])
    last = history[-1]
    if not last.ended:
        return None
    stage_labels = labels.filter(pl.col("stage") == last.stage.value)
    again = owed(stage_labels) if last.attempt + 1 < max_attempts else stage_labels.clear()
    if again.height:
        is_last = last.attempt + 2 >= max_attempts
        return _next(leg, last.stage, last.attempt + 1, _asked_again(again, leg, last, fits, is_last=is_last))
    return _next_stage(leg, last.stage, labels, fits)


def once_more(leg: Leg, history: Sequence[Generation], items: pl.DataFrame) -> Next:
    """A generation that asks these items again although their attempts were spent, because the user said so."""
    attempts = [g.attempt for g in history if g.stage is Stage.CLASSIFY]
    return _next(leg, Stage.CLASSIFY, max(attempts, default=-1) + 1, grouped(items, leg, 1))


def in_order(generations: Sequence[Generation], leg: int) -> list[Generation]:
    """A leg's generations, oldest first."""
    order = list(Stage)
    mine = [g for g in generations if g.leg == leg]
    return sorted(mine, key=lambda g: (order.index(g.stage), g.attempt))


def _next_stage(leg: Leg, stage: Stage, labels: pl.DataFrame, fits: int) -> Next | None:
    """Classify, then what the strategy doubts by, then the doubtful items alone; each stage once.

    Where those go to another model, what the first one failed at goes with them.
    """
    doubt = leg.strategy.doubt
    if doubt is Doubt.NONE or stage is Stage.RECLASSIFY:
        return None
    if stage is Stage.CLASSIFY and doubt in SECOND_PASS:
        given = latest(labels).filter(pl.col("outcome") == Outcome.ANSWERED.value)
        return _next(leg, SECOND_PASS[doubt], 0, grouped(given, leg, fits))
    found = doubtful(check(doubt, labels, leg.strategy.confidence_below))
    return _next(leg, Stage.RECLASSIFY, 0, _alone(pl.concat([found, *_without_a_label(leg, labels, found)]), leg))


def _without_a_label(leg: Leg, labels: pl.DataFrame, doubted: pl.DataFrame) -> list[pl.DataFrame]:
    """What the first model gave no label at all, where another one may: it goes to that one too."""
    if leg.strategy.escalate is None:
        return []
    given = pl.col("outcome") == Outcome.ANSWERED.value
    first = labels.filter(pl.col("stage") == Stage.CLASSIFY.value)
    found = first.filter(~given).join(first.filter(given), on=_ITEM, how="anti").select(_ITEM).unique()
    return [found.join(doubted, on=_ITEM, how="anti")]


def _next(leg: Leg, stage: Stage, attempt: int, asks: Sequence[Ask]) -> Next:
    generation = Generation(leg=leg.number, stage=stage, attempt=attempt, ended=not asks)
    return Next(generation=generation, asks=tuple(asks))


def grouped(items: pl.DataFrame, leg: Leg, per_request: int) -> list[Ask]:
    """One ask per set of classifiers that the same conversations need: what is good is not asked again."""
    by_row = items.group_by("row").agg(pl.col("classifier").unique().sort()).sort("row")
    groups = by_row.group_by("classifier", maintain_order=True).agg("row")
    return [
        Ask(
            classifiers=tuple(name for name in leg.classifiers if name in set(names)),
            rows=np.asarray(rows, dtype=np.uint32),
            per_request=per_request,
        )
        for names, rows in groups.iter_rows()
    ]


def _asked_again(items: pl.DataFrame, leg: Leg, last: Generation, fits: int, *, is_last: bool) -> list[Ask]:
    """What is owed, in the packs that fit how it failed.

    What was never executed (its batch expired, or was cancelled) is asked as before, by as many as `fits`. Where a
    pack failed as a whole, or half of it, it is split: half packs still share their instructions, and of two halves
    mostly one is good. What a good pack left out, what failed in a half pack, and what has one try left is asked alone.
    """
    n = leg.strategy.conversations_per_request
    if n == 1 or last.stage is Stage.RECLASSIFY:
        return grouped(items, leg, 1)
    asked = n if last.stage is Stage.CLASSIFY else fits
    split = min(half(asked), fits)
    by_row = items.group_by("row").agg(
        pl.col("shard").max(), pl.col("request").max(), unsent=pl.col("outcome").is_in(_UNEXECUTED).all()
    )
    failed_together = pl.len().over("shard", "request", "unsent")
    can_split = last.attempt == 0 and not is_last and asked >= _SMALLEST_SPLIT
    whole = pl.col("unsent") & (failed_together > 1)
    broken = ~pl.col("unsent") & (failed_together * 2 >= asked) & pl.lit(can_split)
    sizes = by_row.select("row", size=pl.when(whole).then(fits).when(broken).then(split).otherwise(1))
    sized = items.join(sizes, on="row", how="left")
    by_size = ((size, sized.filter(pl.col("size") == size)) for size in dict.fromkeys((fits, split, 1)))
    return [ask for size, of_size in by_size for ask in grouped(of_size, leg, size)]


def _alone(items: pl.DataFrame, leg: Leg) -> list[Ask]:
    """Each doubtful item by the reference strategy: one conversation, one classifier."""
    asks = []
    for name in leg.classifiers:
        rows = items.filter(pl.col("classifier") == name)["row"].sort().to_numpy()
        if len(rows):
            asks.append(Ask(classifiers=(name,), rows=rows.astype(np.uint32), per_request=1))
    return asks
