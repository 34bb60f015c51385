"""What money buys on a plan's data: the cost of every way to ask beside the agreement that it keeps.

Agreement is with the reference strategy's labels. Where a calibration measured a way, it is what was seen, with an
exact 95 % interval, of the classifier that changes most; where a published figure is all there is, it is assumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from semtel_batch.measurements import Kind, Measurement
from semtel_batch.network_plan import DISTILLED
from semtel_batch.planner.job import groups
from semtel_batch.plans import Estimate, Plan, models_named
from semtel_batch.quality.agreement import clopper_pearson
from semtel_batch.records import Classifier, Doubt, Endpoint, Keep, Strategy
from semtel_batch.strategies import Lever, bare, levers_of, ungrouped


class Basis(StrEnum):
    """How the agreement of a way is known."""

    EQUAL = "by construction"  # the reference's own request
    MEASURED = "measured"  # on a sample, by `calibrate`
    BOUNDED = "measured, at least"  # lever by lever, or by a pilot: only a bound is known
    ASSUMED = "assumed"
    UNKNOWN = "unknown"  # nothing links it to the reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to ask, in the cheapest tier that asks so: US dollars for the plan's data, shares of labels, 0…1."""

    recipe: str
    strategy: Strategy
    endpoint: str
    usd: Decimal
    basis: Basis
    agreement: float | None  # None: unknown
    low: float  # of a 95 % interval; where nothing was measured, the same figure
    high: float
    n: int = 0  # labels of the classifier that changes most, and how many of them differed
    n_different: int = 0
    classifier: str = ""
    is_chosen: bool = False
    is_best: bool = False  # no cheaper way is known to agree as much
    told: str = ""  # where the figure comes from


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One classifier's labels on texts cut to so many tokens."""

    classifier: str
    keep: Keep
    truncate_to: int
    n: int
    n_different: int
    low: float  # share of labels that stay, 95 % interval
    high: float
    usd_per_1000: Decimal | None  # conversations, all classifiers, in the cheapest tier; None: not priced

    @property
    def agreement(self) -> float:
        return 1 - self.n_different / self.n


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """How many of its own labels the reference changes when it is asked twice: nothing can be expected to do better."""

    classifier: str
    n: int
    n_different: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tradeoff:
    """The picture of a plan's data."""

    plan_id: str
    source: str
    n_conversations: int
    reference: str  # its model
    naive_usd: Decimal
    n_reused_items: int  # that earlier runs have answered: no way pays for what it would take over
    ways: tuple[Way, ...]  # cheapest first
    cuts: tuple[Cut, ...]  # classifier by classifier, shortest first
    noise: tuple[Noise, ...]


def tradeoff(plan: Plan, evidence: Sequence[Measurement], endpoints: Sequence[Endpoint]) -> Tradeoff:
    """All ways that a plan considered, held against the evidence that there is now.

    `evidence`: newest first; `endpoints`: those of the settings, the reference's first.
    """
    served = {one.name: one for one in (*plan.endpoints, *endpoints)}
    reference = endpoints[0].priced_as if endpoints else plan.endpoints[0].priced_as
    known = [one for one in evidence if one.reference == reference and one.max_tokens is None and one.n]
    changes = [one for one in known if one.kind is Kind.CHANGE]
    ways = [_way(one, plan, changes, served) for one in _cheapest(plan)]
    if not any(way.is_chosen for way in ways):  # a mix is none of the single ways
        ways.append(replace(_unmeasured(plan.chosen, plan), recipe=plan.recipe))
    return Tradeoff(
        plan_id=plan.id,
        source=plan.data.source,
        n_conversations=plan.data.n_conversations,
        reference=reference,
        naive_usd=plan.naive_usd,
        n_reused_items=plan.n_reused_items,
        ways=_with_best(ways),
        cuts=tuple(_cuts(plan.classifiers, changes, ways, plan.data.n_conversations)),
        noise=tuple(_noise(plan.classifiers, known)),
    )


@cache
def _schema() -> TypeAdapter[Tradeoff]:
    return TypeAdapter(Tradeoff)


def as_json(found: Tradeoff) -> dict[str, Any]:
    """The picture as JSON can carry it: money as strings."""
    document: dict[str, Any] = _schema().dump_python(found, mode="json")
    return document


def _cheapest(plan: Plan) -> Iterator[Estimate]:
    """Of ways that differ in tier only, the cheapest one, and the chosen one."""
    seen: set[tuple[Strategy, str, bool]] = set()
    considered = [one.estimate for one in plan.alternatives]
    for one in sorted(considered, key=lambda estimate: (estimate != plan.chosen, estimate.usd)):
        key = (bare(one.strategy), one.endpoint, _is_of_networks(one))
        if key not in seen:
            seen.add(key)
            yield one


