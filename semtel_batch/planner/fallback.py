"""Batches under a deadline that is shorter than their window: what is not back in time is asked in realtime.

The run sees to it (`hedge.take_back`); here is when it can be promised, and what it will probably cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from semtel_batch.planner import hedge
from semtel_batch.planner.hedge import LEAD_S, Turnaround
from semtel_batch.planner.interval import Spread
from semtel_batch.planner.job import Job
from semtel_batch.planner.lines import Part, Priced
from semtel_batch.planner.timing import WINDOW_S, Load, realtime_s
from semtel_batch.records import Doubt, Endpoint, Strategy, Tier, TierPrice

MOST_TAKEN = 0.5
"""Of a job: where more of it is expected to be asked in realtime after all, batches aren't worth watching over."""
LEAST_TAKEN = 0.01
"""Of a job, where its batches keep the deadline by their window: less is not worth a line of the estimate."""
TAKEN_BACK = "taken back"
_Z95 = 1.6449


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """What a job in batches would need of realtime, and how much of it will probably be asked there."""

    needed_s: float  # if no batch came back
    holds: bool  # the deadline is kept by it alone: the batches' window is longer
    share: hedge.TakenBack
    turnaround: Turnaround


def fallback(
    job: Job, strategy: Strategy, endpoint: Endpoint, loads: tuple[Sequence[Load], Sequence[Load]], time_s: float
) -> Fallback | None:
    """What a deadline takes back from batches, and whether it is kept by that alone; None where it takes back nothing.

    `loads`: what the batches ask, and what is asked again. A second pass, or a queue that is shorter than the job,
    would make the batches wait for each other: nothing is promised there.
    """
    deadline_s = job.objective.deadline_s
    if deadline_s is None or strategy.tier is not Tier.BATCH or strategy.doubt is not Doubt.NONE:
        return None
    main, again = loads
    queued = sum(load.prompt_tokens for load in main)
    if not has_realtime(job, endpoint) or (endpoint.enqueued_tokens or queued) < queued:
        return None
    needed_s, holds = realtime_needed_s(endpoint, main, again), time_s > deadline_s
    # Of a part of a job, all of it counts: the parts are taken back one after the other.
    whole_s = needed_s / job.share
    if holds:
        whole_s = min(whole_s, deadline_s - LEAD_S)
        if not 0 < needed_s <= whole_s:
            return None
    turnaround = job.learned.turnaround(endpoint.priced_as)
    share = hedge.taken_back(turnaround, deadline_s, float(f"{max(1.0, whole_s):.2g}"))
    if share.mean > MOST_TAKEN if holds else share.mean < LEAST_TAKEN:
        return None
    return Fallback(needed_s=needed_s, holds=holds, share=share, turnaround=turnaround)


def has_realtime(job: Job, endpoint: Endpoint) -> bool:
    """Whether what waits on an endpoint could be asked there in realtime instead."""
    return Tier.REALTIME in endpoint.tiers and job.prices.get(endpoint.name, Tier.REALTIME) is not None


def realtime_needed_s(endpoint: Endpoint, main: Sequence[Load], again: Sequence[Load]) -> float:
    """Time in realtime of all that batches ask and of what is asked again."""
    asked = [replace(load, tier=Tier.REALTIME) for load in (*main, *again) if load.n_requests]
    return sum(realtime_s(endpoint, load) for load in asked)


def divided(main: Sequence[Priced], realtime: TierPrice, found: Fallback) -> list[Priced]:
    """The batches' parts as they will probably be billed: what comes back, and what is taken back."""
    divided = []
    for part, endpoint, price in main:
        moved = replace(part.scaled(found.share.mean), tier=Tier.REALTIME)
        sd = (
            (found.share.high - found.share.mean)
            / _Z95
            * float(realtime.cost_usd(part.usage) - price.cost_usd(part.usage))
        )
        cause = Spread(causes=((TAKEN_BACK, sd, found.turnaround.n),))
        divided.append(Priced(_left(part, found.share.mean), endpoint, price))
        divided.append(Priced(replace(moved, spread=moved.spread + cause), endpoint, realtime))
    return divided


def _left(part: Part, taken: float) -> Part:
    return replace(part.scaled(1 - taken), surcharge=part.surcharge)


def dearer_at_once(job: Job, one: Priced) -> Decimal:
    """What more a part costs in realtime that flex may have no room for; nothing where it can't be asked there."""
    if one.part.tier is not Tier.FLEX or not has_realtime(job, one.endpoint):
        return Decimal(0)
    realtime = job.prices.prices[one.endpoint.name, Tier.REALTIME]
    return max(Decimal(0), realtime.cost_usd(one.part.usage) - one.price.cost_usd(one.part.usage))


def is_hedged(job: Job, strategy: Strategy, time_s: float) -> bool:
    """Whether an estimate counts on batches whose window is longer than the deadline."""
    deadline_s = job.objective.deadline_s
    return strategy.tier is Tier.BATCH and deadline_s is not None and time_s <= deadline_s < WINDOW_S[Tier.BATCH]
