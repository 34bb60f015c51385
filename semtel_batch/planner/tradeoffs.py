"""What money buys: the best trades of cost against time and labels, and what loosening each limit would save.

Over single ways of asking. A mix has the same records from its linear program: its frontier, and duals for steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal

from semtel_batch.planner.constraints import Constraint
from semtel_batch.plans import Estimate, FrontierPoint, ShadowPrice
from semtel_batch.prices import PriceBook

_LEAST_SAVING = 0.005  # of the bill; less is not worth a line
_AT_ONCE_S = 60.0
_MOST_POINTS = 26  # as many as there are letters to mark them by


def frontier(estimates: Iterable[Estimate], chosen: Estimate) -> tuple[FrontierPoint, ...]:
    """The estimates that no other beats in cost, time and labels at once, the cheapest first; `chosen` is always there.

    Of equals the first one stands for all.
    """
    ordered = sorted(estimates, key=lambda e: (e.usd, e.time_s, e.quality.label_change))
    kept: list[Estimate] = []
    for one in ordered:  # whoever beats it costs no more, so stands before it
        if one is chosen or not any(_beats(other, one) for other in kept):
            kept.append(one)
    shown = kept[:_MOST_POINTS]
    if chosen not in shown:
        shown = [*shown[: _MOST_POINTS - 1], chosen]
    return tuple(
        FrontierPoint(
            name=_name(one),
            usd=one.usd,
            usd_high=one.usd_high,
            time_s=one.time_s,
            label_change=one.quality.label_change,
            is_chosen=one is chosen,
        )
        for one in shown
    )


def _name(one: Estimate) -> str:
    strategy = one.strategy
    return f"{strategy.recipe} {strategy.conversations_per_request}×{strategy.together}, {strategy.tier}, {one.who}"


def _beats(other: Estimate, one: Estimate) -> bool:
    if other.usd > one.usd or other.quality.label_change > one.quality.label_change:
        return False
    return _magnitude(other.time_s) <= _magnitude(one.time_s)


def _magnitude(time_s: float) -> int:
    """Times that a user would not tell apart are one: all below a minute, and what is half as long again at most."""
    return round(math.log(max(_AT_ONCE_S, time_s) / _AT_ONCE_S, 1.5))


def steps(
    limits: Sequence[Constraint], allowed: Sequence[Estimate], barred: Sequence[Estimate], chosen: Estimate
) -> tuple[ShadowPrice, ...]:
    """For each limit the nearest value at which the bill falls; and what evidence for a barred way would save."""
    found = [_step(limit, [o for o in limits if o is not limit], allowed, chosen) for limit in limits]
    known = [one for one in found if one is not None]
    cheaper = [e for e in barred if _saves(e, chosen) and all(limit.keeps(e) for limit in limits)]
    if cheaper:
        best = min(cheaper, key=lambda e: e.usd)
        step = (
            f"{best.strategy.recipe} measured or assumed: {100 * best.quality.label_change:.1f} % of labels may change"
        )
        known.append(ShadowPrice(constraint="evidence", step=step, usd=best.usd - chosen.usd))
    return tuple(known)


def _step(
    limit: Constraint, others: Sequence[Constraint], allowed: Sequence[Estimate], chosen: Estimate
) -> ShadowPrice | None:
    beyond = [e for e in allowed if not limit.keeps(e) and _saves(e, chosen) and all(o.keeps(e) for o in others)]
    if not beyond:
        return None
    nearest = min(beyond, key=lambda e: (limit.measure(e), e.usd))
    step = f"{limit.show(limit.measure(nearest))} instead of {limit.show(limit.limit)}"
    return ShadowPrice(constraint=limit.name, step=step, usd=nearest.usd - chosen.usd)


def at_later_prices(prices: PriceBook, chosen: Estimate) -> tuple[ShadowPrice, ...]:
    """What the chosen way would cost, more or less, if it were submitted when prices that are known already hold.

    A deadline is counted from submit, so that one may wait; or may rather not.
    """
    changed = [(line, prices.changes.get((line.endpoint, line.tier))) for line in chosen.lines if line.tier is not None]
    found = []
    for day in sorted({change.on for _, change in changed if change is not None}):
        usd = Decimal(0)
        for line, change in changed:
            now = prices.get(line.endpoint, line.tier) if line.tier is not None else None
            if change is not None and change.on <= day and now is not None:
                usd += change.price.cost_usd(line.usage) - now.cost_usd(line.usage)
        if abs(float(usd)) >= _LEAST_SAVING * float(chosen.usd):
            found.append(ShadowPrice(constraint="prices", step=f"submitted from {day} on", usd=usd))
    return tuple(found)


def _saves(one: Estimate, chosen: Estimate) -> bool:
    return float(one.usd) < (1 - _LEAST_SAVING) * float(chosen.usd)
