"""Deadline, budget and agreement as one kind of thing: a number that must not exceed a limit, and words for both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from semtel_batch.plans import Estimate, Objective

# Shares come as binary fractions: 1 - 0.9 is a little less than 0.1, and must not fail by it.
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """One limit of the objective, how an estimate stands to it, and how both are said."""

    name: str
    limit: float | Decimal
    measure: Callable[[Estimate], float | Decimal]
    show: Callable[[float | Decimal], str]
    miss: str  # "…, {limit}" said of an estimate that misses it

    def keeps(self, estimate: Estimate) -> bool:
        value = self.measure(estimate)
        if isinstance(value, Decimal) or isinstance(self.limit, Decimal):
            return value <= self.limit
        return value <= self.limit + _TOLERANCE

    def asked(self) -> str:
        return f"{self.name} {self.show(self.limit)}"

    def reason(self) -> str:
        """What is said of an estimate that doesn't keep it; by how much, its own figures tell."""
        return self.miss.format(limit=self.show(self.limit))


def constraints(objective: Objective) -> tuple[Constraint, ...]:
    """The limits that an objective sets."""
    made = []
    if objective.deadline_s is not None:
        made.append(_deadline(objective.deadline_s))
    if objective.budget_usd is not None:
        made.append(_budget(objective.budget_usd))
    if objective.min_agreement is not None:
        made.append(_agreement(objective.min_agreement))
    return tuple(made)


def _deadline(limit: float) -> Constraint:
    return Constraint(
        name="deadline",
        limit=limit,
        measure=lambda estimate: estimate.time_s,
        show=lambda seconds: duration(float(seconds)),
        miss="may take longer than the deadline of {limit}",
    )


def _budget(limit: Decimal) -> Constraint:
    return Constraint(
        name="budget",
        limit=limit,
        # The upper estimate: a budget that the expected bill just meets is overrun every other time.
        measure=lambda estimate: estimate.usd_high,
        show=lambda usd: dollars(Decimal(usd)),
        miss="may cost more than the budget of {limit}",
    )


def _agreement(limit: float) -> Constraint:
    return Constraint(
        name="agreement",
        limit=1 - limit,
        measure=lambda estimate: estimate.quality.label_change,
        show=lambda change: f"{100 * (1 - float(change)):.1f} %",
        miss="may change more labels than an agreement of {limit} allows",
    )


def binding(limits: Sequence[Constraint], estimates: Sequence[Estimate]) -> tuple[Constraint, ...]:
    """The limits of which dropping one alone lets an estimate through; none if only several together do."""
    return tuple(c for c in limits if any(all(o.keeps(e) for o in limits if o is not c) for e in estimates))


def nearest(constraint: Constraint, limits: Sequence[Constraint], estimates: Sequence[Estimate]) -> Estimate:
    """The estimate that comes closest to a limit, among those that keep the others, or else among all."""
    others = [c for c in limits if c is not constraint]
    keeping = [e for e in estimates if all(c.keeps(e) for c in others)]
    return min(keeping or estimates, key=lambda e: (constraint.measure(e), e.usd))


def duration(seconds: float) -> str:
    """A duration as a user would type it: 45s, 12m, 24h, 3.5d; rounded up, so that asking for it is enough."""
    for unit, length, until in (("s", 1, 60), ("m", 60, 3_600), ("h", 3_600, 48 * 3_600 + 1)):
        if seconds < until:
            return f"{_up(seconds / length)}{unit}"
    return f"{_up(seconds / 86_400)}d"


def _up(number: float) -> str:
    return f"{-(-number * 10 // 1) / 10:g}"


def dollars(usd: Decimal) -> str:
    """Money rounded up to a cent, or to two digits that mean something below it."""
    if usd == 0:
        return "$0"
    places = max(2, 1 - usd.adjusted())
    return f"${usd.quantize(Decimal(1).scaleb(-places), rounding='ROUND_CEILING'):,f}"
