"""Questions asked backwards of the same program: the cheapest deadline, the best quality for a budget, what binds.

Nothing here is a model of its own. A limit is stretched by the factor at which a mix begins to exist, or what limits
are made from (a deadline makes windows) is bisected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from semtel_batch.planner.mix import Limit, Mix, Problem, solve, stretch


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """The nearest feasible value of one limit, or of several that belong together."""

    names: tuple[str, ...]
    factor: float | None  # times the value asked for, the others kept; None: the others alone can't be kept
    at_most: tuple[float, ...]  # what the limits become

    @property
    def binds(self) -> bool:
        """Whether loosening this alone makes a plan possible."""
        return self.factor is not None


def nearest(problem: Problem, groups: Sequence[Sequence[str]]) -> tuple[Near, ...]:
    """Of each group of limits, how far it must be loosened if the others are kept.

    Groups are limits that one wish makes: the loss of each classifier, the windows of one endpoint.
    """
    found = []
    for names in groups:
        factor = stretch(problem, names)
        values = tuple(problem.limit(name).at_most * (factor if factor is not None else 1.0) for name in names)
        found.append(Near(names=tuple(names), factor=factor, at_most=values))
    return tuple(found)


def best_quality(problem: Problem, losses: Sequence[str]) -> tuple[float, Mix] | None:
    """Give the smallest share of the allowed losses that the other limits (a budget) leave, and the mix for it.

    None where the other limits can't be kept at any quality.
    """
    factor = stretch(problem, losses)
    if factor is None:
        return None
    # A hair of room, so that the second solution isn't lost to the first one's rounding.
    loose = factor * (1 + 1e-7) + 1e-9
    limits = [_scaled(one, loose) if one.name in losses else one for one in problem.limits]
    mix = solve(problem.with_limits(limits))
    return None if mix is None else (factor, mix)


def _scaled(limit: Limit, factor: float) -> Limit:
    return replace(limit, at_most=limit.at_most * factor)


def least(feasible: Callable[[float], bool], low: float, high: float, *, tolerance: float) -> float | None:
    """Give the least value that is feasible, to within `tolerance` above it; None if even `high` is not.

    What is feasible at a value must be so at any above it, as a longer deadline or a larger budget is.
    """
    if not feasible(high):
        return None
    if feasible(low):
        return low
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (low, middle) if feasible(middle) else (middle, high)
    return high


def earliest(at: Callable[[float], Problem], low_s: float, high_s: float, *, tolerance_s: float = 60.0) -> float | None:
    """Give the shortest deadline for which a mix exists; `at` builds the program for a deadline in seconds."""
    return least(lambda deadline_s: solve(at(deadline_s)) is not None, low_s, high_s, tolerance=tolerance_s)


def cheapest_deadline(
    at: Callable[[float], Problem], low_s: float, high_s: float, *, slack: float = 0.0, tolerance_s: float = 60.0
) -> float | None:
    """Give the shortest deadline at which the job costs what it does with the longest, or a share `slack` more."""
    longest = solve(at(high_s))
    if longest is None:
        return None
    most = longest.usd * (1 + slack + 1e-9)

    def as_cheap(deadline_s: float) -> bool:
        mix = solve(at(deadline_s))
        return mix is not None and mix.usd <= most

    return least(as_cheap, low_s, high_s, tolerance=tolerance_s)
