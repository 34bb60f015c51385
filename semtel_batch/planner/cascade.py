"""Where doubtful labels are asked again: at the model that gave them, or of a dearer one, which makes a cascade.

A cascade is a strategy that doubts and names the endpoint to `escalate` to. The first endpoint answers everything; what
is doubtful is asked of the other by the reference strategy. There are two links and no more: what the second one says
stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from semtel_batch.errors import BadStrategy
from semtel_batch.measurements import Kind, Measurement
from semtel_batch.planner.job import Job
from semtel_batch.planner.learned import Known, counted_as
from semtel_batch.planner.timing import WINDOW_S, Load, part_s
from semtel_batch.plans import models_named
from semtel_batch.records import Doubt, Endpoint, Strategy, Tier
from semtel_batch.strategies import bare

REFERENCE = "reference"
"""What a recipe calls the first endpoint of semtel.toml, whatever its name is there."""


def resolved(strategy: Strategy, endpoints: Sequence[Endpoint]) -> Strategy:
    """The strategy with the endpoint's own name in the place of `reference`."""
    known = {one.name for one in endpoints}
    if strategy.escalate == REFERENCE and REFERENCE not in known:
        return replace(strategy, escalate=endpoints[0].name)
    return strategy


def obstacle(job: Job, strategy: Strategy) -> str:
    """Why doubtful labels can't be escalated as a resolved strategy says; empty if they can."""
    if strategy.escalate is None:
        return ""
    second = _named(job, strategy)
    if second is None:
        known = ", ".join(one.name for one in job.endpoints)
        return (
            f"Recipe {strategy.recipe} was left out: it escalates to endpoint {strategy.escalate!r}, which semtel.toml "
            f"doesn't have; there are: {known}."
        )
    if not _tiers(job, second):
        return f"Recipe {strategy.recipe} was left out: no price is known of endpoint {second.name!r}."
    return ""


def is_idle(job: Job, strategy: Strategy, endpoint: Endpoint) -> bool:
    """Whether a strategy escalates to the very model that gave the labels: there is nothing to be had by it."""
    second = _named(job, strategy)
    return second is not None and second.priced_as == endpoint.priced_as


def refuse_unknown(job: Job) -> None:
    """Raise BadStrategy for a recipe that the user named and that escalates to nobody, or to nobody else."""
    known, served = {one.name for one in job.endpoints}, ", ".join(f"{e.name} ({e.model})" for e in job.endpoints)
    for recipe in job.recipes if job.named else ():
        for one in (resolved(point, job.endpoints) for point in recipe.strategies()):
            if one.escalate is None:
                continue
            if one.escalate not in known:
                raise BadStrategy(
                    f"Recipe {recipe.name} escalates to endpoint {one.escalate!r}, which semtel.toml doesn't have; "
                    f"name one of: {served}."
                )
            first = [e for e in job.endpoints if one.model in (None, e.model, e.priced_as)]
            if all(is_idle(job, one, e) for e in first):
                asked = f"model {one.model}" if one.model else "every endpoint"
                raise BadStrategy(
                    f"Recipe {recipe.name} escalates to endpoint {one.escalate!r}, but {asked} that it could ask first "
                    f"is the same model: give it another escalate, or add an [[endpoint]] with another model to "
                    f"semtel.toml; there are: {served}."
                )


def second_endpoint(job: Job, strategy: Strategy, endpoint: Endpoint) -> Endpoint:
    """Who is asked about doubtful labels."""
    return _named(job, strategy) or endpoint


def _named(job: Job, strategy: Strategy) -> Endpoint | None:
    return next((one for one in job.endpoints if one.name == strategy.escalate), None)


def models(job: Job, strategy: Strategy, endpoint: Endpoint) -> str:
    """The models that give a strategy's labels, as evidence names them: one, or the first and the second."""
    return models_named(endpoint, second_endpoint(job, strategy, endpoint))


def doubted_tier(job: Job, strategy: Strategy, endpoint: Endpoint, main: Sequence[Load], retry: Tier) -> Tier | None:
    """The tier that doubtful labels are asked again in; None: the one that what fails is asked again in.

    Of another endpoint the same tier, unless it has none or its window would end after the deadline. A decision that
    is asked again would be the same decision: it is asked in words, at once.
    """
    decides = strategy.tier is Tier.DECISIONS
    if strategy.escalate is None and not (decides and strategy.doubt is not Doubt.NONE):
        return None
    second = second_endpoint(job, strategy, endpoint)
    tiers, wanted = _tiers(job, second), Tier.REALTIME if decides else strategy.tier
    if wanted in tiers and (wanted not in WINDOW_S or _is_in_time(job, endpoint, main, (retry, wanted))):
        return wanted
    at_once = [tier for tier in tiers if tier.is_at_once]
    return next(iter((*(t for t in at_once if t is Tier.REALTIME), *at_once, *tiers)), None)


def _is_in_time(job: Job, endpoint: Endpoint, main: Sequence[Load], windows: Sequence[Tier]) -> bool:
    deadline_s = job.objective.deadline_s
    needed_s = sum(part_s(endpoint, load) for load in main) + sum(WINDOW_S.get(tier, 0.0) for tier in windows)
    return deadline_s is None or needed_s <= deadline_s


def _tiers(job: Job, endpoint: Endpoint) -> list[Tier]:
    """The tiers of an endpoint that a question in words can be asked in, as far as they have a price."""
    return [t for t in endpoint.tiers if t is not Tier.DECISIONS and job.prices.get(endpoint.name, t) is not None]


def doubted(job: Job, strategy: Strategy, endpoint: Endpoint) -> Known:
    """The share of the items that are doubted: as a calibration counted, as earlier runs did, or else assumed."""
    model = counted_as(endpoint.priced_as, strategy.tier)
    return job.learned.doubted(model, strategy, counted(job, strategy, endpoint))


def counted(job: Job, strategy: Strategy, endpoint: Endpoint) -> tuple[int, int] | None:
    """Items of which confidence doubts, and items in all, where a calibration held this threshold against them."""
    if strategy.doubt is not Doubt.CONFIDENCE:
        return None
    way = (bare(strategy), models(job, strategy, endpoint), job.profile.source)
    whole = (one for one in job.measured if one.max_tokens is None)
    own = [one for one in whole if (one.strategy, one.model, one.source) == way]
    kept = [one for one in own if one.kind is Kind.KEPT]
    if not kept:
        return None
    n_kept, n = (_total(own, kind, kept[0].calibration_id) for kind in (Kind.KEPT, Kind.CHANGE))
    return (n - n_kept, n) if n >= n_kept else None


def _total(measured: Sequence[Measurement], kind: Kind, calibration: str) -> int:
    return sum(one.n for one in measured if one.kind is kind and one.calibration_id == calibration)


def told(share: Known, second: Endpoint) -> str:
    """The share in words, for a plan's warnings."""
    return f"{100 * share.mean:.0f} % of the labels are taken to be escalated to {second.name} ({share.basis})."
