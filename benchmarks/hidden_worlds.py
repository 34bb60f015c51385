"""The planner's own code played against worlds whose losses it can't see: the adapter between the two.

A world (`shared/worlds.py`, beside the project and never part of it) is asked and pays; what is asked, in which order,
and when to stop is `planner.walk`'s, as for a job of `calibrate`. Every question is charged. What calibration asked of
the reference, and of packs that the plan would ask anyway, is used as output and so charged once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from semtel_batch.planner.loss import Levers, Observed
from semtel_batch.planner.mix import Limit, Problem, loss_limits, solve
from semtel_batch.planner.path import step
from semtel_batch.planner.pilot import explore_items, explore_size
from semtel_batch.planner.walk import Aim, Fresh, Laid, Table, concerned, explore, size, some, walk

CHANNELS = ("batch", "realtime")
CAPS = {"batch": 0.7, "realtime": 0.6}  # of the reference's tokens: the rate caps
N_LENGTHS, N_RISKS = 5, 14

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


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


class Game:
    """A world as a table of ways by stratum (length by how hard it looks), and its judge."""

    def __init__(self, worlds: Any, world: Any, rng: np.random.Generator):
        self.worlds, self.world, self.arms = worlds, world, worlds.ARMS
        logit = -np.log(world.confidence / (1 - world.confidence))
        hard = (logit - logit.mean(0)) / logit.std(0)
        log_length = np.log(world.lengths)
        self.of = _strata(hard, log_length)
        self.sizes = np.bincount(self.of).astype(float)
        usd = np.stack([np.stack([self._mean(world.price(a, c)) for a in self.arms], 1) for c in CHANNELS])
        tokens = np.stack([self._mean(world.tokens(a)) for a in self.arms], 1)
        self.table = Table(
            levers=tuple(_levers(worlds, arm) for arm in self.arms),
            stratum=self.of,
            uniform=rng.random(world.n),
            hard=hard,
            log_length=log_length,
            usd=usd,
            limits=_caps(tokens, self.sizes, self.arms.index(worlds.REFERENCE)),
            sampled=some(self.of, rng),
        )

    def _mean(self, values: Floats) -> Floats:
        return np.bincount(self.of, weights=values) / self.sizes

    def true_loss(self) -> Floats:
        """What no planner sees: for the bound that regret is measured against."""
        everyone = np.arange(self.world.n)
        found = [self.world._residual(arm, self.world._miss(arm, everyone)) for arm in self.arms]
        return np.stack([np.stack([self._mean(q) for q in one.T], 1) for one in found], 1)

    def judged(self, code: Ints, spent: float) -> Result:
        """`code`: channel and way of every conversation."""
        choice = np.empty(self.world.n, dtype=object)
        choice[:] = [self.arms[k] for k in code % len(self.arms)]
        channels = [CHANNELS[k] for k in code // len(self.arms)]
        cost, miss = self.world.judge(choice, channels, spent)
        return Result(float(cost), float(miss.max()))


def _caps(tokens: Floats, sizes: Floats, reference: int) -> tuple[Limit, ...]:
    """The rate caps, over (channels, strata, ways)."""
    total = float(sizes @ tokens[:, reference])
    found = []
    for number, name in enumerate(CHANNELS):
        used = np.zeros((len(CHANNELS), *tokens.shape))
        used[number] = tokens
        found.append(Limit(name=f"tokens in {name}", at_most=CAPS[name] * total, weight=used.ravel()))
    return tuple(found)


def _levers(worlds: Any, arm: Any) -> Levers:
    if arm.model == "embed":
        return Levers(apart=1)
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
class Charged:
    """Answers a world's questions, and keeps count of what they cost (`planner.walk.Asker`)."""

    game: Game
    rng: np.random.Generator
    e: Ints
    v: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    free: Bools | None = None  # who may stand beside an audited conversation
    usd: float = 0.0
    neighbours: dict[int, Ints] = field(default_factory=dict)  # that the plan asks in that way anyway

    def explore(self, way: int, share: float) -> Observed:
        t = self.game.table
        at = self.rng.permutation(self.e)[: round(len(self.e) * share)]
        differs, usd = self.game.world.ask(self.game.arms[way], at, "batch")
        self.usd += usd
        return Observed(levers=t.levers[way], hard=t.hard[at], log_length=t.log_length[at], differs=differs)

    def verify(self, way: int, at: Ints, likely: Ints) -> Bools:
        """Each in a prompt with none but ordinary neighbours: those likely to be asked in that very way come first."""
        arm, free = self.game.arms[way], self.free
        beside = arm.pack - 1
        alike = self.rng.permutation(np.flatnonzero(free & (likely == way)))
        others = self.rng.permutation(np.flatnonzero(free & (likely != way)))
        fill = np.resize(np.concatenate([alike, others]), len(at) * beside)
        self.neighbours[way] = np.union1d(self.neighbours.get(way, fill[:0]), np.intersect1d(fill, alike))
        prompts = np.column_stack([self.v[at], fill.reshape(len(at), beside)])
        differs, usd = self.game.world.ask(arm, prompts.ravel(), "batch")
        self.usd += usd
        return np.asarray(differs.reshape(*prompts.shape, -1)[:, 0])


