"""From the first question to the last plan that held: in which order ways are tried, and fresh conversations are spent.

A job is a `Table`: its conversations in strata, and what each way of asking costs there. Who is asked hides behind
`Asker`: a provider, through ordinary plans (`commands.piloting`), or a world of the benchmark. Nothing else differs
between the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from semtel_batch.planner.loss import Levers, LossModel, Observed, fit
from semtel_batch.planner.mix import Columns, Floats, Ints, Limit, Problem, trim
from semtel_batch.planner.path import FINER, Audit, Path, Step, certified, lay, passing, population, step, thinned
from semtel_batch.planner.pilot import audit_size, auditing_usd, explore_share, first_arms, used_arms
from semtel_batch.quality.excess import Excess, excess_p_value

Bools = npt.NDArray[np.bool_]

ROUNDS = 3  # of trying ways: the first, and twice what the plans then lean on
N_SAMPLED = 48  # of a stratum: losses are predicted on some of its conversations, for the logistic is curved
_ROUGH = (0.3, 0.7, 1.0, 1.6)  # scales of a path that only tells which ways matter
_LIKELY = 0.75  # of what is allowed: about where paths end, as predicted
_BACK = 0.5  # of what an audited conversation's neighbours cost comes back: the plan asks them in that way anyway


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A job's conversations, and every way to ask them priced by stratum and channel. Ways are numbered."""

    levers: tuple[Levers, ...]
    stratum: Ints
    uniform: Floats  # each conversation's stored number
    hard: Floats  # (conversations, classifiers); 0 where nothing is known of it
    log_length: Floats
    usd: Floats  # (channels, strata, ways), a conversation; nan: it can't be asked so
    limits: tuple[Limit, ...] = ()  # weights in that order, flattened
    sampled: Ints  # conversations that losses are predicted on, see `some`

    @property
    def reference(self) -> int:
        return next(number for number, one in enumerate(self.levers) if one.exact)

    @property
    def sizes(self) -> Floats:
        return np.bincount(self.stratum, minlength=self.usd.shape[1]).astype(float)

    @property
    def arm_usd(self) -> Floats:
        """What a conversation costs in each way, in its cheapest channel, on average over the job."""
        cheapest = np.where(np.isnan(self.usd), np.inf, self.usd).min(axis=0)
        return np.asarray(self.sizes @ cheapest) / len(self.stratum)

    def predicted(self, model: LossModel) -> Floats:
        """Expected disagreement (strata, ways, classifiers)."""
        of = self.stratum[self.sampled]
        n = np.maximum(np.bincount(of, minlength=self.usd.shape[1]), 1)
        found = [model.share(lever, self.hard[self.sampled], self.log_length[self.sampled]) for lever in self.levers]
        mean = [np.stack([np.bincount(of, weights=q, minlength=len(n)) / n for q in one.T], 1) for one in found]
        return np.stack(mean, 1)

    def problem(self, loss: Floats) -> Problem:
        """The program of these losses (strata, ways, classifiers), without any that others beat in everything."""
        n_channels, n_strata, n_ways = self.usd.shape
        channel, stratum, way = (axis.ravel() for axis in np.indices(self.usd.shape))
        able = np.isfinite(self.usd.ravel())
        nothing = np.zeros(int(able.sum()), dtype=np.int64)
        columns = Columns(
            stratum=stratum[able],
            partition=nothing,
            block=nothing,
            arm=(channel * n_ways + way)[able],
            usd=self.usd.ravel()[able],
            loss=np.tile(loss.reshape(n_strata * n_ways, -1), (n_channels, 1))[able],
        )
        limits = tuple(one.take(able) for one in self.limits)
        return trim(Problem(sizes=self.sizes, columns=columns, limits=limits))

    def arms(self, one: Step, at: Ints | slice = slice(None)) -> Ints:
        """Channel and way, in one number, in which a plan asks each conversation, or each of some."""
        return one.arms(self.stratum[at], self.uniform[at])

    def ways(self, one: Step, at: Ints | slice = slice(None)) -> Ints:
        """The way alone."""
        return np.asarray(self.arms(one, at) % len(self.levers))


def some(stratum: Ints, rng: np.random.Generator, most: int = N_SAMPLED) -> Ints:
    """Draw up to so many conversations of each stratum."""
    order = rng.permutation(len(stratum))
    order = order[np.argsort(stratum[order], kind="stable")]
    first = np.concatenate([[0], np.cumsum(np.bincount(stratum))])
    return np.asarray(order[np.arange(len(stratum)) - first[stratum[order]] < most])


class Asker(Protocol):
    """Who answers. What it was asked once, it is not asked again."""

    def explore(self, way: int, share: float) -> Observed | None:
        """Try a way on a share of E; None where there is no money for it."""
        ...

    def verify(self, way: int, at: Ints, likely: Ints) -> Bools | None:
        """Ask these of V (places in it) in a way, each in a request of its own but for ordinary neighbours.

        `likely`: the way in which each conversation of the job will most likely be asked. Gives which labels differ
        from the reference's, (asked, classifiers); None where there is no money for it.
        """
        ...


