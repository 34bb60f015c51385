"""From priced ways to a mix and back: columns for the program, and legs with slices for the run.

The program is linear: what a way costs a conversation of a stratum, priced by the `estimate` that prices whole jobs.
What it finds becomes legs, and those are priced again on the very conversations they serve; only that second figure is
shown, and only if it keeps every limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from semtel_batch.planner.constraints import Constraint
from semtel_batch.planner.estimate import Draft, estimate, n_answered
from semtel_batch.planner.job import Job, groups, part_of
from semtel_batch.planner.mix import (
    Columns,
    Ease,
    Floats,
    Limit,
    Mix,
    Problem,
    loss_limits,
    savings,
    solve,
    stretch,
    trim,
)
from semtel_batch.planner.path import intervals
from semtel_batch.planner.pooling import partners
from semtel_batch.planner.reverse import best_quality
from semtel_batch.planner.room import RequestCounter
from semtel_batch.planner.schedule import Cell, times
from semtel_batch.planner.slicing import edges, joined
from semtel_batch.planner.timing import LegLoad, Load
from semtel_batch.planner.totals import total
from semtel_batch.plans import Estimate, Slice, Strata
from semtel_batch.records import Classifier, Endpoint, Strategy, Tier
from semtel_batch.strata import inside, stratum_of, uniforms
from semtel_batch.strategies import Recipe

Mask = npt.NDArray[np.bool_]

LEAST_LEG = 0.01  # of the job: a smaller leg isn't worth its line in the plan
_TRIES = 6  # of tightening limits until what was rounded keeps them
_HAIR = 1e-6  # of room, so that a second solution isn't lost to the first one's rounding
_NEARLY = 1.01  # packs of parts are a little dearer than those of the whole
_LEAST_PRICE = 1e-12  # of a unit of a limit; less is the solver's rounding
_LEAST_TIGHTER = 0.015  # by which a try is tighter than the one before, at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One group of classifiers asked by one strategy on one endpoint."""

    recipe: Recipe
    strategy: Strategy
    endpoint: Endpoint
    group: tuple[Classifier, ...]
    joined: tuple[Endpoint, ...] = ()  # dearer ones that answer, too
    partition: int  # of the classifiers into groups: its number
    block: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A leg to be, priced on those it serves."""

    way: Way
    slices: tuple[Slice, ...]
    draft: Draft


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """A mix that keeps every limit."""

    strata: Strata
    served: tuple[Served, ...]
    shares: tuple[Share, ...]
    binding: tuple[str, ...]  # limits that cost something at the margin
    savings: dict[tuple[str, str], float]  # of steps beyond limits, in US dollars; see `mix.savings`
    estimate: Estimate
    n_reused: int
    reused_usd: Decimal

    @property
    def compresses(self) -> bool:
        return any(one.way.strategy.compress_rate is not None for one in self.served)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One share of one stratum, by leg."""

    leg: int
    slice: Slice
    n: int
    usd: float


def mix(
    job: Job,
    drafts: Sequence[tuple[Recipe, Draft]],
    limits: Sequence[Constraint],
    most_usd: float | None = None,
    *,
    seeks_quality: bool = False,
) -> Mixed | None:
    """Find the cheapest mix of ways that keeps every limit; None where there is none. `drafts` may all be chosen.

    `most_usd`: None also where the program finds nothing that cheap, or nothing but one way for all.
    `seeks_quality`: the mix that changes the smallest share of any classifier's labels, and of those the cheapest.
    """
    bench = _Bench.of(job, drafts)
    problem = bench.problem(limits)
    if problem is None:
        return None
    problem = trim(problem)
    step = _tighter(len(job.lengths))
    for number in range(_TRIES):
        tight = [_tightened(one, 1 - step * number) for one in problem.limits]
        if seeks_quality:
            tight = _at_its_best(problem.with_limits(tight), bench.losses(problem.columns))
        solution = _without_crumbs(problem.with_limits(tight))
        if solution is None or not _is_worth_it(*solution, most_usd):
            return None
        mixed = bench.rounded(solution[0], solution[1])
        if all(limit.keeps(mixed.estimate) for limit in limits):
            return replace(mixed, savings=_savings(problem.with_limits(tight)))
    return None


