"""How a pilot is laid out and judged: a path of measured ways, certified in its order on fresh conversations.

The path is fixed by what the first part of the sample said, before a fresh conversation is looked at: by rising
estimates of changed labels, and only on to what is cheaper. Tried in that order until the first fails, a wrong way is
certified with probability at most delta, however wrong the estimates are (`quality.certificate.certify_path`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import polars as pl

from semtel_batch.measurements import Calibration, Count, Pilot, Tried
from semtel_batch.planner.promise import target_of
from semtel_batch.plans import Plan
from semtel_batch.quality.certificate import (
    MAX_SAMPLE,
    Sampled,
    Step,
    Target,
    certify_path,
    percent,
    sample_size,
    zero_error_size,
)
from semtel_batch.strategies import bare
from semtel_batch.studies.calibrate import Measured, compare

LEAST_STEP = 0.05  # of the price; a way that saves less on the one before is not worth asking fresh conversations
DELTA = 0.05
_PLANNED = 0.9  # of a budget: prices of another sample are nearly, not quite, the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a pilot will ask: how many fresh conversations one by one, and each way of the path, safest first."""

    n: int
    path: tuple[Measured, ...]
    problem: str = ""  # why no certificate is possible; empty: it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What there is for a pilot."""

    usd: Decimal
    n_fresh: int  # conversations that nothing was chosen on
    n_verify: int  # of them at most these are asked one by one, if that is enough: a run should be left
    reference_usd_per_1000: Decimal


def n_before(made: Sequence[Calibration], found: Calibration) -> int:
    """How many other pilots asked fresh conversations of the same data, however its path was written."""
    data = Path(found.source).resolve()
    return sum(
        one.pilot is not None and one.pilot.reference_plan_id is not None and Path(one.source).resolve() == data
        for one in made
        if one.id != found.id
    )


def level(n_before: int) -> float:
    """The level of a pilot after so many others of the same data: delta, delta/2, delta/4, …, as audits are made."""
    return float(DELTA / 2**n_before)


def lay(measured: Sequence[Measured], reference_usd_per_1000: Decimal, max_disagreement: float) -> tuple[Measured, ...]:
    """Put ways in the order of a path: safest first, each cheaper than all before it.

    Left out is what is expected to change more than is allowed. A classifier's expectation is (x + ½)/(n + 1), so that
    few items without a change do not pass for none; the worst classifier counts.
    """
    path: list[Measured] = []
    cheapest = reference_usd_per_1000
    for one in sorted(measured, key=lambda one: (expected(one), one.usd_per_1000)):
        if expected(one) > max_disagreement:
            break
        if float(one.usd_per_1000) <= float(cheapest) * (1 - LEAST_STEP):
            path.append(one)
            cheapest = one.usd_per_1000
    return tuple(path)


def expected(one: Measured) -> float:
    """The share of labels that a way is expected to change, of the classifier that it changes most."""
    return max(((change.n_different + 0.5) / (change.n + 1) for change in one.changes), default=1.0)


def lay_out(path: Sequence[Measured], room: Room, target: Target) -> Layout:
    """Fit a path into the money and the conversations there are, or say why it can't be.

    Wanted is what certifies mostly if half of what is allowed differs. Ways are left out, the one that costs most to
    try first, while not even the fewest that can certify would be asked.
    """
    shown = f"{percent(1 - target.max_disagreement)} at {percent(1 - target.delta)} confidence"
    if not path:
        return Layout(n=0, path=(), problem=f"no measured way is cheaper and expected to keep {shown}")
    least = zero_error_size(target, room.n_fresh)
    fitting = [one for one in path if n_of(one, room.n_fresh, MAX_SAMPLE) >= least]
    if not fitting or least >= room.n_fresh:
        problem = (
            f"no certificate of {shown} is possible: it takes {least:,} fresh conversations, one a request, even if no "
            f"label differs, and the data has {room.n_fresh:,}"
        )
        return Layout(n=0, path=(), problem=problem)
    wanted = sample_size(target, target.max_disagreement / 2, population=None) or least
    wanted = min(wanted, max(least, room.n_verify))
    while True:
        usd = _usd_each(fitting, room)
        n = min(wanted, room.n_fresh, int(_PLANNED * float(room.usd) / usd) if usd else wanted)
        if n >= least:
            return Layout(n=n, path=tuple(fitting))
        if len(fitting) == 1:
            problem = (
                f"no certificate of {shown} is possible with ${room.usd:.4f}: {least:,} fresh conversations, the "
                f"fewest, may cost ${least * usd / _PLANNED:.4f}; raise --budget by the difference"
            )
            return Layout(n=0, path=(), problem=problem)
        fitting.remove(max(fitting, key=_usd_of))


def n_of(one: Measured, n_fresh: int, wanted: int) -> int:
    """How many conversations of a way can be audited: one a request, the others fill it up."""
    return min(wanted, n_fresh // one.strategy.conversations_per_request)


def _usd_each(path: Sequence[Measured], room: Room) -> float:
    return float(room.reference_usd_per_1000) / 1000 + sum(map(_usd_of, path))


def _usd_of(one: Measured) -> float:
    return float(one.usd_per_1000) * one.strategy.conversations_per_request / 1000


def count(reference: pl.DataFrame, labels: pl.DataFrame, plan: Plan) -> tuple[Count, ...]:
    """Hold a way's labels of fresh conversations against the reference's; columns as `labelling.labelled`."""
    found = []
    for classifier in plan.classifiers:
        differs, _ = compare(reference, labels, classifier.name)
        leg = next(leg for leg in plan.legs if classifier.name in leg.classifiers)
        found.append(
            Count(
                classifier=classifier.name,
                version=classifier.version,
                companions=tuple(plan.classifier(name).version for name in leg.classifiers),
                n=len(differs),
                n_different=int(differs.sum()),
            )
        )
    return tuple(found)


def with_step(pilot: Pilot, one: Measured, plan_id: str, counts: tuple[Count, ...]) -> Pilot:
    """Add the next step of the path, certified or not."""
    steps = [*(_step(pilot, tried.plan_id, tried.counts) for tried in pilot.steps), _step(pilot, plan_id, counts)]
    held = certify_path(steps, target_of(pilot))[-1].certified
    tried = Tried(
        recipe=one.strategy.recipe,
        strategy=bare(one.strategy),
        model=one.model,
        plan_id=plan_id,
        counts=counts,
        is_certified=held,
    )
    stopped = "" if held else f"{one.strategy.recipe} did not hold; what comes after it on the path was not tried"
    return replace(pilot, steps=(*pilot.steps, tried), stopped=stopped)


def _step(pilot: Pilot, plan_id: str, counts: Sequence[Count]) -> Step:
    sampled = (
        Sampled(classifier=one.classifier, n=one.n, n_different=one.n_different, population=pilot.population)
        for one in counts
    )
    return Step(plan=plan_id, sampled=tuple(sampled))
