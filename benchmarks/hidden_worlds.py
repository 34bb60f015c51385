"""The planner's own code played against worlds whose losses it can't see: the adapter between the two.

A world (`shared/worlds.py`, beside the project and never part of it) is asked and pays; strata, columns and samples are
what `plan` makes of a job. Every question is charged. What calibration asked of the reference, and of packs that the
plan would ask anyway, is used as output and so charged once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from semtel_batch.planner.loss import Levers, LossModel, Observed, fit
from semtel_batch.planner.mix import Columns, Limit, Problem, loss_limits, solve, trim
from semtel_batch.planner.path import Audit, Path, certified, lay, population, serve
from semtel_batch.planner.pilot import (
    audit_size,
    auditing_usd,
    explore_items,
    explore_share,
    explore_size,
    first_arms,
    used_arms,
)

CHANNELS = ("batch", "realtime")
CAPS = {"batch": 0.7, "realtime": 0.6}  # of the reference's tokens: the rate caps
N_LENGTHS, N_RISKS, N_SAMPLED = 5, 14, 48
ROUNDS = 3  # of trying ways: the first, and twice what the plans then lean on

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Result:
    """One planner on one world: cost over realtime, one by one, and the worst classifier's true disagreement."""

    cost: float
    loss: float


@dataclass(frozen=True)
class Played:
    """What was played on one world, and what the certified planner spent on samples (share of the same cost)."""

    results: dict[str, Result]
    explore: float
    audit: float
    n_explored: int
    n_audited: int


