"""Which labels are asked again alone, and why: three ways to doubt behind one door; frames in, frames out; pure.

Each way gives every item that has a label one of its words: the grader says correct or incorrect, a second run in other
packs agreed or split, the probability that the model gave its own label sure or unsure. Where a way has nothing to go
by (no verdict, no second answer, no logprobs) its silence says nothing about the label, which is kept: ungraded, unseen
or unknown.
"""

from __future__ import annotations

import polars as pl

from semtel_batch.quality.grade import INCORRECT, grade
from semtel_batch.records import Doubt, Outcome, Stage

AGREED, SPLIT, UNSEEN = "agreed", "split", "unseen"
SURE, UNSURE, UNKNOWN = "sure", "unsure", "unknown"
DOUBTED = (INCORRECT, SPLIT, UNSURE)
_ITEM = ["row", "classifier"]
SECOND_PASS = {Doubt.GRADER: Stage.GRADE, Doubt.RERUN: Stage.RERUN}
"""The pass that comes between classifying and reclassifying, for the ways that need one."""


def check(doubt: Doubt, labels: pl.DataFrame, below: float | None = None) -> pl.DataFrame:
    """Give each labelled item's verdict in `checked`; row and classifier beside it.

    `labels` has row, classifier, label, outcome, stage, attempt, shard and confidence, one line an item and attempt, of
    all stages. `below`: the probability under which a label is unsure.
    """
    if doubt is Doubt.GRADER:
        return grade(labels.filter(pl.col("stage") == Stage.GRADE.value)).rename({"graded": "checked"})
    first = _given(labels, Stage.CLASSIFY)
    if doubt is Doubt.RERUN:
        second = _given(labels, Stage.RERUN).select(*_ITEM, again="label")
        both = first.join(second, on=_ITEM, how="left", maintain_order="left")
        word = _of_three(pl.col("again").is_null(), UNSEEN, pl.col("again") == pl.col("label"), AGREED, SPLIT)
    elif doubt is Doubt.CONFIDENCE and below is not None:
        both = first
        word = _of_three(pl.col("confidence").is_null(), UNKNOWN, pl.col("confidence") >= below, SURE, UNSURE)
    else:
        both, word = first.clear(), pl.lit(None, pl.String)
    return both.select(*_ITEM, checked=word)


def doubtful(checked: pl.DataFrame) -> pl.DataFrame:
    """Keep the items to classify again, alone."""
    return checked.filter(pl.col("checked").is_in(DOUBTED)).select(*_ITEM)


def _given(labels: pl.DataFrame, stage: Stage) -> pl.DataFrame:
    """The last label that a stage gave to each item."""
    answered = labels.filter(pl.col("stage") == stage.value, pl.col("outcome") == Outcome.ANSWERED.value)
    return answered.sort("attempt", "shard").unique(_ITEM, keep="last", maintain_order=True)


def _of_three(none: pl.Expr, if_none: str, good: pl.Expr, if_good: str, if_not: str) -> pl.Expr:
    return pl.when(none).then(pl.lit(if_none)).when(good).then(pl.lit(if_good)).otherwise(pl.lit(if_not))
