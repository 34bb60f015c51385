"""What a pilot allows a plan to promise: the way it certified, on the data, classifiers and models it was made on.

A pilot (`calibrate --min-agreement`) tries ways from the safest to the cheapest on fresh conversations and stops at the
first that fails. The last that held may be planned; with conversations that are asked as the reference is, it may be
mixed in any share, for a part of a job has no more changed labels than the whole. Two certified ways mixed are not
certified: each may change other labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semtel_batch.measurements import Count, MixPath, Pilot, Tried
from semtel_batch.planner.cascade import models
from semtel_batch.planner.job import Job, groups
from semtel_batch.planner.path import Audit, most_that_differ, p_value
from semtel_batch.planner.walk import net_p_value
from semtel_batch.plans import Quality
from semtel_batch.quality.certificate import Certificate, Sampled, Target, certify, percent, upper_bound
from semtel_batch.quality.excess import Excess, excess_interval
from semtel_batch.records import Endpoint, Strategy
from semtel_batch.strategies import bare, ungrouped


def quality(job: Job, strategy: Strategy, endpoint: Endpoint) -> Quality | None:
    """What the pilot counted of a way, with the bound of the classifier it changes most; None if it wasn't tried."""
    pilot = pilot_of(job)
    tried = _tried(job, pilot, strategy, endpoint) if pilot else None
    if pilot is None or tried is None:
        return None
    versions = {classifier.version for classifier in job.classifiers}
    counts = [one for one in tried.counts if one.version in versions]
    change = max(_bound(pilot, one) for one in counts)
    if tried.is_certified:  # the exact test inverted is no more than this, but for a last digit
        change = min(change, 1 - pilot.min_agreement)
    return Quality(label_change=change, assumed=False, basis="; ".join(wording(pilot, one) for one in counts))


def is_certified(job: Job, strategy: Strategy, endpoint: Endpoint) -> bool:
    """Whether this is the way that the job's pilot certified, for at least the agreement that is asked for."""
    pilot = pilot_of(job)
    if pilot is None or not _suffices(pilot, job.objective.min_agreement):
        return False
    tried = _tried(job, pilot, strategy, endpoint)
    return tried is not None and tried == pilot.certified


def is_barred(job: Job, strategy: Strategy, endpoint: Endpoint) -> bool:
    """Whether a pilot was made for what is asked for, and this is not the way that it certified.

    What one sample let through may not pass over what a fresh one refused, or was never shown.
    """
    pilot, asked = pilot_of(job), job.objective.min_agreement
    if pilot is None or asked is None or not _suffices(pilot, asked):
        return False
    binds = _has_certified(pilot) or asked == pilot.min_agreement
    return binds and not is_certified(job, strategy, endpoint)


def pilot_of(job: Job) -> Pilot | None:
    """The newest pilot that certifies as much as is asked for, else the newest; only of the job's reference model."""
    fitting = [one for one in job.pilots if one.reference == job.reference.priced_as]
    asked = job.objective.min_agreement
    enough = (one for one in fitting if _has_certified(one) and _suffices(one, asked))
    return next(enough, next(iter(fitting), None))


def mixed_pilot(job: Job) -> Pilot | None:
    """The pilot whose certified mix may be planned, if what is asked for is what it was made for."""
    pilot = pilot_of(job)
    if pilot is None or pilot.mixes is None or pilot.mixes.certified is None or job.objective.min_agreement is None:
        return None
    return pilot if _suffices(pilot, job.objective.min_agreement) else None


def _has_certified(pilot: Pilot) -> bool:
    return pilot.certified is not None or (pilot.mixes is not None and pilot.mixes.certified is not None)


def wording(pilot: Pilot, counted: Count) -> str:
    """The one way a pilot's result is said."""
    return certificate(pilot, counted).wording