def _at_its_best(problem: Problem, losses: Sequence[Limit]) -> list[Limit]:
    """The problem's limits, and as many changed labels as they leave at the least."""
    whole = problem.with_limits([*problem.limits, *losses])
    found = best_quality(whole, [one.name for one in losses])
    share = 1.0 if found is None else found[0] * (1 + _HAIR) + _HAIR
    return [*problem.limits, *(_tightened(one, share) for one in losses)]


def _savings(problem: Problem) -> dict[tuple[str, str], float]:
    solution = solve(problem)
    return {} if solution is None else savings(problem, solution)


def _is_worth_it(problem: Problem, solution: Mix, most_usd: float | None) -> bool:
    """Whether what the program found is a mix, and cheap enough, as far as figures of parts tell."""
    if most_usd is None:
        return True
    ways = {(problem.columns.partition[k], problem.columns.block[k], problem.columns.arm[k]) for k in _used(solution)}
    blocks = {way[:2] for way in ways}
    is_one_way = len(ways) == len(blocks) and len({partition for partition, _ in blocks}) == 1
    return not is_one_way and solution.usd <= most_usd * _NEARLY


def _used(solution: Mix) -> list[int]:
    return [int(k) for k in np.flatnonzero(solution.x > 0)]


def added_up(usd: Sequence[float], whole: Decimal) -> list[float]:
    """What a leg's shares cost, so that they add up to the leg: packs of parts are a little dearer than its own."""
    total_usd = sum(usd)
    return [one * float(whole) / total_usd for one in usd] if total_usd else list(usd)


def nearest_mixes(job: Job, drafts: Sequence[tuple[Recipe, Draft]], limits: Sequence[Constraint]) -> dict[str, float]:
    """Of each limit of the objective, the least value at which some mix keeps the others; none where there is none."""
    problem = _Bench.of(job, drafts).problem(limits)
    if problem is None:
        return {}
    found: dict[str, float] = {}
    for one in limits:
        names = [row.name for row in problem.limits if row.wish == one.name]
        factor = stretch(problem, names)
        if factor is not None:
            found[one.name] = factor * float(one.limit)
    return found


def _tighter(n: int) -> float:
    """By how much each try is tighter: what rounding by chance puts too many into a leg is of the order of 1/√n.

    Five steps of it are five standard deviations and more of a half's share, which is at most 1/√n of that half.
    """
    return min(max(_LEAST_TIGHTER, 1 / math.sqrt(n)), 0.9 / _TRIES)


def _tightened(limit: Limit, factor: float) -> Limit:
    return limit if factor == 1 else replace(limit, at_most=limit.at_most * factor)


def _without_crumbs(problem: Problem) -> tuple[Problem, Mix] | None:
    """Solve, leave out ways that serve next to nobody, and solve again, if that can be done without them."""
    found = solve(problem)
    if found is None:
        return None
    arms = problem.columns.arm
    used = np.bincount(arms, weights=found.x, minlength=int(arms.max()) + 1)
    kept = used[arms] >= LEAST_LEG * problem.sizes.sum()
    if kept.all() or not kept.any():
        return problem, found
    smaller = problem.take(kept)
    without = solve(smaller)
    return (problem, found) if without is None else (smaller, without)