class Table:
    """A world as strata (length by how hard it looks) and arms: what a job's drafts are to `plan`."""

    def __init__(self, worlds: Any, world: Any, rng: np.random.Generator):
        self.worlds, self.world, self.arms = worlds, world, worlds.ARMS
        self.reference = self.arms.index(worlds.REFERENCE)
        self.levers = [_levers(worlds, arm) for arm in self.arms]
        self.classifiers = world.confidence.shape[1]
        logit = -np.log(world.confidence / (1 - world.confidence))
        self.hard = (logit - logit.mean(0)) / logit.std(0)
        self.log_length = np.log(world.lengths)
        self.of = _strata(self.hard, self.log_length)
        self.sizes = np.bincount(self.of).astype(float)
        # Losses are predicted on some conversations of each stratum, not at its centre: the logistic is curved.
        order = rng.permutation(world.n)
        order = order[np.argsort(self.of[order], kind="stable")]
        rank = np.arange(world.n) - np.concatenate([[0], np.cumsum(self.sizes)])[self.of[order]]
        self.sampled = order[rank < N_SAMPLED]
        self.usd = {c: np.stack([self._mean(world.price(a, c)) for a in self.arms], 1) for c in CHANNELS}
        self.tokens = np.stack([self._mean(world.tokens(a)) for a in self.arms], 1)

    def _mean(self, values: Floats) -> Floats:
        return np.bincount(self.of, weights=values) / self.sizes

    @property
    def reference_usd(self) -> float:
        return float(self.sizes @ self.usd["batch"][:, self.reference]) / self.world.n

    def arm_usd(self) -> Floats:
        return np.asarray(self.sizes @ self.usd["batch"]) / self.world.n

    def predicted(self, model: LossModel) -> Floats:
        """Expected disagreement (strata, arms, classifiers)."""
        at, of = self.sampled, self.of[self.sampled]
        n = np.bincount(of)
        found = [model.share(lever, self.hard[at], self.log_length[at]) for lever in self.levers]
        return np.stack([np.stack([np.bincount(of, weights=q) / n for q in one.T], 1) for one in found], 1)

    def true_loss(self) -> Floats:
        """What no planner sees: for the bound that regret is measured against."""
        everyone = np.arange(self.world.n)
        found = [self.world._residual(arm, self.world._miss(arm, everyone)) for arm in self.arms]
        return np.stack([np.stack([self._mean(q) for q in one.T], 1) for one in found], 1)

    def problem(self, loss: Floats) -> Problem:
        n_strata, n_arms = self.tokens.shape
        channel = np.repeat(np.arange(len(CHANNELS)), n_strata * n_arms)
        arm = np.tile(np.tile(np.arange(n_arms), n_strata), len(CHANNELS))
        nothing = np.zeros_like(arm)
        columns = Columns(
            stratum=np.tile(np.repeat(np.arange(n_strata), n_arms), len(CHANNELS)),
            partition=nothing,
            block=nothing,
            arm=channel * n_arms + arm,
            usd=np.concatenate([self.usd[c].ravel() for c in CHANNELS]),
            loss=np.tile(loss.reshape(n_strata * n_arms, -1), (len(CHANNELS), 1)),
        )
        total = float(self.sizes @ self.tokens[:, self.reference])
        used = np.tile(self.tokens.ravel(), len(CHANNELS))
        limits = tuple(
            Limit(name=f"tokens in {name}", at_most=CAPS[name] * total, weight=np.where(channel == i, used, 0.0))
            for i, name in enumerate(CHANNELS)
        )
        return trim(Problem(sizes=self.sizes, columns=columns, limits=limits))

    def arm_of(self, problem: Problem, column: Ints) -> Ints:
        return problem.columns.arm[column] % len(self.arms)

    def judged(self, code: Ints, spent: float) -> Result:
        """`code`: channel and arm of every conversation."""
        choice = np.empty(self.world.n, dtype=object)
        choice[:] = [self.arms[k] for k in code % len(self.arms)]
        channels = [CHANNELS[k] for k in code // len(self.arms)]
        cost, miss = self.world.judge(choice, channels, spent)
        return Result(float(cost), float(miss.max()))


def _levers(worlds: Any, arm: Any) -> Levers:
    if arm.model == "embed":
        return Levers(apart=True)
    return Levers(
        model=list(worlds.PRICE_PER_MTOK).index(arm.model),
        pack=arm.pack,
        keep_tokens=arm.truncate_to,
        combined=arm.combined,
        votes=arm.votes,
        exact=arm == worlds.REFERENCE,
    )


def _strata(hard: Floats, log_length: Floats) -> Ints:
    """Length by risk, in quantiles; finer where it is risky, since that is where ways of asking differ."""
    risk = np.exp(hard).sum(1)
    at = np.searchsorted(np.sort(np.quantile(risk, 1 - 0.72 ** np.arange(1, N_RISKS))), risk)
    cuts = np.quantile(log_length, np.linspace(0, 1, N_LENGTHS + 1)[1:-1])
    return np.unique(at * N_LENGTHS + np.searchsorted(cuts, log_length), return_inverse=True)[1]


@dataclass
class Pilot:
    """The questions asked before deciding, and what they cost."""

    table: Table
    rng: np.random.Generator
    usd: float = 0.0
    tried: dict[int, Observed] = field(default_factory=dict)

    def explore(self, items: Ints, allowed: Floats) -> tuple[Problem, Path]:
        """Try ways on E, fit, and try what the plans lean on, until they lean on nothing untried."""
        t = self.table
        usd = t.arm_usd()
        wanted = first_arms(t.levers, usd)
        for _ in range(ROUNDS):
            for arm in wanted:
                n = round(len(items) * explore_share(usd[arm], t.reference_usd))
                some = self.rng.permutation(items)[:n]
                differs, cost = t.world.ask(t.arms[arm], some, "batch")
                self.usd += cost
                seen = Observed(levers=t.levers[arm], hard=t.hard[some], log_length=t.log_length[some], differs=differs)
                self.tried[arm] = seen
            problem = t.problem(t.predicted(self._fit()))
            # A rough path tells which ways matter.
            wanted = used_arms(
                lay(problem, allowed, scales=(0.3, 0.7, 1.0, 1.6), finer=1), t.levers * 2, set(self.tried)
            )
            if not wanted:
                break
        problem = t.problem(t.predicted(self._fit()))
        return problem, lay(problem, allowed)

    def _fit(self) -> LossModel:
        return fit(
            list(self.tried.values()),
            self.table.worlds.PACKS,
            len(self.table.worlds.PRICE_PER_MTOK),
            self.table.classifiers,
        )

    def audit(
        self, arms: Ints, items: Ints, likely: Ints, free: npt.NDArray[np.bool_]
    ) -> tuple[Ints, Any, dict[int, Ints]]:
        """Give how many of V each plan gets wrong, reference labels' own flips, and the neighbours asked by arm.

        `arms`: (plans, items). Each audited item stands in a prompt with none but ordinary neighbours: those that the
        plan will `likely` ask in that very way, as long as there are any `free`.
        """
        t = self.table
        flips, _ = t.world.ask(t.worlds.REFERENCE, items, "batch")  # paid as these items' output
        wrong = np.zeros((*arms.shape, t.classifiers), dtype=bool)
        neighbours: dict[int, Ints] = {}
        for arm in np.unique(arms).tolist():
            at = np.flatnonzero((arms == arm).any(0))
            differs = flips[at] if arm == t.reference else self._one_a_prompt(arm, items[at], likely, free, neighbours)
            full = np.zeros((len(items), t.classifiers), dtype=bool)
            full[at] = differs
            wrong |= (arms == arm)[:, :, None] & full
        return wrong.sum(1), flips, neighbours

    def _one_a_prompt(
        self, arm: int, items: Ints, likely: Ints, free: npt.NDArray[np.bool_], asked: dict[int, Ints]
    ) -> Any:
        t = self.table
        beside = t.arms[arm].pack - 1
        alike = self.rng.permutation(np.flatnonzero(free & (likely == arm)))
        others = self.rng.permutation(np.flatnonzero(free & (likely != arm)))
        fill = np.resize(np.concatenate([alike, others]), len(items) * beside)
        asked[arm] = np.intersect1d(fill, alike)
        prompts = np.column_stack([items, fill.reshape(len(items), beside)]) if beside else items[:, None]
        differs, cost = t.world.ask(t.arms[arm], prompts.ravel(), "batch")
        self.usd += cost
        return differs.reshape(*prompts.shape, t.classifiers)[:, 0]


def play(worlds: Any, world: Any, epsilon: float, delta: float, seed: int) -> Played:
    """Play one world: the certified planner, and beside it what one would do without."""
    rng = np.random.default_rng([seed, 7])
    t = Table(worlds, world, rng)
    u = rng.random(world.n)
    allowed = np.full(t.classifiers, epsilon * world.n)
    pilot = Pilot(t, rng)
    e = explore_items(t.hard.mean(1), explore_size(world.n, epsilon, delta), rng)
    flipped, _ = world.ask(worlds.REFERENCE, e, "batch")  # paid as these items' output
    problem, path = pilot.explore(e, allowed)
    explore_usd = pilot.usd
    result, n_v = _certify(pilot, problem, path, _Drawn(e, flipped, u, allowed, delta))
    total = world.price(worlds.REFERENCE, "realtime").sum()
    paid_reference = t.reference_usd / total
    results = {"certified": result, **_without(t, problem, u, allowed, pilot.usd), **_naive(worlds, t)}
    return Played(
        results=results,
        explore=explore_usd / total + len(e) * paid_reference,
        audit=(pilot.usd - explore_usd) / total + n_v * paid_reference,
        n_explored=len(e),
        n_audited=n_v,
    )


@dataclass(frozen=True)
class _Drawn:
    """What was drawn and fixed before the audit."""

    e: Ints
    flipped: Any  # reference against itself on E
    u: Floats
    allowed: Floats
    delta: float


def _certify(pilot: Pilot, problem: Problem, path: Path, drawn: _Drawn) -> tuple[Result, int]:
    t, n = pilot.table, pilot.table.world.n
    exact = not drawn.flipped.any()
    # What E's own labels got wrong is known, and taken off what is allowed.
    allowed = drawn.allowed - drawn.flipped.sum(0)
    unseen = np.ones(n, dtype=bool)
    unseen[drawn.e] = False
    is_exact = (t.arm_of(problem, np.arange(len(problem.columns))) == t.reference) & exact
    pool = np.flatnonzero(population(path, is_exact, t.of, drawn.u) & unseen)
    pack = np.array([lever.pack for lever in t.levers])[t.arm_of(problem, np.arange(len(problem.columns)))]
    # Half of what the neighbours cost comes back: the plan asks them in that way anyway.
    item_usd = t.reference_usd + auditing_usd(path, (1 + pack) / 2)
    n_v = min(audit_size(path, allowed, drawn.delta, item_usd, len(drawn.e)), len(pool))
    v = pilot.rng.choice(pool, n_v, replace=False)
    unseen[v] = False
    arms = np.stack([t.arm_of(problem, serve(problem, x, t.of[v], drawn.u[v])) for x in path.steps])
    # The plan that will most likely be certified: its packs' neighbours are asked in the way they will be anyway.
    middle = int(np.argmin(np.abs(path.loss.max(1) - 0.75 * allowed.min())))
    likely = t.arm_of(problem, serve(problem, path.steps[middle], t.of, drawn.u))
    counts, _, neighbours = pilot.audit(arms, v, likely, unseen)
    audit = Audit(population=len(pool), n=n_v, different=counts, kept=exact)
    last = max(certified(audit, allowed, drawn.delta) - 1, 0)
    column = serve(problem, path.steps[last], t.of, drawn.u)
    code = problem.columns.arm[column]
    code[drawn.e] = code[v] = t.reference
    # Neighbours that the plan asks in the way they were asked have their labels: paid once.
    again = sum(float(t.world.price(t.arms[arm], "batch")[at[code[at] == arm]].sum()) for arm, at in neighbours.items())
    return t.judged(code, pilot.usd - again), n_v


def _without(t: Table, problem: Problem, u: Floats, allowed: Floats, spent: float) -> dict[str, Result]:
    """The same program on point estimates, and on the true losses."""
    results = {}
    for name, one, usd in (("uncertified", problem, spent), ("known losses", t.problem(t.true_loss()), 0.0)):
        names = [f"loss {c}" for c in range(t.classifiers)]
        mix = solve(one.with_limits([*one.limits, *loss_limits(one.columns, allowed, names)]))
        if mix is not None:
            results[name] = t.judged(one.columns.arm[serve(one, mix.x, t.of, u)], usd)
    return results


def _naive(worlds: Any, t: Table) -> dict[str, Result]:
    n = t.world.n
    pack = t.arms.index(worlds.Arm(pack=10))
    return {"batch only": t.judged(np.full(n, t.reference), 0.0), "pack 10 + batch": t.judged(np.full(n, pack), 0.0)}
