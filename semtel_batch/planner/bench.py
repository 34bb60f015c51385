"""A job as a path needs it: length strata, every way of asking that may be mixed, and what each costs in each stratum.

What a way does to labels has nothing to do with when it is answered: a way is a strategy without its tier, for a model
and groups of classifiers. It is priced in the cheapest tier that it can be had in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from semtel_batch.planner.cascade import models
from semtel_batch.planner.estimate import Draft, estimate
from semtel_batch.planner.job import Job, groups, part_of
from semtel_batch.planner.loss import Levers
from semtel_batch.planner.points import price_all
from semtel_batch.planner.room import RequestCounter
from semtel_batch.planner.slicing import edges
from semtel_batch.planner.walk import Table, some
from semtel_batch.plans import Strata
from semtel_batch.records import Doubt, Endpoint, Keep, Strategy, Tier
from semtel_batch.strata import stratum_of, uniforms
from semtel_batch.strategies import Recipe, bare, ungrouped

_SIDES = (Keep.HEAD, Keep.TAIL, Keep.HEAD_TAIL, Keep.RECENT)


@dataclass(frozen=True, slots=True)
class Key:
    """What tells ways apart by what they do to labels."""

    strategy: Strategy  # without recipe, tier and grouping
    model: str
    groups: tuple[tuple[str, ...], ...]  # versions of the classifiers that share a prompt

    @classmethod
    def of(cls, job: Job, strategy: Strategy, endpoint: Endpoint) -> Key:
        """The way of asking a job by a strategy."""
        shared = tuple(tuple(c.version for c in group) for group in groups(job.classifiers, strategy))
        alone = ungrouped(bare(strategy))
        return cls(
            alone if strategy.truncate_to else replace(alone, keep=Keep.HEAD), models(job, strategy, endpoint), shared
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way that may be mixed, and the cheapest draft of it."""

    key: Key
    recipe: Recipe
    strategy: Strategy
    endpoint: Endpoint
    usd: float  # for the whole job


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A job's table, and what its ways are; the first is the reference."""

    table: Table
    ways: tuple[Way, ...]
    edges: tuple[int, ...]

    def number(self, key: Key) -> int | None:
        return next((number for number, way in enumerate(self.ways) if way.key == key), None)


def reference_key(job: Job) -> Key:
    """The way that labels are held against."""
    return Key.of(job, Strategy(recipe="", tier=Tier.REALTIME), job.reference)


def ways_of(job: Job, tried: Sequence[Key]) -> tuple[Way, ...]:
    """Every way that may be mixed, the reference first. Ways that no lever describes are left out unless tried."""
    recipes = {recipe.name: recipe for recipe in job.recipes}
    endpoints = {endpoint.name: endpoint for endpoint in job.endpoints}
    best: dict[Key, Way] = {}
    for draft in price_all(job, RequestCounter(seed=job.seed)).made:
        strategy, endpoint = draft.estimate.strategy, endpoints[draft.estimate.endpoint]
        key, usd = Key.of(job, strategy, endpoint), float(draft.estimate.usd)
        if strategy.tier is Tier.FLEX or (_is_apart(strategy) and key not in tried):
            continue
        if key not in best or usd < best[key].usd:
            recipe = recipes[strategy.recipe]
            best[key] = Way(key=key, recipe=recipe, strategy=strategy, endpoint=endpoint, usd=usd)
    reference = reference_key(job)
    rest = sorted((way for key, way in best.items() if key != reference), key=lambda way: way.usd)
    return (best[reference], *rest) if reference in best else ()


def bench(job: Job, ways: Sequence[Way], cuts: tuple[int, ...] | None = None) -> Bench:
    """Cut a job into strata (at `cuts`, or where its lengths suggest) and price the ways in each."""
    found = edges(job.lengths) if cuts is None else cuts
    stratum = stratum_of(Strata(edges=found), job.lengths)
    counter = RequestCounter(seed=job.seed)
    usd = np.full((1, len(found) + 1, len(ways)), np.nan)
    for number in np.unique(stratum).tolist():
        part = part_of(replace(job, answered=None), stratum == number)
        for column, way in enumerate(ways):
            draft = estimate(part, way.recipe, way.strategy, way.endpoint, counter)
            usd[0, number, column] = _usd(draft, len(part.lengths))
    table = Table(
        levers=levers(ways),
        stratum=stratum,
        uniform=uniforms(job.seed, job.numbers),
        hard=np.zeros((len(job.lengths), len(job.classifiers))),
        log_length=np.log(np.maximum(job.lengths, 1)),
        usd=usd,
        sampled=some(stratum, np.random.default_rng(job.seed)),
    )
    return Bench(table=table, ways=tuple(ways), edges=found)


def _usd(draft: Draft, n: int) -> float:
    return float("nan") if draft.problem else float(draft.estimate.usd) / max(1, n)


def levers(ways: Sequence[Way]) -> tuple[Levers, ...]:
    """What the loss model knows of ways; the first is the reference."""
    models = {model: number for number, model in enumerate(dict.fromkeys(way.key.model for way in ways))}
    apart: dict[Key, int] = {}
    found = []
    for number, way in enumerate(ways):
        strategy = way.key.strategy
        if _is_apart(strategy):
            found.append(
                Levers(pack=strategy.conversations_per_request, apart=apart.setdefault(way.key, len(apart) + 1))
            )
            continue
        found.append(
            Levers(
                model=models[way.key.model],
                pack=strategy.conversations_per_request,
                keep_tokens=strategy.truncate_to,
                side=_SIDES.index(strategy.keep) if strategy.truncate_to else 0,
                combined=any(len(group) > 1 for group in way.key.groups),
                votes=2 if strategy.doubt is Doubt.RERUN else 1,
                exact=number == 0,
            )
        )
    return tuple(found)


def _is_apart(strategy: Strategy) -> bool:
    """Whether no lever tells what a way does to labels: it must be tried to be used."""
    doubts = strategy.doubt not in (Doubt.NONE, Doubt.RERUN)
    is_other = strategy.escalate is not None or strategy.compress_rate is not None
    return doubts or is_other or strategy.tier is Tier.DECISIONS