# ── columns ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Bench:
    """A job cut into strata, and every way priced in each of them."""

    job: Job
    strata: Strata
    stratum: npt.NDArray[np.int64]
    uniform: Floats
    ways: tuple[Way, ...]
    counter: RequestCounter

    @classmethod
    def of(cls, job: Job, drafts: Sequence[tuple[Recipe, Draft]]) -> _Bench:
        strata = Strata(edges=edges(job.lengths))
        stratum = stratum_of(strata, job.lengths)
        ways = tuple(_ways(job, drafts))
        return cls(job, strata, stratum, uniforms(job.seed, job.numbers), ways, RequestCounter(seed=job.seed))

    def problem(self, limits: Sequence[Constraint]) -> Problem | None:
        """The program; None if no way can be used in some stratum."""
        sizes = np.bincount(self.stratum, minlength=self.strata.n).astype(float)
        deadline_s = next((float(one.limit) for one in limits if one.name == "deadline"), None)
        rows: list[Cell] = []
        for number in np.flatnonzero(sizes).tolist():
            part = part_of(self.job, self.stratum == number)
            drafts = ((k, way.endpoint, priced(part, way, self.counter)) for k, way in enumerate(self.ways))
            rows += [Cell(number, k, at, draft, sizes[number]) for k, at, draft in drafts if not draft.problem]
        rows = [row for row in rows if deadline_s is None or row.windows_s <= deadline_s]
        if len({row.stratum for row in rows}) < np.count_nonzero(sizes):
            return None
        columns = Columns(
            stratum=np.array([row.stratum for row in rows]),
            partition=np.array([self.ways[row.arm].partition for row in rows]),
            block=np.array([self.ways[row.arm].block for row in rows]),
            arm=np.array([row.arm for row in rows]),
            usd=np.array([float(row.draft.estimate.usd) / row.n for row in rows]),
            loss=np.array([self._loss(row) for row in rows]),
        )
        return Problem(sizes=sizes, columns=columns, limits=tuple(self._limits(limits, rows, columns)))

    def _loss(self, row: Cell) -> list[float]:
        change = row.draft.estimate.quality.label_change
        return [change if c in self.ways[row.arm].group else 0.0 for c in self.job.classifiers]

    def _limits(self, limits: Sequence[Constraint], rows: Sequence[Cell], columns: Columns) -> Iterator[Limit]:
        for one in limits:
            most = float(one.limit)
            if one.name == "budget":
                high = np.array([float(row.draft.estimate.usd_high) / row.n for row in rows])
                ease = Ease(name="budget", step="one dollar more", units=1.0)
                yield Limit(name="budget", wish="budget", at_most=most, weight=high, unit="USD", eases=(ease,))
            elif one.name == "agreement":
                yield from (_tightened(row, most) for row in self.losses(columns))
            else:
                yield from times(self.job, rows, most)

    def losses(self, columns: Columns) -> tuple[Limit, ...]:
        """A limit for each classifier's changed labels: all of them."""
        n = float(len(self.job.lengths))
        names = [f"agreement on {c.name}" for c in self.job.classifiers]
        rows = loss_limits(columns, np.full(len(names), n), names)
        return tuple(
            replace(row, wish="agreement", eases=(_one_point(c.name, n),))
            for row, c in zip(rows, self.job.classifiers, strict=True)
        )

    def rounded(self, problem: Problem, solution: Mix) -> Mixed:
        """Give every way its slices, and price the legs on those they serve."""
        found = intervals(problem, solution.x)
        by_way: dict[int, list[tuple[Slice, int]]] = {}
        for column, low, high in zip(found.column.tolist(), found.low.tolist(), found.high.tolist(), strict=True):
            if low == high:
                continue
            arm = int(problem.columns.arm[column])
            piece = Slice(stratum=int(problem.columns.stratum[column]), low=low, high=high)
            by_way.setdefault(arm, []).append((piece, column))
        served, shares, earlier = [], [], []
        for leg, (arm, pieces) in enumerate(sorted(by_way.items())):
            slices, way = joined(piece for piece, _ in pieces), self.ways[arm]
            part = part_of(self.job, inside(slices, self.stratum, self.uniform))
            served.append(Served(way=way, slices=slices, draft=priced(part, way, self.counter)))
            earlier.append(reused(part, served[-1], self.counter))
            unit = {piece.stratum: float(problem.columns.usd[column]) for piece, column in pieces}
            sizes = [int(inside([one], self.stratum, self.uniform).sum()) for one in slices]
            usd = [n * unit[one.stratum] for n, one in zip(sizes, slices, strict=True)]
            usd = added_up(usd, served[-1].draft.estimate.usd)
            shares += [Share(leg=leg, slice=one, n=n, usd=its) for one, n, its in zip(slices, sizes, usd, strict=True)]
        drafts = tuple(one.draft for one in served)
        whole = total(drafts, loads_of(self.job, served), _worst_change(self.job, served))
        return Mixed(
            strata=self.strata,
            served=tuple(served),
            shares=tuple(shares),
            binding=tuple(name for name, usd in solution.prices.items() if usd > _LEAST_PRICE),
            savings={},
            estimate=whole,
            n_reused=sum(n for n, _ in earlier),
            reused_usd=sum((usd for _, usd in earlier), Decimal(0)),
        )


