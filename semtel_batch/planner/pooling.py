"""Which endpoints can share the realtime requests of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from semtel_batch.compose.prompt import word
from semtel_batch.families import family_of
from semtel_batch.planner.interval import Spread
from semtel_batch.planner.job import Job
from semtel_batch.planner.lines import Priced
from semtel_batch.planner.timing import realtime_s
from semtel_batch.records import Endpoint, Stage, Tier, TierPrice

WHO_ANSWERS = "who answers"
_SHARES_SD = 0.3  # of what dearer endpoints add to the bill: each takes what it can, and limits are learned; assumed


def partners(job: Job, endpoint: Endpoint) -> tuple[Endpoint, ...]:
    """The endpoints beside one that answer the same realtime requests for the same money.

    They serve the same model in realtime, at an equal price, and are asked in the same bytes but for the name that
    each gives the model. A dearer one is no partner: it would be asked as much as its limits allow, whether the
    deadline needs that or not. Where it does, see `joiners`.
    """
    price = _price(job, endpoint)
    if price is None:
        return ()
    return tuple(
        other
        for other in job.endpoints
        if other.name != endpoint.name and _price(job, other) == price and _asked_alike(job, endpoint, other)
    )


def joiners(job: Job, endpoint: Endpoint) -> tuple[Endpoint, ...]:
    """The endpoints that could answer the same realtime requests for more money, the cheapest first.

    A plan lets them take part of the work where a deadline leaves the cheaper ones too little time, and a mix only for
    as many conversations as that takes.
    """
    own = _price(job, endpoint)
    if own is None:
        return ()
    dearer = [
        (price.input_usd + price.output_usd, at, other)
        for at, other in enumerate(job.endpoints)
        if (price := _price(job, other)) is not None
        and price.input_usd >= own.input_usd
        and price.output_usd >= own.output_usd
        and price != own
        and _asked_alike(job, endpoint, other)
    ]
    return tuple(other for _, _, other in sorted(dearer, key=lambda one: one[:2]))


def divided(priced: Sequence[Priced], job: Job, beside: Sequence[Endpoint]) -> list[Priced]:
    """Parts that are asked in realtime, by who will answer how much of them: as fast as each of them is.

    What each really takes is seen only in the run, which is an uncertainty of its own.
    """
    found: list[Priced] = []
    for one in priced:
        members = (one.endpoint, *beside)
        load = one.part.load()
        if one.part.tier is not Tier.REALTIME or not load.n_requests:
            found.append(one)
            continue
        paces = [1 / realtime_s(member, load) for member in members]
        prices = [job.prices.prices[member.name, Tier.REALTIME] for member in members]
        usd = [float(price.cost_usd(one.part.usage)) for price in prices]
        mean = sum(u * pace for u, pace in zip(usd, paces, strict=True)) / sum(paces)
        cause = Spread(causes=((WHO_ANSWERS, _SHARES_SD * (mean - min(usd)), 0),))
        for at, (member, price, pace) in enumerate(zip(members, prices, paces, strict=True)):
            part = one.part.scaled(pace / sum(paces))
            found.append(Priced(part if at else replace(part, spread=part.spread + cause), member, price))
    return found


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
