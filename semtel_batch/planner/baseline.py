"""What savings are counted against: the naive way, and asking again what earlier runs have answered."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from semtel_batch.planner.estimate import estimate, n_answered
from semtel_batch.planner.job import Job
from semtel_batch.planner.room import RequestCounter
from semtel_batch.plans import Estimate
from semtel_batch.records import Endpoint, Strategy, Tier


def naive(job: Job, chosen: Endpoint, counter: RequestCounter) -> Estimate:
    """The way that savings are counted against: naive on the reference, in realtime or the cheapest tier it has."""
    for endpoint in (job.reference, chosen):
        known = [tier for tier in endpoint.tiers if job.prices.get(endpoint.name, tier) is not None]
        if known:
            break
    tier = Tier.REALTIME if Tier.REALTIME in known else min(known, key=lambda t: _unit_usd(job, endpoint, t))
    strategy = Strategy(recipe="naive", tier=tier)
    return estimate(replace(job, answered=None), job.recipes[0], strategy, endpoint, counter).estimate


def _unit_usd(job: Job, endpoint: Endpoint, tier: Tier) -> tuple[object, ...]:
    price = job.prices.prices[endpoint.name, tier]
    return (price.input_usd, price.output_usd)


def reused_usd(job: Job, chosen: Estimate, endpoint: Endpoint, counter: RequestCounter) -> Decimal:
    """What asking again would cost that earlier runs have answered."""
    if not n_answered(job, chosen.strategy, endpoint):
        return Decimal(0)
    anew = estimate(replace(job, answered=None), job.recipes[0], chosen.strategy, endpoint, counter)
    return anew.estimate.usd - chosen.usd
