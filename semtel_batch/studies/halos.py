"""How strongly two classifiers' labels hang together when one prompt asked both, beside prompts of their own.

Taken from what the store has anyway: the plan, and other runs over the same data that asked the same versions in the
same way but for who shared a prompt (a calibration's reference, say).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import polars as pl

from semtel_batch.measurements import HaloLine
from semtel_batch.plans import Plan
from semtel_batch.quality.distribution import Pair, encode, halo
from semtel_batch.store import Store
from semtel_batch.strategies import bare, ungrouped
from semtel_batch.studies.labelling import labelled

_FEWEST = 20  # conversations; of fewer a table of two label sets says nothing

Way = tuple[object, ...]


def halos(store: Store, plan: Plan) -> tuple[HaloLine, ...]:
    """Compare each two classifiers of a plan that some other run asked together where it asked apart, or vice versa."""
    pairs = list(itertools.combinations(sorted(c.name for c in plan.classifiers), 2))
    ways = {pair: known for pair in pairs if (known := _way(plan, *pair)) is not None}
    others = list(_others(store, plan)) if ways else []
    found = []
    own: pl.DataFrame | None = None
    for pair, (is_together, way) in ways.items():
        other = next((one for one in others if _way(one, *pair) == (not is_together, way)), None)
        if other is None:
            continue
        own = labelled(store, plan) if own is None else own
        sides = [(plan.id, own), (other.id, labelled(store, other))]
        line = _compared(pair, *(sides if is_together else reversed(sides)), seed=plan.seed)
        found += [line] if line is not None else []
    return tuple(found)


def _others(store: Store, plan: Plan) -> Iterator[Plan]:
    """Other plans over the same data that were begun and still have their labels, newest first."""
    purged = store.purges()
    rows = (row for row in store.plan_rows() if row.id != plan.id and row.started_at and row.id not in purged)
    for row in sorted(rows, key=lambda row: row.created_at, reverse=True):
        other = store.plan(row.id)
        if other.data.source == plan.data.source and not other.mix:
            yield other


def _way(plan: Plan, first: str, second: str) -> tuple[bool, Way] | None:
    """Whether one prompt asks both, and all else that decides on their answers; None for a third thing, or a mix."""
    legs = [leg for leg in plan.legs if {first, second} & set(leg.classifiers)]
    names = {c.name for c in plan.classifiers}
    if not {first, second} <= names or plan.mix:
        return None
    is_together = len(legs) == 1
    if not is_together and any(len(leg.classifiers) > 1 for leg in legs):
        return None
    strategies = {ungrouped(bare(leg.strategy)) for leg in legs}
    models = {plan.endpoint(leg.endpoint).priced_as for leg in legs}
    if len(strategies) != 1 or len(models) != 1:
        return None
    return is_together, (plan.classifier(first).version, plan.classifier(second).version, *strategies, *models)


def _compared(
    pair: tuple[str, str], together: tuple[str, pl.DataFrame], apart: tuple[str, pl.DataFrame], *, seed: int
) -> HaloLine | None:
    tables = [_both(frame, pair) for _, frame in (together, apart)]
    both = tables[0].join(tables[1], on="conversation_id", suffix="_apart", maintain_order="left")
    if both.height < _FEWEST:
        return None
    sides = []
    for name in pair:
        labels, (shared, alone) = encode(both[name], both[f"{name}_apart"])
        sides.append(Pair(classifier=name, together=shared, apart=alone, k=len(labels)))
    seen = halo(*sides, seed=seed)
    return HaloLine(
        first=pair[0],
        second=pair[1],
        n=seen.n,
        together_v=seen.together_v,
        apart_v=seen.apart_v,
        together_bits=seen.together_bits,
        apart_bits=seen.apart_bits,
        p_value=seen.p_value,
        together_plan=together[0],
        apart_plan=apart[0],
    )


def _both(labels: pl.DataFrame, pair: tuple[str, str]) -> pl.DataFrame:
    """One row a conversation that has both labels."""
    one = labels.unique(["conversation_id", "classifier"], keep="first", maintain_order=True)
    columns = [pl.col("label").filter(pl.col("classifier") == name).first().alias(name) for name in pair]
    return one.group_by("conversation_id", maintain_order=True).agg(columns).drop_nulls()
