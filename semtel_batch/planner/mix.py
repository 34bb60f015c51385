"""The cheapest mix: which share of every stratum is asked in which way, as one linear program.

A *column* is one way to serve one stratum: an arm (how it is asked) in a channel (where and when), for one block of
classifiers that share a prompt. A column is described by numbers alone (money, expected disagreements, what it uses of
each limit) and knows nothing of providers. A *partition* splits the classifiers into blocks; whoever is served by a
partition is served by all of its blocks.

    min  Σ usd·x      Σ_P y[s,P] = n_s     Σ x[s,P,g,·] = y[s,P]  ∀ blocks g of P     Σ weight_l·x ≤ at_most_l  ∀ limits

Everything else is a limit: the loss of a classifier, tokens a minute, requests, queued tokens in a window, the reserve
of a hedge, the budget. Coverage by partition, and not by classifier, is needed: {12}, {23}, {13} at a half each cover
every classifier and are no way to ask. Solved by HiGHS (Q. Huangfu, J. Hall, Math. Prog. Comp. 10, 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from semtel_batch.planner.candidates import Nest, limit_prices

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LARGE = 5_000  # columns above which only some are solved for, and the rest are priced
_WHOLE = 20_000  # columns above which a program solved whole is faster by the interior point method (with crossover)
_NEAREST = (4, 16)  # columns of each block that are solved for, by how near they come to being its best
_REDUCED = 1e-7  # of the mean cost: what a column must save to be missing; the solver's own tolerance
_TINY = 1e-9  # a share below this is the solver's rounding, not a decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Ease:
    """A step that loosens a limit: so many units more of it, or so much less that each column uses."""

    name: str  # what is loosened; several limits may be by one step
    step: str
    units: float = 0.0
    less: Floats | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Σ weight·x ≤ at_most. `weight` is per conversation, one figure a column; `unit` says what is counted."""

    name: str
    at_most: float
    weight: Floats
    unit: str = ""
    wish: str = ""  # which of the user's it comes from
    eases: tuple[Ease, ...] = ()

    def take(self, kept: npt.NDArray[np.bool_]) -> Limit:
        """The same for some of the columns."""
        eases = (one if one.less is None else replace(one, less=one.less[kept]) for one in self.eases)
        return replace(self, weight=self.weight[kept], eases=tuple(eases))

    def eased(self, key: tuple[str, str]) -> Limit:
        """The same loosened by a step, as far as it is one of its own."""
        found = next((one for one in self.eases if (one.name, one.step) == key), None)
        if found is None:
            return self
        weight = self.weight if found.less is None else self.weight - found.less
        return replace(self, at_most=self.at_most + found.units, weight=weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The ways there are, as arrays of one length: a column serves conversations of one stratum."""

    stratum: Ints
    partition: Ints
    block: Ints
    arm: Ints  # the caller's number of what is asked how, and where
    usd: Floats  # a conversation, upper estimate
    loss: (
        Floats  # (columns, classifiers): expected disagreements with the reference a conversation; 0 outside the block
    )

    def __len__(self) -> int:
        return len(self.usd)

    def take(self, rows: npt.NDArray[np.bool_]) -> Columns:
        """Keep some of the columns."""
        return Columns(
            stratum=self.stratum[rows],
            partition=self.partition[rows],
            block=self.block[rows],
            arm=self.arm[rows],
            usd=self.usd[rows],
            loss=self.loss[rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A job as the program sees it. Sizes are conversations a stratum."""

    sizes: Floats
    columns: Columns
    limits: tuple[Limit, ...]

    def limit(self, name: str) -> Limit:
        return next(one for one in self.limits if one.name == name)

    def with_limits(self, limits: Sequence[Limit]) -> Problem:
        return replace(self, limits=tuple(limits))

    def take(self, kept: npt.NDArray[np.bool_]) -> Problem:
        """Keep some of the columns."""
        return replace(self, columns=self.columns.take(kept), limits=tuple(one.take(kept) for one in self.limits))

    def without(self, names: Sequence[str]) -> Problem:
        return self.with_limits([one for one in self.limits if one.name not in names])


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """A solution: conversations a column, what it costs, and what one unit more of each limit would save."""

    x: Floats
    usd: float
    loss: Floats  # expected disagreements per classifier
    prices: dict[str, float]  # by limit: US dollars that one more unit of it saves, at the margin; 0 where it has slack


@dataclass(frozen=True, slots=True)
class _Rows:
    """The equality rows: every stratum is served by partitions, every block of a partition serves as many as it."""

    matrix: Any  # scipy.sparse.csr_array (rows, columns + partitions)
    right: Floats
    n_extra: int


def loss_limits(columns: Columns, allowed: Floats, names: Sequence[str], *, scale: float = 1.0) -> tuple[Limit, ...]:
    """One limit a classifier: at most `scale` times the allowed count of disagreements."""
    return tuple(
        Limit(name=name, at_most=scale * float(most), weight=columns.loss[:, c], unit="disagreements")
        for c, (name, most) in enumerate(zip(names, allowed, strict=True))
    )


def solve(problem: Problem) -> Mix | None:
    """Find the cheapest mix; None where no mix keeps every limit.

    Of many columns only those are solved for that are nearly best at what the limits cost; that no other would make it
    cheaper is checked by the reduced costs of all, so that it is the optimum of the whole.
    """
    found = _solved(problem)
    if found is None:
        return None
    x = np.where(found.x > _TINY * max(1.0, problem.sizes.max()), found.x, 0.0)
    marginals = found.limits / _scales(problem) if problem.limits else np.zeros(0)
    prices = {one.name: max(0.0, float(m)) for one, m in zip(problem.limits, marginals, strict=True)}
    columns = problem.columns
    return Mix(x=x, usd=float(columns.usd @ x), loss=columns.loss.T @ x, prices=prices)


def savings(problem: Problem, mix: Mix) -> dict[tuple[str, str], float]:
    """US dollars that each step beyond a limit that binds would save: by what is loosened, and by how much.

    Solved again and not only the dual times the step: a step may go further than the price at the margin holds.
    """
    binding = [one for one in problem.limits if mix.prices[one.name] > 0]
    found: dict[tuple[str, str], float] = {}
    for key in dict.fromkeys((ease.name, ease.step) for one in binding for ease in one.eases):
        eased = solve(problem.with_limits([one.eased(key) for one in problem.limits]))
        if eased is not None:
            found[key] = mix.usd - eased.usd
    return found


def stretch(problem: Problem, names: Sequence[str]) -> float | None:
    """By which common factor the limits named must be multiplied, at the least, so that a mix exists; the others hold.

    Below 1 there is room: the same program answers "the best quality for this budget" (stretch the losses) and "the
    nearest budget" (stretch the budget). None where the others alone can't be kept. A limit of 0 can't be stretched.
    """
    answer = _linprog(problem, np.zeros(len(problem.columns)), stretched=frozenset(names))
    return None if answer is None else max(0.0, float(answer.x[-1]))


def dominated(problem: Problem) -> npt.NDArray[np.bool_]:
    """Mark columns that another one of their block beats or equals in money, in every loss and in every limit.

    No cheapest mix needs them; leaving them out makes the program several times smaller.
    """
    columns = problem.columns
    limits = [one.weight for one in problem.limits]
    figures = np.column_stack([columns.usd, columns.loss, *limits])
    marked = np.zeros(len(columns), dtype=bool)
    for rows in _blocks(columns):
        these = figures[rows]
        # In order of money, and of the sum of the rest among equals, so that of two that are equal the first stays.
        order = np.lexsort((these[:, 1:].sum(1), these[:, 0]))
        these = these[order]
        better = (these[:, None, :] <= these[None, :, :]).all(2)
        marked[rows[order]] = np.triu(better, 1).any(0)
    return marked


def trim(problem: Problem) -> Problem:
    """Leave out what is dominated."""
    return problem.take(~dominated(problem))


def _blocks(columns: Columns) -> list[Ints]:
    order = np.lexsort((columns.block, columns.partition, columns.stratum))
    keys = np.column_stack([columns.stratum, columns.partition, columns.block])[order]
    starts = np.flatnonzero((np.diff(keys, axis=0) != 0).any(1)) + 1
    return [np.asarray(part, dtype=np.int64) for part in np.split(order, starts)]


# ── the program ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Solved:
    """An optimum: conversations a column, and the duals of limits (in scaled figures) and of the equality rows."""

    x: Floats
    limits: Floats  # what one unit more of each saves
    rows: Floats


def _solved(problem: Problem) -> Solved | None:
    columns = problem.columns
    if len(columns) <= _LARGE or not problem.limits:
        return solve_whole(problem)
    nest = Nest.of((columns.stratum, columns.partition, columns.block), problem.sizes)
    weight, most = _weights(problem), _right(problem, frozenset())
    guessed = limit_prices(nest, columns.usd, weight, most)
    rank, rows = nest.rank(columns.usd + guessed @ weight), _equalities(problem).matrix[:, : len(columns)]
    for nearest in _NEAREST:
        found = _generated(problem, rank < nearest, weight, rows)
        if found is not None:
            return found
    return solve_whole(problem)  # whether anything keeps the limits, only all columns can tell


def _generated(problem: Problem, kept: npt.NDArray[np.bool_], weight: Floats, rows: Any) -> Solved | None:
    """Solve for some columns, and again with those that would make it cheaper, until there are none."""
    usd = problem.columns.usd
    while True:
        found = solve_whole(problem.take(kept))
        if found is None:
            return None
        reduced = usd + found.limits @ weight - rows.T @ found.rows
        missing = (reduced < -_REDUCED * usd.mean()) & ~kept
        if not missing.any():
            x = np.zeros(len(usd))
            x[kept] = found.x
            return replace(found, x=x)
        kept = kept | missing


def solve_whole(problem: Problem) -> Solved | None:
    """Solve a program with all of its columns at once; None where no mix keeps every limit."""
    # In costs near 1, as the solver's tolerances are absolute; a conversation costs a thousandth of a cent.
    unit = float(problem.columns.usd.mean()) or 1.0
    answer = _linprog(problem, problem.columns.usd / unit)
    if answer is None:
        return None
    limits = -answer.ineqlin.marginals * unit if problem.limits else np.zeros(0)
    return Solved(x=answer.x[: len(problem.columns)], limits=limits, rows=answer.eqlin.marginals * unit)


def _scales(problem: Problem) -> Floats:
    """Rows in figures near 1: tokens, dollars and disagreements lie ten orders of magnitude apart."""
    tops = [max(abs(one.at_most), float(np.abs(one.weight).max(initial=0.0)), 1e-12) for one in problem.limits]
    return np.array(tops, dtype=float)


def _linprog(problem: Problem, usd: Floats, stretched: frozenset[str] = frozenset()) -> Any:
    """Solve; `stretched` limits get a common factor, the last variable, which is then what is minimised."""
    from scipy.optimize import linprog

    rows = _equalities(problem)
    matrix, equal = _inequalities(problem, rows.n_extra, stretched), rows.matrix
    right = _right(problem, stretched) if problem.limits else None
    if stretched:
        equal = _beside(equal, np.zeros(len(rows.right)))
    answer = linprog(
        np.concatenate([usd, np.zeros(rows.n_extra), np.ones(1 if stretched else 0)]),
        A_ub=matrix,
        b_ub=right,
        A_eq=equal,
        b_eq=rows.right,
        bounds=(0, None),
        method="highs-ipm" if len(problem.columns) > _WHOLE else "highs",
    )
    return answer if answer.status == 0 else None


def _weights(problem: Problem) -> Floats:
    """What each column uses of each limit, in scaled figures."""
    return np.vstack([one.weight for one in problem.limits]) / _scales(problem)[:, None]


def _inequalities(problem: Problem, n_extra: int, stretched: frozenset[str]) -> Any:
    from scipy import sparse

    if not problem.limits:
        return None
    weights = _weights(problem)
    matrix = sparse.hstack([sparse.csr_array(weights), sparse.csr_array((len(weights), n_extra))], format="csr")
    if not stretched:
        return matrix
    most = np.array([one.at_most for one in problem.limits]) / _scales(problem)
    return _beside(matrix, np.where(_named(problem, stretched), -most, 0.0))


def _right(problem: Problem, stretched: frozenset[str]) -> Floats:
    most = np.array([one.at_most for one in problem.limits], dtype=float) / _scales(problem)
    return np.where(_named(problem, stretched), 0.0, most)


def _named(problem: Problem, names: frozenset[str]) -> npt.NDArray[np.bool_]:
    return np.array([one.name in names for one in problem.limits])


def _beside(matrix: Any, column: Floats) -> Any:
    from scipy import sparse

    return sparse.hstack([matrix, sparse.csr_array(column[:, None])], format="csr")


def _equalities(problem: Problem) -> _Rows:
    """Rows for strata, and for blocks of partitions that have several; one block alone serves its stratum itself."""
    from scipy import sparse

    columns, n_strata = problem.columns, len(problem.sizes)
    blocks, block_of_column = _distinct(columns)
    ways, way_of_block, n_blocks = np.unique(blocks[:, :2], axis=0, return_inverse=True, return_counts=True)
    several = np.flatnonzero(n_blocks > 1)
    variable_of_way = np.full(len(ways), -1)
    variable_of_way[several] = np.arange(len(several))
    split_block = n_blocks[way_of_block] > 1
    row_of_block = np.where(split_block, n_strata + np.cumsum(split_block) - 1, blocks[:, 0])
    row = row_of_block[block_of_column]
    n = len(columns)
    extra_rows = row_of_block[split_block]
    extra_columns = n + variable_of_way[way_of_block[split_block]]
    data = np.concatenate([np.ones(n), -np.ones(len(extra_rows)), np.ones(len(several))])
    at_row = np.concatenate([row, extra_rows, ways[several, 0]])
    at_column = np.concatenate([np.arange(n), extra_columns, n + np.arange(len(several))])
    n_rows = n_strata + int(split_block.sum())
    matrix = sparse.csr_array((data, (at_row, at_column)), shape=(n_rows, n + len(several)))
    right = np.concatenate([problem.sizes, np.zeros(n_rows - n_strata)])
    return _Rows(matrix=matrix, right=right, n_extra=len(several))


def _distinct(columns: Columns) -> tuple[Ints, Ints]:
    """The blocks there are, as sorted rows of (stratum, partition, block), and the row of each column's."""
    n_partitions, n_blocks = int(columns.partition.max()) + 1, int(columns.block.max()) + 1
    flat, row = np.unique(
        (columns.stratum * n_partitions + columns.partition) * n_blocks + columns.block, return_inverse=True
    )
    rest, block = np.divmod(flat, n_blocks)
    return np.column_stack([*np.divmod(rest, n_partitions), block]), row
