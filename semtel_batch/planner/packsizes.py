"""The pack size that a recipe asks for, capped where earlier runs saw larger packs come back broken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from semtel_batch.measurements import Packs
from semtel_batch.planner.job import Job, groups
from semtel_batch.quality.garbled import size_that_holds
from semtel_batch.records import Classifier, Doubt, Endpoint, Strategy

REMEMBERED_DAYS = 60
"""Models and endpoints change: what was seen longer ago is tried again."""


def capped(job: Job, strategy: Strategy, endpoint: Endpoint) -> Strategy:
    """The strategy with packs as large as hold for each of its groups; without packs there is nothing to doubt."""
    n = strategy.conversations_per_request
    if n == 1 or not job.packs:
        return strategy
    held = min(size_that_holds(_seen(job, group, endpoint), n) for group in groups(job.classifiers, strategy))
    alone = replace(strategy, conversations_per_request=held)
    is_cascade = strategy.escalate is not None  # it doubts the model, whatever the packs
    return replace(alone, doubt=Doubt.NONE, confidence_below=None) if held == 1 and not is_cascade else alone


def _seen(job: Job, group: tuple[Classifier, ...], endpoint: Endpoint) -> list[Packs]:
    versions = tuple(sorted(classifier.version for classifier in group))
    return [one for one in job.packs if (one.model, one.classifiers) == (endpoint.priced_as, versions)]


def about_packs(job: Job, chosen: Strategy, endpoint: Endpoint) -> Iterator[str]:
    """Say of each group of classifiers which packs are not sent, and what was seen of them."""
    points = [strategy for recipe in job.recipes for strategy in recipe.strategies()]
    asked = max((one.conversations_per_request for one in points), default=1)
    if not (job.named or job.assume or chosen.conversations_per_request > 1):
        return  # nobody wanted packs
    for group in groups(job.classifiers, chosen):
        seen = _seen(job, group, endpoint)
        held = size_that_holds(seen, asked)
        larger = [one for one in seen if one.size > held]
        if held < asked and larger:
            n, n_broken = sum(one.n for one in larger), sum(one.n_broken for one in larger)
            names = " and ".join(classifier.name for classifier in group)
            yield (
                f"At most {held} conversations of {names} share a prompt on {endpoint.priced_as}: of {n:,} larger "
                f"packs in runs of the last {REMEMBERED_DAYS} days {n_broken:,} ({n_broken / n:.0%}) came back with a "
                "quarter or more of their items missing or unreadable."
            )