class Nobody:
    """Answers nothing: what is known is all there is."""

    def explore(self, way: int, share: float) -> Observed | None:
        return None

    def verify(self, way: int, at: Ints, likely: Ints) -> Bools | None:
        return None


# ── E: which ways there are to choose from ──────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """A path, fixed before a fresh conversation is looked at."""

    problem: Problem  # with the losses that E let expect
    path: Path
    steps: tuple[Step, ...]  # the same, written down


def explore(table: Table, asker: Asker, allowed: Floats, tried: dict[int, Observed] | None = None) -> Laid:
    """Try ways on E, fit, and try what the plans lean on, until they lean on nothing untried; then lay the path.

    `allowed`: disagreements a classifier, of the whole job. `tried`: what was tried before; the first ways are then
    not chosen here.
    """
    known = dict(tried or {})
    usd = table.arm_usd
    wanted = [] if known else first_arms(table.levers, usd)
    refused: set[int] = set()
    for _ in range(ROUNDS):
        for way in wanted:
            seen = asker.explore(way, explore_share(usd[way], usd[table.reference]))
            if seen is None:
                refused.add(way)
            else:
                known[way] = seen
        problem = _expected(table, known)
        rough = lay(problem, allowed, scales=_ROUGH, finer=1)
        wanted = used_arms(rough, table.levers * len(table.usd), {*known, *refused})
        if not wanted:
            break
    problem = _expected(table, known)
    path = lay(problem, allowed)
    return Laid(problem=problem, path=path, steps=_written(problem, path))


def _written(problem: Problem, path: Path) -> tuple[Step, ...]:
    """The path's plans, and some between the first two that thin the second out: should it fail, not all is lost."""
    steps = [step(problem, x) for x in path.steps]
    return (steps[0], *thinned(steps[1], steps[0], FINER), *steps[1:]) if len(steps) > 1 else tuple(steps)


def _expected(table: Table, known: dict[int, Observed]) -> Problem:
    return table.problem(table.predicted(fit(list(known.values()), table.levers, table.hard.shape[1])))


# ── V: how far the path carries ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What is to be shown of a plan: at most `allowed` labels of each classifier differ, but with probability delta.

    `kept`: the reference does not change its mind, and what it said of V stays V's label. `net`: what the reference
    itself changes when it is asked again is not counted (`quality.excess`).
    """

    allowed: Floats
    delta: float
    kept: bool = True
    net: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """The sample V, uniform over the `population` conversations that any plan of the path may get wrong."""

    items: Ints
    population: int
    flips: Bools | None = None  # (items, classifiers) that the reference itself is known to get wrong; None: none
    again: Bools | None = None  # which labels the reference changed when it was asked a second time


@dataclass(frozen=True, slots=True, kw_only=True)
class Walked:
    """How far a path was walked: what was counted of each plan that was tried, and how many of them held."""

    different: Ints  # (plans tried, classifiers)
    better: Ints  # the same: labels that the plan keeps and the reference changes; without `Fresh.again`, 0
    worse: Ints  # and those that the plan changes and the reference keeps; without it, all that it changes
    n_certified: int  # from the first on
    is_broke: bool = False  # there was no money to go on


def concerned(table: Table, steps: Sequence[Step], unseen: Bools, *, kept: bool) -> Ints:
    """The conversations outside E that some plan of the path may get wrong: what V is drawn from."""
    exact = np.arange(len(table.usd)) * len(table.levers) + table.reference if kept else np.empty(0, np.int64)
    return np.flatnonzero(population(steps, exact, table.stratum, table.uniform) & unseen)


def size(table: Table, laid: Laid, aim: Aim, taken: int) -> int:
    """Give the number of fresh conversations that makes the whole cheapest; 0 where none is worth its money."""
    return audit_size(laid.path, aim.allowed, aim.delta, item_usd(table, laid), taken)


def least(population: int, aim: Aim) -> int | None:
    """The fewest fresh conversations with which anything can be certified; None if all of them are not enough."""
    low, high = 1, population
    if population < 1 or not _can_hold(population, population, aim):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _can_hold(population, middle, aim) else (middle + 1, high)
    return low


def _can_hold(population: int, n: int, aim: Aim) -> bool:
    """Whether a plan of which nothing differs in a sample of n is certified by it."""
    allowed = float(aim.allowed.min())
    if aim.net:
        return net_p_value(0, 0, n, allowed / population) <= aim.delta
    return passing(population, n, allowed, aim.delta, kept=aim.kept) >= 0


def item_usd(table: Table, laid: Laid, *, back: float = _BACK) -> float:
    """What one fresh conversation costs at most: the reference's label, and every way that a plan gives it.

    `back`: the share of what its neighbours cost that is not counted.
    """
    pack = np.array([one.pack for one in table.levers])[laid.problem.columns.arm % len(table.levers)]
    return float(table.arm_usd[table.reference]) + auditing_usd(laid.path, 1 + (pack - 1) * (1 - back))


def likely(table: Table, steps: Sequence[Step], allowed: Floats) -> Ints:
    """The way of each conversation in the plan that will most likely be certified."""
    return table.ways(min(steps, key=lambda one: abs(float(one.loss.max()) - _LIKELY * float(allowed.min()))))


def likely_usd(laid: Laid, allowed: Floats) -> float:
    """What the plan costs that will most likely be certified."""
    able = (one.usd for one in laid.steps if float((one.loss / allowed).max()) <= _LIKELY)
    return min(able, default=laid.steps[0].usd)


def walk(table: Table, steps: Sequence[Step], fresh: Fresh, aim: Aim, asker: Asker) -> Walked:
    """Ask V in the ways of one plan after the other, and stop at the first that does not hold."""
    seen = _Seen(table, fresh, likely(table, steps, aim.allowed))
    ways = np.stack([table.ways(one, fresh.items) for one in steps])
    counted: list[Ints] = []
    for first, end in _waves(len(ways)):
        if not seen.ask(ways[first:end], asker):
            return _walked(counted, fresh, aim, is_broke=True)
        counted += [seen.counts(one) for one in ways[first:end]]
        if (found := _walked(counted, fresh, aim)).n_certified < len(counted):
            return found
    return _walked(counted, fresh, aim)


def _walked(counted: list[Ints], fresh: Fresh, aim: Aim, *, is_broke: bool = False) -> Walked:
    different, worse, better = (
        np.array(counted, dtype=np.int64).reshape(len(counted), 3, len(aim.allowed)).swapaxes(0, 1)
    )
    if aim.net:
        n_certified = next(
            (k for k in range(len(worse)) if not _holds_net(worse[k], better[k], fresh, aim)), len(worse)
        )
    else:
        audit = Audit(population=fresh.population, n=len(fresh.items), different=different, kept=aim.kept)
        n_certified = certified(audit, aim.allowed, aim.delta)
    tried = slice(0, n_certified + 1)
    return Walked(
        different=different[tried],
        worse=worse[tried],
        better=better[tried],
        n_certified=n_certified,
        is_broke=is_broke,
    )


def _holds_net(worse: Ints, better: Ints, fresh: Fresh, aim: Aim) -> bool:
    """Whether no classifier's labels change more than is allowed beyond what the reference changes by itself."""
    return all(
        net_p_value(int(w), int(b), len(fresh.items), float(most) / fresh.population) <= aim.delta
        for w, b, most in zip(worse, better, aim.allowed, strict=True)
    )


