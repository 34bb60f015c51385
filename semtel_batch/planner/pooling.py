"""Which endpoints can share the realtime requests of one of them."""

from __future__ import annotations

from dataclasses import replace

from semtel_batch.compose.prompt import word
from semtel_batch.families import family_of
from semtel_batch.planner.job import Job
from semtel_batch.records import Endpoint, Stage, Tier, TierPrice


def partners(job: Job, endpoint: Endpoint) -> tuple[Endpoint, ...]:
    """The endpoints beside one that answer the same realtime requests for the same money.

    They serve the same model in realtime, at an equal price, and are asked in the same bytes but for the name that
    each gives the model. A dearer one is no partner: it would be asked as much as its limits allow, whether the
    deadline needs that or not. It stands among the plan's alternatives instead.
    """
    price = _price(job, endpoint)
    if price is None:
        return ()
    return tuple(
        other
        for other in job.endpoints
        if other.name != endpoint.name and _price(job, other) == price and _asked_alike(job, endpoint, other)
    )


def _price(job: Job, endpoint: Endpoint) -> TierPrice | None:
    price = job.prices.get(endpoint.name, Tier.REALTIME) if Tier.REALTIME in endpoint.tiers else None
    return None if price is None else replace(price, source="")


def _asked_alike(job: Job, endpoint: Endpoint, other: Endpoint) -> bool:
    if endpoint.priced_as != other.priced_as or _encoding(endpoint) != _encoding(other):
        return False
    # Under one name, so that only what else differs is seen; what each is asked goes by the family.
    named = [replace(one, model="any", model_family=one.priced_as) for one in (endpoint, other)]
    ours, theirs = (word(job.classifiers, Stage.CLASSIFY, one, None) for one in named)
    return ours.size == theirs.size and ours.body("", 1) == theirs.body("", 1)


def _encoding(endpoint: Endpoint) -> str:
    return endpoint.encoding or family_of(endpoint.priced_as).encoding
