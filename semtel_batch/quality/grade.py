"""Which items the grader doubts: its verdicts in, one row an item out; pure."""

from __future__ import annotations

import polars as pl

from semtel_batch.records import Outcome

CORRECT, INCORRECT, UNGRADED = "correct", "incorrect", "ungraded"
_ITEM = ("row", "classifier")


def grade(verdicts: pl.DataFrame, items: pl.DataFrame | None = None) -> pl.DataFrame:
    """Decide each item's grade from the grader's verdicts of all attempts: correct, incorrect or ungraded.

    `verdicts` has row, classifier, label and outcome, one line an attempt. One "incorrect" among an item's answers
    makes it doubtful: asking once too often is cheap. Where the grader itself gave no usable answer the label is kept
    and counted as ungraded, since its silence says nothing about the label. With `items` (row, classifier) the result
    has exactly these, in their order, and an item without any verdict is ungraded too.
    """
    said = pl.when(pl.col("outcome") == Outcome.ANSWERED.value).then(pl.col("label"))
    graded = verdicts.group_by(*_ITEM, maintain_order=True).agg(
        graded=pl.when((said == INCORRECT).any())
        .then(pl.lit(INCORRECT))
        .when((said == CORRECT).any())
        .then(pl.lit(CORRECT))
        .otherwise(pl.lit(UNGRADED))
    )
    if items is None:
        return graded
    wanted = items.select(*_ITEM).unique(maintain_order=True)
    return wanted.join(graded, on=_ITEM, how="left", maintain_order="left").with_columns(
        pl.col("graded").fill_null(UNGRADED)
    )


def doubtful(graded: pl.DataFrame) -> pl.DataFrame:
    """Keep the items to classify again, alone: those that the grader called incorrect."""
    return graded.filter(pl.col("graded") == INCORRECT).select(*_ITEM)


def counts(graded: pl.DataFrame) -> pl.DataFrame:
    """Count correct, incorrect and ungraded items of each classifier."""
    kinds = {kind: (pl.col("graded") == kind).sum().cast(pl.Int64) for kind in (CORRECT, INCORRECT, UNGRADED)}
    return graded.group_by("classifier").agg(**kinds).sort("classifier")
