"""A plan's labels as studies read them: with the prompt that each was given in."""

from __future__ import annotations

import polars as pl

from semtel_batch.conversations import load_index
from semtel_batch.network_plan import NETWORK
from semtel_batch.plans import Plan
from semtel_batch.results import conversations_folder, final_labels
from semtel_batch.store import Store
from semtel_batch.studies.evaluate import Origins

REUSED = "reused"
UNASKED = [REUSED, NETWORK]
"""How labels come about that a run asked nobody for: no second answers, and of no prompt."""


def labelled(store: Store, plan: Plan) -> pl.DataFrame:
    """Give all of a plan's items, one row a conversation and classifier: label, and where it comes from.

    Columns: conversation_id, row, classifier, label, how, stage, prompt (a number that names the request; null where
    nobody was asked for the label), slot, n_tokens, weight (conversations of the same text).
    """
    items = final_labels(store, plan)
    index = load_index(conversations_folder(store, plan), ["conversation_id", "first_row", "n_tokens"])
    request = pl.col("shard").cast(pl.Int64) * 2**32 + pl.col("request").cast(pl.Int64)
    own = items.with_columns(prompt=pl.when(~pl.col("how").is_in(UNASKED)).then(request))
    chosen = own.select("row", "classifier", "label", "how", "stage", "prompt", "slot", "weight")
    return index.join(chosen, left_on="first_row", right_on="row", how="inner", maintain_order="left").rename(
        {"first_row": "row"}
    )


def wide(items: pl.DataFrame, classifiers: list[str]) -> pl.DataFrame:
    """Give one row a conversation and one column a classifier."""
    chosen = [pl.col("label").filter(pl.col("classifier") == name).first().alias(name) for name in classifiers]
    return items.group_by("conversation_id", maintain_order=True).agg(chosen)


def origins(items: pl.DataFrame) -> Origins:
    """Give what `evaluate` asks of items beside their labels."""
    totals = items.drop_nulls("label").group_by("classifier", "label").agg(n=pl.len().cast(pl.Int64))
    return Origins(
        items=items.select("conversation_id", "classifier", "prompt", "slot", "n_tokens"),
        totals=totals.sort("classifier", "label"),
    )