def certificate(pilot: Pilot, counted: Count) -> Certificate:
    """The exact test of one classifier's pilot."""
    sampled = Sampled(
        classifier=counted.classifier, n=counted.n, n_different=counted.n_different, population=pilot.population
    )
    return certify(sampled, target_of(pilot), f"reference {pilot.reference} asked one by one", sample="pilot ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What fresh conversations say of a mix, of one classifier."""

    p_value: float
    most: float  # share of the job's labels that may differ, at the pilot's level
    wording: str


def mix_certificates(pilot: Pilot) -> tuple[Held, ...]:
    """The exact test of the last mix that held, classifier by classifier."""
    path = pilot.mixes
    assert path is not None and path.certified is not None and path.certified.different is not None
    if path.is_net:
        pairs = zip(pilot.classifiers, path.certified.net, strict=True)
        return tuple(_held_net(pilot, path, name, *counts) for name, counts in pairs)
    found = zip(pilot.classifiers, path.certified.different, strict=True)
    return tuple(_held(pilot, path, name, x) for name, x in found)


def _held(pilot: Pilot, path: MixPath, name: str, x: int) -> Held:
    """Of labels that differ from the reference's (`planner.path.p_value`)."""
    target = target_of(pilot)
    audit = Audit(population=path.population, n=path.n_asked, different=np.zeros((0, 0), dtype=np.int64))
    said = Certificate(
        sampled=Sampled(classifier=name, n=path.n_asked, n_different=x, population=path.population),
        target=target,
        reference=f"reference {pilot.reference} asked one by one{_over(pilot, path)}",
        p_value=p_value(audit, x, target.max_disagreement * path.n_distinct),
        max_disagreement=most_that_differ(audit, x, pilot.delta) / path.n_distinct,
        sample="pilot ",
    )
    return Held(p_value=said.p_value, most=said.max_disagreement, wording=said.wording)


def _held_net(pilot: Pilot, path: MixPath, name: str, worse: int, better: int) -> Held:
    """Of labels that differ beyond the reference's own changes (`planner.walk.net_p_value`)."""
    most = target_of(pilot).max_disagreement
    seen = Excess(n_worse=worse, n_same=path.n_asked - worse - better, n_better=better)
    upper = excess_interval(seen, 1 - 2 * pilot.delta)[1] * path.population / path.n_distinct
    wording = (
        f"net of noise: with {percent(1 - pilot.delta)} confidence at most {percent(most)} more {name} labels differ "
        f"from those of reference {pilot.reference} asked one by one{_over(pilot, path)} than it changes by itself "
        f"(pilot n={path.n_asked:,}, {worse:,} more, {better:,} fewer)"
    )
    p = net_p_value(worse, better, path.n_asked, most * path.n_distinct / path.population)
    return Held(p_value=p, most=max(0.0, upper), wording=wording)


def _over(pilot: Pilot, path: MixPath) -> str:
    """Of what a mix is certified where conversations share texts: a text counts once, however many have it."""
    return f" over {path.n_distinct:,} distinct texts" if path.n_distinct < pilot.n_data else ""


def wording_of_mix(pilot: Pilot) -> str:
    """What was seen of the mix, in short."""
    path = pilot.mixes
    assert path is not None and path.certified is not None
    worst = max(path.certified.different or (0,))
    return f"of {path.n_asked:,} fresh conversations at most {worst:,} labels of a classifier differed"


def target_of(pilot: Pilot) -> Target:
    """What the pilot was to show, at its level."""
    return Target.of_agreement(pilot.min_agreement, pilot.delta)


def refusal(pilot: Pilot) -> str:
    """Why a way is barred, for its line among the alternatives."""
    shown = percent(pilot.min_agreement)
    if pilot.mixes is not None and pilot.mixes.certified is not None:
        return f"not certified: the pilot for {shown} certified a mix"
    if pilot.certified is None:
        return f"not certified: no way was by the pilot for {shown}"
    return f"not certified: the pilot for {shown} certified {pilot.certified.recipe}"


def _suffices(pilot: Pilot, asked: float | None) -> bool:
    return asked is None or asked <= pilot.min_agreement


def _bound(pilot: Pilot, one: Count) -> float:
    return upper_bound(one.n_different, one.n, pilot.delta, pilot.population)


def _tried(job: Job, pilot: Pilot, strategy: Strategy, endpoint: Endpoint) -> Tried | None:
    """The pilot's trial of this way, if the same classifiers stand in its prompts."""
    way = (ungrouped(bare(strategy)), models(job, strategy, endpoint))
    tried = next((one for one in pilot.steps if (ungrouped(one.strategy), one.model) == way), None)
    asked = {
        (classifier.version, tuple(one.version for one in group))
        for group in groups(job.classifiers, strategy)
        for classifier in group
    }
    counted = {(one.version, one.companions) for one in tried.counts} if tried else set()
    return tried if asked <= counted else None
