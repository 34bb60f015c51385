"""From the safest plan to the cheapest: a path laid before anybody looks, and how far along it a fresh sample carries.

The path is solved for rising shares of the allowed disagreement, with the reference itself as its first plan, and made
finer by mixing neighbours. Who is asked how is decided by one stored number between 0 and 1 a conversation: of a
stratum's numbers each column gets an interval, dearest first, so that along the path a conversation only moves on to
cheaper ways, and what was answered for one plan serves for most others.

Certified in the order of the path on items that were never used for choosing, a plan breaks its promise with
probability at most delta, whatever the loss model thought (fixed sequence; `quality.certificate`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from semtel_batch.planner.mix import Floats, Ints, Limit, Mix, Problem, loss_limits, solve
from semtel_batch.planner.slicing import snapped
from semtel_batch.quality.certificate import hypergeometric_cdf

SCALES = (0.0, 0.45, 0.6, 0.75, 0.9, 1.05, 1.25, 1.6, 2.2)
"""Shares of the allowed disagreement, as predicted, for which plans are solved. Predictions may be off either way."""
FINER = 8
"""Plans between two solved ones: finer steps cost nothing (no correction is made for them) and end nearer the edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """Plans in order, safest first, as conversations a column."""

    problem: Problem  # without loss limits
    steps: Floats  # (plans, columns)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def usd(self) -> Floats:
        """What each plan costs."""
        return np.asarray(self.steps @ self.problem.columns.usd)

    @property
    def loss(self) -> Floats:
        """Predicted disagreements of each plan, (plans, classifiers)."""
        return np.asarray(self.steps @ self.problem.columns.loss)


def lay(problem: Problem, allowed: Floats, *, scales: Sequence[float] = SCALES, finer: int = FINER) -> Path:
    """Solve the plans of a path; `problem` has no loss limits, `allowed` are counts of disagreements a classifier.

    Scales at which there is no plan are left out; a path without plans is empty.
    """
    solved: list[Mix] = []
    names = [f"loss {c}" for c in range(len(allowed))]
    for scale in scales:
        losses: tuple[Limit, ...] = loss_limits(problem.columns, allowed, names, scale=scale)
        mix = solve(problem.with_limits([*problem.limits, *losses]))
        if mix is not None:
            solved.append(mix)
        if mix is not None and not any(mix.prices[name] for name in names):
            break  # no loss limit binds any more: what comes after is the same plan
    return Path(problem=problem, steps=_finer([mix.x for mix in solved], finer, len(problem.columns)))


def _finer(plans: Sequence[Floats], parts: int, n_columns: int) -> Floats:
    """Mix neighbours; not the first two, for between the reference and the next every way would have to be audited."""
    if not plans:
        return np.zeros((0, n_columns))
    between = [a + (b - a) * k / parts for a, b in pairwise(plans[1:]) for k in range(parts)]
    return np.array([plans[0], *between, *plans[-1:]] if len(plans) > 1 else plans)


# ── who is asked how ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """Of each column used, which of its stratum's numbers it serves: low ≤ u < high."""

    column: Ints
    low: Floats
    high: Floats


def intervals(problem: Problem, x: Floats) -> Intervals:
    """Give every column used its interval: partitions side by side, the blocks of one over the same interval."""
    columns = problem.columns
    used = np.flatnonzero(x > 0)
    way, way_usd, way_share = _ways(problem, x, used)
    share = x[used] / problem.sizes[columns.stratum[used]]
    # Dearest first: partitions within a stratum, then columns within a block.
    order = np.lexsort((-columns.usd[used], columns.block[used], way, -way_usd[way], columns.stratum[used]))
    used, way, share = used[order], way[order], share[order]
    ways = np.array(list(dict.fromkeys(way.tolist())), dtype=np.int64)
    stratum_of_way = np.zeros(len(way_share), dtype=np.int64)
    stratum_of_way[way] = columns.stratum[used]
    start = np.zeros(len(way_share))
    start[ways] = _cumulated(way_share[ways], stratum_of_way[ways]) - way_share[ways]
    key = way * (int(columns.block[used].max()) + 1) + columns.block[used]
    high = start[way] + _cumulated(share, key)
    low, high = snapped(np.maximum(high - share, 0.0), high)
    # Rounding must not leave a stratum's last numbers to nobody.
    return Intervals(column=used, low=low, high=np.where(high > 1 - 2e-6, 1.0, high))


def _ways(problem: Problem, x: Floats, used: Ints) -> tuple[Ints, Floats, Floats]:
    """Number the partitions used in each stratum: of each used column, then what each costs, and its share."""
    columns = problem.columns
    key = columns.stratum[used] * (int(columns.partition.max()) + 1) + columns.partition[used]
    _, way = np.unique(key, return_inverse=True)
    blocks = np.unique(np.column_stack([way, columns.block[used]]), axis=0)[:, 0]
    share = np.bincount(way, weights=x[used] / problem.sizes[columns.stratum[used]]) / np.bincount(blocks)
    usd = np.bincount(way, weights=columns.usd[used] * x[used]) / share
    return way, usd, share