def net_p_value(worse: int, better: int, n: int, most: float) -> float:
    """Give the p-value of "more than this share of the population changes beyond the reference's own changes"."""
    if most >= 1:
        return 0.0
    return excess_p_value(Excess(n_worse=worse, n_same=n - worse - better, n_better=better), most)


def _waves(n: int) -> Iterator[tuple[int, int]]:
    """The plans whose ways are asked together: the reference alone, then from one solved plan to the next."""
    ends = [0, *range(1, n, FINER), n]
    yield from ((a, b) for a, b in pairwise(ends) if a < b)


@dataclass(slots=True)
class _Seen:
    """What was asked of V so far, by way."""

    table: Table
    fresh: Fresh
    likely: Ints
    asked: dict[int, Bools] = field(default_factory=dict)
    differs: dict[int, Bools] = field(default_factory=dict)

    def ask(self, ways: Ints, asker: Asker) -> bool:
        """Ask what these plans (plans, items) need and was not asked yet; False where the money ends."""
        n = len(self.fresh.items)
        for way in np.unique(ways).tolist():
            if way not in self.asked:
                self.asked[way] = np.full(n, way == self.table.reference)
                flips = self.fresh.flips if way == self.table.reference else None
                self.differs[way] = np.zeros((n, self.table.hard.shape[1]), dtype=bool) if flips is None else flips
            at = np.flatnonzero((ways == way).any(0) & ~self.asked[way])
            if not len(at):
                continue
            found = asker.verify(way, at, self.likely)
            if found is None:
                return False
            self.differs[way][at], self.asked[way][at] = found, True
        return True

    def counts(self, ways: Ints) -> Ints:
        """Labels that a plan gets wrong; of them those that the reference keeps; and those that it alone changes."""
        wrong, again = self._wrong(ways), self.fresh.again
        if again is None:
            return np.stack([wrong.sum(0), wrong.sum(0), np.zeros(wrong.shape[1], dtype=np.int64)])
        # Whoever the plan leaves to the reference has its label, and no excess.
        asked = (ways != self.table.reference)[:, None]
        return np.stack([wrong.sum(0), (wrong & ~again & asked).sum(0), (~wrong & again & asked).sum(0)])

    def _wrong(self, ways: Ints) -> Bools:
        """Which labels a plan gets wrong, (items, classifiers); `ways` of the items."""
        wrong = np.zeros((len(ways), self.table.hard.shape[1]), dtype=bool)
        for way in np.unique(ways).tolist():
            wrong |= (ways == way)[:, None] & self.differs[way]
        return wrong
