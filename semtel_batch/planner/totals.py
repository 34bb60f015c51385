"""The legs of a mix added up to one estimate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal

from semtel_batch.planner.estimate import Draft
from semtel_batch.planner.timing import LegLoad, mixed_s
from semtel_batch.plans import CostLine, Estimate, Uncertainty
from semtel_batch.records import Tier


def total(drafts: Sequence[Draft], loads: Sequence[LegLoad], label_change: float) -> Estimate:
    """The estimate of all legs together, under the strategy and endpoint of the dearest one."""
    largest = max(drafts, key=lambda draft: draft.estimate.usd).estimate
    bases = dict.fromkeys(d.estimate.quality.basis for d in drafts)
    return replace(
        largest,
        lines=_lines(line for d in drafts for line in d.estimate.lines),
        usd=sum((d.estimate.usd for d in drafts), Decimal(0)),
        usd_low=sum((d.estimate.usd_low for d in drafts), Decimal(0)),
        usd_high=sum((d.estimate.usd_high for d in drafts), Decimal(0)),
        uncertainties=_summed(drafts),
        time_s=max(mixed_s(loads), sum(d.compress_s for d in drafts)),
        quality=replace(
            largest.quality,
            label_change=label_change,
            assumed=any(d.estimate.quality.assumed for d in drafts),
            basis="; ".join(bases),
        ),
    )


def _lines(lines: Iterable[CostLine]) -> tuple[CostLine, ...]:
    """One line for each part, tier and endpoint, in the order in which they first come."""
    found: dict[tuple[str, Tier | None, str], CostLine] = {}
    for line in lines:
        key = line.part, line.tier, line.endpoint
        before = found.get(key)
        found[key] = (
            line
            if before is None
            else replace(
                before,
                n_requests=before.n_requests + line.n_requests,
                usage=before.usage + line.usage,
                usd=before.usd + line.usd,
            )
        )
    return tuple(found.values())


def _summed(drafts: Sequence[Draft]) -> tuple[Uncertainty, ...]:
    """The legs' uncertainties by cause: within one, errors add up."""
    usd = sum((d.estimate.usd for d in drafts), Decimal(0))
    found: dict[str, Uncertainty] = {}
    for draft in drafts:
        for one in draft.estimate.uncertainties:
            before = found.get(one.what) or replace(one, usd_low=usd, usd_high=usd)
            low, high = one.usd_low - draft.estimate.usd, one.usd_high - draft.estimate.usd
            found[one.what] = replace(before, usd_low=before.usd_low + low, usd_high=before.usd_high + high)
    return tuple(sorted(found.values(), key=lambda one: one.usd_low - one.usd_high))