def play(worlds: Any, world: Any, epsilon: float, delta: float, seed: int) -> Played:
    """Play one world: the certified planner, and beside it what one would do without."""
    rng = np.random.default_rng([seed, 7])
    game = Game(worlds, world, rng)
    table = game.table
    allowed = np.full(table.hard.shape[1], epsilon * world.n)
    asker = Charged(game, rng, explore_items(table.hard.mean(1), explore_size(world.n, epsilon, delta), rng))
    flipped, _ = world.ask(worlds.REFERENCE, asker.e, "batch")  # paid as these items' output
    laid = explore(table, asker, allowed)
    explore_usd = asker.usd
    # What E's own labels got wrong is known, and taken off what is allowed.
    aim = Aim(allowed=allowed - flipped.sum(0), delta=delta, kept=not flipped.any())
    certified, n_v = _certified(asker, laid, aim)
    total = world.price(worlds.REFERENCE, "realtime").sum()
    paid_reference = table.arm_usd[table.reference] / total
    return Played(
        results={"certified": certified, **_without(game, laid.problem, allowed, asker.usd), **_naive(worlds, game)},
        explore=explore_usd / total + len(asker.e) * paid_reference,
        audit=(asker.usd - explore_usd) / total + n_v * paid_reference,
        n_explored=len(asker.e),
        n_audited=n_v,
    )


def _certified(asker: Charged, laid: Laid, aim: Aim) -> tuple[Result, int]:
    game, table, world = asker.game, asker.game.table, asker.game.world
    unseen = np.ones(world.n, dtype=bool)
    unseen[asker.e] = False
    pool = concerned(table, laid.steps, unseen, kept=aim.kept)
    n_v = min(size(table, laid, aim, len(asker.e)), len(pool))
    asker.v = asker.rng.choice(pool, n_v, replace=False)
    unseen[asker.v] = False
    asker.free = unseen
    flips, _ = world.ask(game.worlds.REFERENCE, asker.v, "batch")  # paid as these items' output
    walked = walk(table, laid.steps, Fresh(items=asker.v, population=len(pool), flips=flips), aim, asker)
    code = table.arms(laid.steps[max(walked.n_certified - 1, 0)])
    code[asker.e] = code[asker.v] = table.reference
    # Neighbours that the plan asks in the way they were asked have their labels: paid once.
    paid = asker.neighbours.items()
    again = sum(float(world.price(game.arms[way], "batch")[at[code[at] == way]].sum()) for way, at in paid)
    return game.judged(code, asker.usd - again), n_v


def _without(game: Game, problem: Problem, allowed: Floats, spent: float) -> dict[str, Result]:
    """The same program on point estimates, and on the true losses."""
    results = {}
    for name, one, usd in (("uncertified", problem, spent), ("known losses", _known(game), 0.0)):
        names = [f"loss {c}" for c in range(len(allowed))]
        mix = solve(one.with_limits([*one.limits, *loss_limits(one.columns, allowed, names)]))
        if mix is not None:
            results[name] = game.judged(game.table.arms(step(one, mix.x)), usd)
    return results


def _known(game: Game) -> Problem:
    return game.table.problem(game.true_loss())


def _naive(worlds: Any, game: Game) -> dict[str, Result]:
    n = game.world.n
    pack = game.arms.index(worlds.Arm(pack=10))
    alone = game.arms.index(worlds.REFERENCE)
    return {"batch only": game.judged(np.full(n, alone), 0.0), "pack 10 + batch": game.judged(np.full(n, pack), 0.0)}
