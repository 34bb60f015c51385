"""What a strategy is known to do to labels, against the naive way on the reference model.

So far that is by construction or by publication; what was measured on the user's own sample will come in here.
"""

from __future__ import annotations

from semtel_batch.planner.job import Job
from semtel_batch.planner.room import Lengths
from semtel_batch.plans import Quality
from semtel_batch.records import Endpoint, Strategy
from semtel_batch.strategies import Recipe


def quality(job: Job, recipe: Recipe, strategy: Strategy, endpoint: Endpoint) -> Quality:
    """The share of labels that change, and whether that is assumed; without any evidence, all of them."""
    if endpoint.priced_as != job.reference.priced_as:
        basis = f"{endpoint.priced_as} is not the reference model {job.reference.priced_as}, and no evidence links them"
        return Quality(label_change=1.0, assumed=True, basis=basis)
    return recipe.label_change(strategy, cut_share=cut_share(job.lengths, strategy))


def keeps_labels(job: Job, strategy: Strategy, endpoint: Endpoint) -> bool:
    """Whether labels are the naive way's by construction: the same request to the same model."""
    return not strategy.changes_labels and endpoint.priced_as == job.reference.priced_as


def cut_share(lengths: Lengths, strategy: Strategy) -> float:
    """Share of conversations that truncation cuts; only their labels can change by it.

    A block is a little longer than its text, so this counts a few too many.
    """
    if strategy.truncate_to is None or not len(lengths):
        return 0.0
    return float((lengths > strategy.truncate_to).mean())
