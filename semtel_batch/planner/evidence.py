"""What a strategy is known to do to labels, against the naive way on the reference model.

By construction, by a pilot (`promise`), by measurement on a sample of the user's own data (`calibrate`), or else by
publication. What was measured counts with its upper 95 % bound, so that few items do not pass for a good result; the
worst classifier decides, since agreement is promised for each.
"""

from __future__ import annotations

from dataclasses import replace

from semtel_batch.measurements import Kind, Measurement
from semtel_batch.planner import promise
from semtel_batch.planner.cascade import models, second_endpoint
from semtel_batch.planner.job import Job, groups
from semtel_batch.planner.room import Lengths
from semtel_batch.plans import Quality
from semtel_batch.quality.certificate import upper_bound
from semtel_batch.records import Classifier, Doubt, Endpoint, Strategy
from semtel_batch.strategies import CONFIDENCE_BELOW, Recipe, bare, levers_of, one_by_one, ungrouped

_DELTA = 0.05


def quality(job: Job, recipe: Recipe, strategy: Strategy, endpoint: Endpoint) -> Quality:
    """The share of labels that change, and whether that is assumed; without any evidence, all of them."""
    found = promise.quality(job, strategy, endpoint) or measured(job, strategy, endpoint)
    if found is not None:
        return found
    asked, reference = models(job, strategy, endpoint), job.reference.priced_as
    if reference not in (endpoint.priced_as, second_endpoint(job, strategy, endpoint).priced_as):
        basis = f"{asked} is not the reference model {reference}, and no evidence links them"
        return Quality(label_change=1.0, assumed=True, basis=basis)
    return recipe.label_change(strategy, cut_share=cut_share(job.lengths, strategy))


def measured(job: Job, strategy: Strategy, endpoint: Endpoint) -> Quality | None:
    """What calibrations say of a strategy: of itself, or lever by lever and added up; None where one is missing.

    Figures from other data than the job's stay assumed.
    """
    if not job.measured or (endpoint.priced_as == job.reference.priced_as and not levers_of(strategy)):
        return None
    whole = _worst(job, bare(strategy), endpoint)
    parts = [whole] if whole else [_worst(job, one, endpoint) for one in one_by_one(strategy)]
    if not parts or any(part is None for part in parts):
        return None
    known = [part for part in parts if part is not None]
    sources = {part.source for part in known}
    added = "one lever at a time, added up" if len(known) > 1 else "on a sample of this data"
    told = "; ".join(f"{p.classifier} {p.n_different} of {p.n}, at most {100 * _bound(p):.1f} % at 95 %" for p in known)
    elsewhere = "" if sources == {job.profile.source} else f" on other data ({', '.join(sorted(sources))})"
    return Quality(
        label_change=min(1.0, sum(map(_bound, known))),
        assumed=bool(elsewhere),
        basis=f"measured, n={min(p.n for p in known)}, {elsewhere or added}: worst {told}",
    )


def with_threshold(job: Job, strategy: Strategy, endpoint: Endpoint) -> Strategy:
    """The strategy with the confidence that a calibration certified for it, in the place of the one assumed."""
    if strategy.doubt is not Doubt.CONFIDENCE or strategy.confidence_below != CONFIDENCE_BELOW:
        return strategy
    asked = _unbounded(strategy)
    for one in job.measured:  # newest first
        own = (one.model, one.reference) == (models(job, strategy, endpoint), job.reference.priced_as)
        if one.kind is Kind.KEPT and own and one.source == job.profile.source and _unbounded(one.strategy) == asked:
            return replace(strategy, confidence_below=one.strategy.confidence_below)
    return strategy


def _unbounded(strategy: Strategy) -> Strategy:
    return replace(bare(strategy), confidence_below=None)


def _worst(job: Job, strategy: Strategy, endpoint: Endpoint) -> Measurement | None:
    """The newest measurement of the classifier that a strategy changes most; None if one was never measured."""
    found = []
    alone, given_by = ungrouped(strategy), models(job, strategy, endpoint)
    for group in groups(job.classifiers, strategy):
        versions = tuple(classifier.version for classifier in group)
        if len(group) == 1 and not levers_of(alone) and endpoint.priced_as == job.reference.priced_as:
            continue  # nothing is done to it
        for classifier in group:
            fitting = (one for one in job.measured if _fits(one, classifier, versions))
            own = (one for one in fitting if (ungrouped(one.strategy), one.model) == (alone, given_by))
            newest = next((one for one in own if one.reference == job.reference.priced_as and one.n), None)
            if newest is None:
                return None
            found.append(newest)
    return max(found, key=_bound, default=None)


def _fits(one: Measurement, classifier: Classifier, versions: tuple[str, ...]) -> bool:
    return (
        one.kind is Kind.CHANGE
        and one.max_tokens is None
        and one.version == classifier.version
        and one.companions == versions
    )


def _bound(one: Measurement) -> float:
    return upper_bound(one.n_different, one.n, _DELTA)


def keeps_labels(job: Job, strategy: Strategy, endpoint: Endpoint) -> bool:
    """Whether labels are the naive way's by construction: the same request to the same model."""
    return not strategy.changes_labels and endpoint.priced_as == job.reference.priced_as


def is_promised(job: Job, strategy: Strategy, endpoint: Endpoint) -> bool:
    """Whether a plan may be called certified for asking in this way: by construction, or by a pilot."""
    return keeps_labels(job, strategy, endpoint) or promise.is_certified(job, strategy, endpoint)


def cut_share(lengths: Lengths, strategy: Strategy) -> float:
    """Share of conversations that truncation cuts; only their labels can change by it.

    A block is a little longer than its text, so this counts a few too many.
    """
    if strategy.truncate_to is None or not len(lengths):
        return 0.0
    return float((lengths > strategy.truncate_to).mean())
