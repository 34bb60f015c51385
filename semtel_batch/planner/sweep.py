"""What if: the same job decided again under other limits, without counting anything again.

Limits may be searched for as well: the earliest deadline that can be kept, or the earliest at which the job costs no
more than without one; the least budget; the best agreement. What is searched is decided like any other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

from semtel_batch.errors import Infeasible
from semtel_batch.planner.constraints import dollars, duration
from semtel_batch.planner.distilled import decide
from semtel_batch.planner.job import Job
from semtel_batch.plans import Objective, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One set of limits and what it comes to; without a plan, why there is none."""

    asked: str  # as the user wrote it: "deadline=6h"
    objective: Objective
    plan: Plan | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """A limit to search for, the others as they are."""

    limit: str
    word: str
    objective: Objective


SEARCHES = {"deadline": ("earliest", "cheapest"), "budget": ("least",), "min-agreement": ("best",)}
"""What may be searched of each limit."""

_LONGEST_S = 14 * 86_400.0
_NEAR = 1.02  # a deadline within 2 % of the shortest is near enough
_SLACK = Decimal("1.02")  # what costs so little more is not worth waiting for
_ANY_USD = Decimal(10**9)
_POINT, _SLACKS = 0.001, (0.0, 0.002, 0.005, 0.01, 0.02)  # of agreement


def sweep(job: Job, variants: Iterable[tuple[str, Objective | Sought]]) -> tuple[Variant, ...]:
    """Decide a job under each of these objectives. Raises whatever no objective can mend."""
    job = replace(job, truncated_lengths=functools.cache(job.truncated_lengths))
    return tuple(
        _searched(job, asked, wanted) if isinstance(wanted, Sought) else _decided(job, asked, wanted)
        for asked, wanted in variants
    )


def _searched(job: Job, asked: str, sought: Sought) -> Variant:
    """Find the limit, and decide the job under it; where there is none, under the loosest."""
    if sought.limit == "budget":
        return _least_budget(job, asked, sought.objective)
    if sought.limit == "min-agreement":
        return _best_agreement(job, asked, sought.objective)
    loosest = replace(sought.objective, deadline_s=_LONGEST_S)
    free = _decided(job, asked, loosest)
    if free.plan is None:
        return free
    most = free.plan.chosen.usd * _SLACK if sought.word == "cheapest" else None
    tried: dict[float, Variant] = {}

    def serves(deadline_s: float) -> bool:
        found = tried[deadline_s] = _decided(job, asked, replace(loosest, deadline_s=deadline_s))
        return found.plan is not None and (most is None or found.plan.chosen.usd <= most)

    high_s = min(_LONGEST_S, free.plan.chosen.time_s)
    found_s = _shortest(serves, high_s if serves(high_s) else _LONGEST_S)
    found = tried.get(found_s) or _decided(job, asked, replace(loosest, deadline_s=found_s))
    return replace(found, asked=f"{asked}: {duration(found_s)}")


def _shortest(serves: Callable[[float], bool], high_s: float) -> float:
    """Find the least deadline that serves, to a fiftieth, by halving its logarithm; `high_s` serves."""
    low_s = 1.0
    while high_s > low_s * _NEAR and high_s - low_s > 1:
        middle_s = float(math.ceil(math.sqrt(low_s * high_s)))
        if middle_s >= high_s:
            break
        low_s, high_s = (low_s, middle_s) if serves(middle_s) else (middle_s, high_s)
    return high_s


def _least_budget(job: Job, asked: str, objective: Objective) -> Variant:
    found = _decided(job, asked, replace(objective, budget_usd=None))
    if found.plan is None:
        return found
    usd = found.plan.chosen.usd_high
    return replace(found, asked=f"{asked}: {dollars(usd)}", objective=replace(objective, budget_usd=usd))


def _best_agreement(job: Job, asked: str, objective: Objective) -> Variant:
    """Of the plan that changes the fewest labels within the other limits; without a budget none need change."""
    budget = objective.budget_usd if objective.budget_usd is not None else _ANY_USD
    found = _decided(job, asked, replace(objective, budget_usd=budget, min_agreement=None))
    if found.plan is None:
        return replace(found, objective=objective)
    best = 1 - found.plan.chosen.quality.label_change
    for less in _SLACKS:  # a mix at the very edge may be lost to rounding
        agreement = max(0.0, math.floor((best - less) / _POINT) * _POINT)
        told = f"{asked}: {100 * agreement:.1f} %"
        found = _decided(job, told, replace(objective, min_agreement=round(agreement, 6)))
        if found.plan is not None:
            break
    return found


def _decided(job: Job, asked: str, objective: Objective) -> Variant:
    try:
        return Variant(asked=asked, objective=objective, plan=decide(replace(job, objective=objective)))
    except Infeasible as infeasible:
        return Variant(asked=asked, objective=objective, plan=None, reason=str(infeasible))
