"""A mix as the plan records it: legs with slices, what goes where and why, and what the limits cost."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from semtel_batch.planner.caching import leg_keys
from semtel_batch.planner.job import Job
from semtel_batch.planner.mixing import Mixed
from semtel_batch.plans import Leg, MixShare, ShadowPrice
from semtel_batch.records import Endpoint

_LEAST_USD = 1e-6  # of a step; less is the solver's rounding


def legs(job: Job, mixed: Mixed) -> tuple[Leg, ...]:
    """The legs, numbered in the mix's order."""
    return tuple(
        Leg(
            number=number,
            classifiers=tuple(classifier.name for classifier in one.way.group),
            strategy=one.draft.estimate.strategy,
            endpoint=one.way.endpoint.name,
            slices=one.slices,
            retry_tier=one.draft.retry_tier,
            doubted_tier=one.draft.doubted_tier,
            pool=one.draft.estimate.pool,
            cache_keys=leg_keys(job, one.draft.estimate, one.way.group),
        )
        for number, one in enumerate(mixed.served)
    )


def endpoints(job: Job, mixed: Mixed) -> tuple[Endpoint, ...]:
    """Those that legs use or escalate to, and those that take part in their realtime."""
    served = [(one.way.endpoint.name, one.way.strategy.escalate, *one.draft.estimate.pool) for one in mixed.served]
    names = {name for one in served for name in one}
    return tuple(one for one in job.endpoints if one.name in names)


def shares(mixed: Mixed) -> tuple[MixShare, ...]:
    """What goes where, stratum by stratum."""
    cells = sorted(mixed.shares, key=lambda cell: (cell.slice.stratum, cell.leg))
    return tuple(
        MixShare(
            leg=cell.leg,
            stratum=cell.slice.stratum,
            share=cell.slice.high - cell.slice.low,
            n_conversations=cell.n,
            usd=Decimal(repr(round(cell.usd, 6))),
            label_change=mixed.served[cell.leg].draft.estimate.quality.label_change,
            reason=_reason(cell.slice.high - cell.slice.low, mixed.binding),
        )
        for cell in cells
    )


def _reason(share: float, binding: Sequence[str]) -> str:
    limits = " and the ".join(binding)
    if not limits:
        return "the cheapest for these"
    if share < 1:
        return f"as many as the {limits} let through"
    return f"the cheapest for these at what the {limits} cost"


def shadow_prices(mixed: Mixed) -> tuple[ShadowPrice, ...]:
    """What one step more of each limit that binds would do to the bill, as the program was solved again for it."""
    found = [
        ShadowPrice(constraint=name, step=step, usd=Decimal(repr(round(-usd, 6))))
        for (name, step), usd in mixed.savings.items()
        if usd > _LEAST_USD
    ]
    return tuple(sorted(found, key=lambda one: one.usd))
