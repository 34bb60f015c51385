"""What the planner is given: one data set × classifiers under one objective, with prices, recipes and the moment."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from semtel_batch.measurements import Measurement, MixPath, Packs, Pilot
from semtel_batch.network_plan import AtHand
from semtel_batch.planner.learned import NOTHING_LEARNED, Learned
from semtel_batch.planner.room import Lengths
from semtel_batch.planner.shorter import Shortened
from semtel_batch.plans import DataProfile, Objective
from semtel_batch.prices import PriceBook
from semtel_batch.records import Classifier, Endpoint, Keep, Strategy
from semtel_batch.strategies import Recipe

Answered = Callable[[Strategy, Endpoint, tuple[Classifier, ...]], "npt.NDArray[np.bool_] | None"]
"""Which of a job's conversations earlier runs have answered in exactly this way; None where no run asked in it."""

Compressed = Callable[[str, float], Shortened]
"""The job's texts, compressed by a compressor to a rate."""


Labelled = Callable[[MixPath], "npt.NDArray[np.bool_] | None"]
"""Which of a job's conversations the reference labelled for a path of mixes; None where it is of other data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything a plan is decided from; the same job always gives the same plan."""

    plan_id: str
    profile: DataProfile
    lengths: Lengths  # tokens of each unique conversation's block as it stands in a prompt, its tags included
    truncated_lengths: Callable[[int, Keep], Lengths]  # the same, cut to that many tokens of text
    classifiers: tuple[Classifier, ...]
    grader: Classifier | None
    endpoints: tuple[Endpoint, ...]  # the first one's model is the reference
    prices: PriceBook
    objective: Objective
    recipes: tuple[Recipe, ...]
    seed: int
    now: datetime
    named: bool = False  # the user named the recipes, and so takes what they do to labels
    assume: bool = False  # the user takes published evidence for measured
    max_attempts: int = 4
    answered: Answered | None = None  # None: nothing is known, or everything is to be asked anew
    study: bool = False  # the plan is a part of a calibration or an audit
    fresh: bool = False  # ask anew what earlier runs answered
    packs: tuple[Packs, ...] = ()  # how earlier runs' packs were answered
    measured: tuple[Measurement, ...] = ()  # of these classifiers by calibrations, newest first
    pilots: tuple[Pilot, ...] = ()  # that were made on this very data, newest first
    labelled: Labelled | None = None  # None: no mix can be told to be of this data
    compressed: Compressed | None = None  # None: nothing is compressed
    cpu_usd_per_hour: Decimal = Decimal("0.04")  # of one core of this machine
    rows: npt.NDArray[np.uint32] | None = None  # of `lengths` in the data's index; None: 0, 1, 2 …
    share: float = 1.0  # of a whole job's tokens, where this is a part of one
    left: Mapping[str, npt.NDArray[np.bool_]] | None = None  # whom each classifier is asked of; None: all of everybody
    networks: AtHand | None = None  # None: there is none for some classifier, or other ways were named
    learned: Learned = NOTHING_LEARNED  # what earlier runs were billed; empty: priors

    @property
    def numbers(self) -> npt.NDArray[np.integer]:
        """The row in the data's index of each of its conversations."""
        return np.arange(len(self.lengths)) if self.rows is None else self.rows

    @property
    def reference(self) -> Endpoint:
        return self.endpoints[0]


def groups(classifiers: tuple[Classifier, ...], strategy: Strategy) -> tuple[tuple[Classifier, ...], ...]:
    """Which classifiers share a prompt: those that the strategy names, or consecutive ones; in the job's order."""
    if not strategy.groups:
        size = strategy.classifiers_per_request or len(classifiers)
        return tuple(classifiers[i : i + size] for i in range(0, len(classifiers), size))
    with_whom = {name: group for group in strategy.groups for name in group}
    sharing: dict[tuple[str, ...], list[Classifier]] = {}
    for classifier in classifiers:
        sharing.setdefault(with_whom.get(classifier.name, (classifier.name,)), []).append(classifier)
    return tuple(map(tuple, sharing.values()))


def grouped_for(classifiers: tuple[Classifier, ...], strategy: Strategy) -> Strategy:
    """The same strategy in as few words as these classifiers need: names of others fall away.

    Groupings that come to the same requests are one, so that they are priced and measured once.
    """
    found = groups(classifiers, strategy)
    plain = replace(strategy, groups=(), classifiers_per_request=1)
    for per_request in (1, strategy.classifiers_per_request, 0):
        simple = replace(plain, classifiers_per_request=per_request)
        if groups(classifiers, simple) == found:
            return simple
    return replace(plain, groups=tuple(tuple(c.name for c in group) for group in found if len(group) > 1))


def asked_of(
    job: Job, group: tuple[Classifier, ...]
) -> list[tuple[tuple[Classifier, ...], npt.NDArray[np.bool_] | None]]:
    """Whom a group of classifiers is asked of: of some it is a smaller one, where not all of it is to be asked.

    Pairs of classifiers and a mask over the job's conversations; None for all of them.
    """
    if job.left is None:
        return [(group, None)]
    codes = sum((job.left[c.name].astype(np.int64) << place for place, c in enumerate(group)), np.int64(0))
    return [
        (tuple(c for place, c in enumerate(group) if code >> place & 1), codes == code)
        for code in np.unique(codes).tolist()
        if code
    ]


def left_share(job: Job) -> float:
    """The share of the job's items that are to be asked at all."""
    if job.left is None:
        return 1.0
    return float(np.mean([job.left[c.name].mean() if len(job.lengths) else 0.0 for c in job.classifiers]))


def part_of(job: Job, mask: npt.NDArray[np.bool_]) -> Job:
    """The same job for some of its conversations."""

    @functools.cache
    def truncated(tokens: int, keep: Keep) -> Lengths:
        return job.truncated_lengths(tokens, keep)[mask]

    share = float(job.lengths[mask].sum()) / max(1, int(job.lengths.sum()))
    return replace(
        job,
        lengths=job.lengths[mask],
        truncated_lengths=truncated,
        answered=_answered_part(job.answered, mask),
        left=None if job.left is None else {name: one[mask] for name, one in job.left.items()},
        rows=None if job.rows is None else job.rows[mask],
        share=job.share * share,
        compressed=_compressed_part(job.compressed, mask, share),
    )


def _compressed_part(compressed: Compressed | None, mask: npt.NDArray[np.bool_], share: float) -> Compressed | None:
    if compressed is None:
        return None
    whole = compressed
    return lambda compressor, rate: whole(compressor, rate).part(mask, share)


def _answered_part(answered: Answered | None, mask: npt.NDArray[np.bool_]) -> Answered | None:
    if answered is None:
        return None

    def part(strategy: Strategy, endpoint: Endpoint, group: tuple[Classifier, ...]) -> npt.NDArray[np.bool_] | None:
        known = answered(strategy, endpoint, group)
        return None if known is None else known[mask]

    return part