def _cumulated(values: Floats, group: Ints) -> Floats:
    """Running sums that start anew where the group changes; groups lie together."""
    sums = np.cumsum(values)
    first = np.concatenate([[0], np.flatnonzero(np.diff(group)) + 1])
    offset = np.concatenate([[0.0], sums])[first]
    return np.asarray(sums - np.repeat(offset, np.diff(np.append(first, len(values)))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A plan of a path as it is written down: who is asked how, where every partition is one block."""

    arm: Ints  # and of each, which of a stratum's numbers it serves: low ≤ u < high; by stratum, ascending
    stratum: Ints
    low: Floats
    high: Floats
    expected: Floats  # and the share of labels that differ there, of the classifier that differs most
    usd: float  # of the whole job
    loss: Floats  # disagreements expected, a classifier each

    def arms(self, stratum: Ints, u: Floats) -> Ints:
        """The arm of each conversation, of these strata and with these stored numbers."""
        # Strata side by side on one line: a conversation lies at stratum + u.
        at = np.searchsorted(self.stratum + self.high, stratum + u, side="right")
        return self.arm[np.minimum(at, len(self.arm) - 1)]


def step(problem: Problem, x: Floats) -> Step:
    """Write a plan down."""
    found = intervals(problem, x)
    is_wide = found.high > found.low
    column = found.column[is_wide]
    columns = problem.columns
    return Step(
        arm=columns.arm[column],
        stratum=columns.stratum[column],
        low=found.low[is_wide],
        high=found.high[is_wide],
        expected=columns.loss[column].max(1),
        usd=float(x @ columns.usd),
        loss=np.asarray(x @ columns.loss),
    )


# ── how far the sample carries ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """A fresh sample: drawn uniformly from the `population` conversations that any plan of the path may get wrong."""

    population: int
    n: int
    different: Ints  # (plans, classifiers): how many of the sample each plan gets wrong
    kept: bool = True  # the sample's own labels end as the reference gave them


def certified(audit: Audit, allowed: Floats, delta: float) -> int:
    """Give the number of plans certified, from the first on; 0 if none.

    `allowed` are counts over the whole job. Labels of the sample that were wrong are known, and where they are replaced
    by the reference's, what is left may hold as many as are allowed: the test is then of allowed + 1 + x among the
    population. It is valid: if D of the population would be wrong, a wrong end needs X ≤ D - allowed - 1, and each such
    x is let through only if P(X ≤ x | allowed + 1 + x) ≤ δ, of which P(X ≤ x | D) is no more.
    """
    for step, counts in enumerate(audit.different):
        if any(p_value(audit, int(x), float(most)) > delta for x, most in zip(counts, allowed, strict=True)):
            return step
    return len(audit.different)


def p_value(audit: Audit, x: int, allowed: float) -> float:
    """Give the exact p-value of "more than `allowed` labels would end wrong"; 0 where there are not so many."""
    marked = int(np.floor(allowed + 1e-9)) + 1 + (x if audit.kept else 0)
    room = audit.population - audit.n if audit.kept else audit.population
    if room <= allowed:
        return 0.0
    return hypergeometric_cdf(x, audit.population, min(marked, audit.population), audit.n)


def most_that_differ(audit: Audit, x: int, delta: float) -> int:
    """Give the fewest labels of which "more than so many end wrong" is refuted: the inverted exact test."""
    low, high = 0, audit.population
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if p_value(audit, x, middle) <= delta else (middle + 1, high)
    return low


def passing(population: int, n: int, allowed: float, delta: float, *, kept: bool = True) -> int:
    """Give the most differing labels in a sample of n with which a plan is certified; -1 if not even none."""
    empty = Audit(population=population, n=n, different=np.zeros((0, 0), dtype=np.int64), kept=kept)
    low, high = -1, n
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if p_value(empty, middle, allowed) <= delta else (low, middle - 1)
    return low


def thinned(one: Step, safe: Step, parts: int) -> list[Step]:
    """Give plans between the safest and the next one: the first part of each share stays with the safest plan.

    Unlike mixed neighbours they ask nobody in a way that `one` doesn't, so that a fresh sample pays nothing for them;
    and what they get wrong is a part of what `one` gets wrong.
    """
    return [_blended(one, safe, k / parts) for k in range(1, parts)]


def _blended(one: Step, safe: Step, part: float) -> Step:
    """A plan that asks `part` of each share of `one` as it does, and everybody else as `safe` does."""
    cut = np.round(one.low + (one.high - one.low) * (1 - part), 6)
    # Every share of the safe plan inside the first part of every share of the other.
    i, j = np.nonzero(one.stratum[:, None] == safe.stratum[None, :])
    low, high = np.maximum(one.low[i], safe.low[j]), np.minimum(cut[i], safe.high[j])
    columns = (
        np.concatenate([safe.arm[j], one.arm]),
        np.concatenate([safe.stratum[j], one.stratum]),
        np.concatenate([low, cut]),
        np.concatenate([high, one.high]),
        np.concatenate([safe.expected[j], one.expected]),
    )
    order = np.lexsort((columns[2], columns[1]))
    order = order[columns[3][order] > columns[2][order]]
    arm, stratum, low, high, expected = (column[order] for column in columns)
    usd, loss = safe.usd + (one.usd - safe.usd) * part, safe.loss + (one.loss - safe.loss) * part
    return Step(arm=arm, stratum=stratum, low=low, high=high, expected=expected, usd=usd, loss=loss)


def population(steps: Sequence[Step], exact: Ints, stratum: Ints, u: Floats) -> npt.NDArray[np.bool_]:
    """Mark the conversations that some plan of a path asks in a way that may differ: in any but the `exact` arms."""
    touched = np.zeros(len(stratum), dtype=bool)
    for one in steps:
        touched |= ~np.isin(one.arms(stratum, u), exact)
    return touched
