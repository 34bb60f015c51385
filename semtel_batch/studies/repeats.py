"""Runs that asked the same conversations in the same way again: what a plan's own instability is measured by."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import polars as pl

from semtel_batch.plans import Plan
from semtel_batch.records import Tier
from semtel_batch.store import Store
from semtel_batch.studies.labelling import UNASKED, labelled

_KEY = ["conversation_id", "classifier"]


def asked_again(store: Store, plan: Plan, besides: Collection[str] = ()) -> pl.DataFrame | None:
    """Give the labels that other plans got by asking anew in this plan's way; None where no other did.

    Columns as `labelled`, one row an item. A label taken over from an earlier run is no second answer: not theirs, and
    where this plan's own was taken over it may be the very same answer, so that such items are left out.
    """
    found, purged = [], store.purges()
    for row in store.plan_rows():
        if row.id == plan.id or row.id in besides or row.started_at is None or row.id in purged:
            continue
        other = store.plan(row.id)
        if _way(other) == _way(plan):
            found.append(labelled(store, other).filter(~pl.col("how").is_in(UNASKED) & pl.col("label").is_not_null()))
    if not found:
        return None
    own = labelled(store, plan).filter(~pl.col("how").is_in(UNASKED))
    again = pl.concat(found).unique(_KEY, keep="first", maintain_order=True).join(own, on=_KEY, how="semi")
    return again if again.height else None


def _way(plan: Plan) -> frozenset[object]:
    """What decides on the answers: of each leg the versions asked, the model, and the strategy but for its price."""
    return frozenset(
        (
            tuple(plan.classifier(name).version for name in leg.classifiers),
            plan.models_of(leg),
            replace(leg.strategy, recipe="", tier=Tier.REALTIME),
        )
        for leg in plan.legs
    )