def priced(part: Job, way: Way, counter: RequestCounter) -> Draft:
    """What it costs to ask a part of a job in a way."""
    if way.block:  # texts are compressed once, for whichever classifiers are asked about them
        part = replace(part, cpu_usd_per_hour=Decimal(0))
    part = replace(part, classifiers=way.group)
    return estimate(part, way.recipe, way.strategy, way.endpoint, counter, way.joined)


def reused(part: Job, one: Served, counter: RequestCounter) -> tuple[int, Decimal]:
    """Items of a leg that earlier runs answered, and what asking them again would cost; `part`: those it serves."""
    n = n_answered(replace(part, classifiers=one.way.group), one.way.strategy, one.way.endpoint)
    if not n:
        return 0, Decimal(0)
    anew = priced(replace(part, answered=None), one.way, counter)
    return n, anew.estimate.usd - one.draft.estimate.usd


def _ways(job: Job, drafts: Sequence[tuple[Recipe, Draft]]) -> Iterator[Way]:
    endpoints = {one.name: one for one in job.endpoints}
    numbers: dict[tuple[tuple[Classifier, ...], ...], int] = {}
    for recipe, draft in drafts:
        strategy, endpoint = draft.estimate.strategy, endpoints[draft.estimate.endpoint]
        found = groups(job.classifiers, strategy)
        number = numbers.setdefault(found, len(numbers) + 1)
        pool = set(draft.estimate.pool) - {one.name for one in partners(job, endpoint)}
        joined = tuple(endpoints[name] for name in draft.estimate.pool if name in pool)
        for block, group in enumerate(found):
            yield Way(
                recipe=recipe,
                strategy=strategy,
                endpoint=endpoint,
                group=group,
                joined=joined,
                partition=number,
                block=block,
            )


def loads_of(job: Job, served: Sequence[Served]) -> list[LegLoad]:
    """What each leg puts on its endpoint."""
    return [
        LegLoad(
            endpoint=one.way.endpoint,
            main=tuple(_as_planned(one.draft, load) for load in one.draft.main),
            follow_ups=one.draft.follow_ups,
            due_s=(job.objective.deadline_s or 0.0) if one.draft.is_hedged else 0.0,
            beside=tuple(other for other in job.endpoints if other.name in one.draft.estimate.pool),
            elsewhere=one.draft.elsewhere,
        )
        for one in served
    ]


def _as_planned(draft: Draft, load: Load) -> Load:
    """What a leg may have to ask: all that is hedged, in realtime."""
    return load if not draft.is_hedged else replace(load, tier=Tier.REALTIME)


def _one_point(classifier: str, n: float) -> Ease:
    step = f"one point of disagreement on {classifier} more"
    return Ease(name=f"disagreement on {classifier}", step=step, units=0.01 * n)


def _worst_change(job: Job, served: Sequence[Served]) -> float:
    """The share of labels that change, of the classifier that a mix changes most: agreement is promised for each."""
    n = float(len(job.lengths))
    changed = dict.fromkeys((c.name for c in job.classifiers), 0.0)
    for one in served:
        for classifier in one.way.group:
            changed[classifier.name] += one.draft.n_conversations * one.draft.estimate.quality.label_change / n
    return max(changed.values())