def _way(one: Estimate, plan: Plan, changes: Sequence[Measurement], served: dict[str, Endpoint]) -> Way:
    way = _unmeasured(one, plan)
    is_other = way.basis is Basis.EQUAL or _is_of_networks(one)
    worst = None if is_other else _worst(one, plan, changes, served)
    if worst is None:
        return way
    low, high = clopper_pearson(worst.n_different, worst.n)
    return replace(
        way,
        basis=Basis.MEASURED if worst.source == plan.data.source else Basis.ASSUMED,
        agreement=1 - worst.n_different / worst.n,
        low=1 - high,
        high=1 - low,
        n=worst.n,
        n_different=worst.n_different,
        classifier=worst.classifier,
        told=f"{worst.n_different} of {worst.n} {worst.classifier} labels differ on a sample of {worst.source}",
    )


def _is_of_networks(one: Estimate) -> bool:
    """Whether an estimate is of networks before a way, and not of the way itself."""
    return one.strategy.recipe == DISTILLED


def _unmeasured(one: Estimate, plan: Plan) -> Way:
    """A way with what the plan knew of it."""
    quality = one.quality
    way = Way(
        recipe=one.strategy.recipe,
        strategy=one.strategy,
        endpoint=one.endpoint,
        usd=one.usd,
        basis=Basis.ASSUMED,
        agreement=1 - quality.label_change,
        low=1 - quality.label_change,
        high=1 - quality.label_change,
        is_chosen=one == plan.chosen,
        told=quality.basis,
    )
    if not quality.label_change and not one.strategy.changes_labels:
        return replace(way, basis=Basis.EQUAL)
    if not quality.assumed:
        return replace(way, basis=Basis.BOUNDED, high=1.0)
    return replace(way, basis=Basis.UNKNOWN, agreement=None, low=0.0, high=1.0) if way.agreement == 0 else way


def _worst(
    one: Estimate, plan: Plan, changes: Sequence[Measurement], served: dict[str, Endpoint]
) -> Measurement | None:
    """The newest measurement of the classifier that this very way changes most; None unless each was measured."""
    strategy = one.strategy
    if one.endpoint not in served or strategy.escalate not in (None, *served):
        return None
    model = models_named(served[one.endpoint], served[strategy.escalate or one.endpoint])
    alone = ungrouped(bare(strategy))
    found = []
    for group in groups(plan.classifiers, strategy):
        versions = tuple(one.version for one in group)
        for classifier in group:
            own = (m for m in changes if (m.version, m.companions, m.model) == (classifier.version, versions, model))
            newest = next((m for m in own if ungrouped(m.strategy) == alone), None)
            if newest is None:
                return None
            found.append(newest)
    return max(found, key=lambda m: m.n_different / m.n, default=None)


def _with_best(ways: Sequence[Way]) -> tuple[Way, ...]:
    """The cheapest first; the best are those that agree more than all that are cheaper."""
    ordered = sorted(ways, key=lambda way: (way.usd, -(way.agreement or 0)))
    most, marked = -1.0, []
    for way in ordered:
        is_best = way.agreement is not None and way.agreement > most
        most = way.agreement if is_best and way.agreement is not None else most
        marked.append(replace(way, is_best=is_best))
    return tuple(marked)


def _cuts(
    classifiers: Sequence[Classifier], changes: Sequence[Measurement], ways: Sequence[Way], n: int
) -> Iterator[Cut]:
    """What was measured of cutting and nothing else, each classifier in its own prompt."""
    prices = {
        (way.strategy.keep, way.strategy.truncate_to): way.usd * 1000 / max(1, n)
        for way in reversed(ways)
        if only_cuts(way.strategy) and way.recipe != DISTILLED
    }
    for classifier in classifiers:
        seen: dict[tuple[Keep, int], Measurement] = {}
        for one in changes:
            cut = one.strategy.truncate_to
            alone = one.version == classifier.version and one.companions == (classifier.version,)
            if cut is not None and alone and one.model == one.reference and only_cuts(one.strategy):
                seen.setdefault((one.strategy.keep, cut), one)
        for key in sorted(seen):
            yield cut_of(seen[key], prices.get(key))


def only_cuts(strategy: Strategy) -> bool:
    """Whether a strategy does nothing to labels but cut their texts."""
    return levers_of(strategy) == (Lever.TRUNCATING,) and strategy.doubt is Doubt.NONE


def cut_of(one: Measurement, usd_per_1000: Decimal | None) -> Cut:
    """A measurement of cutting alone, as a point of the curve."""
    low, high = clopper_pearson(one.n_different, one.n)
    return Cut(
        classifier=one.classifier,
        keep=one.strategy.keep,
        truncate_to=one.strategy.truncate_to or 0,
        n=one.n,
        n_different=one.n_different,
        low=1 - high,
        high=1 - low,
        usd_per_1000=usd_per_1000,
    )


def _noise(classifiers: Sequence[Classifier], known: Sequence[Measurement]) -> Iterator[Noise]:
    for classifier in classifiers:
        flips = (one for one in known if one.kind is Kind.SELF_FLIP and one.version == classifier.version)
        if (newest := next(flips, None)) is not None:
            yield Noise(classifier=classifier.name, n=newest.n, n_different=newest.n_different)
