"""A pilot over mixes: a path of them laid on what was compared, and walked with fresh conversations, plan by plan.

The path is written down before a fresh conversation is asked. What is asked then follows from it and from the answers,
turn by turn, so that a pilot that was broken off is taken up where it stood by the same command.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from semtel_batch.clock import SystemClock
from semtel_batch.commands.arms import audited
from semtel_batch.commands.pilot_plans import Asked, Trials
from semtel_batch.crashpoints import reach
from semtel_batch.engines.local import Surveyed, survey
from semtel_batch.measurements import Arm, MixPath, Pilot, Role
from semtel_batch.planner import walk
from semtel_batch.planner.bench import Bench, Key, Way, bench, ways_of
from semtel_batch.planner.job import Job
from semtel_batch.planner.loss import Observed
from semtel_batch.planner.mix import Ints
from semtel_batch.planner.promise import target_of
from semtel_batch.plans import Plan, Sample
from semtel_batch.records import Strategy, Tier
from semtel_batch.studies import pathing
from semtel_batch.studies.calibrate import MOST_EXPLORED, n_audited, split
from semtel_batch.studies.labelling import labelled

Bools = walk.Bools

_PLANNED = 0.9  # of a budget: prices of another sample are nearly, not quite, the same
_SECOND = 0  # the turn in which the reference is asked again
_LABEL_KEEPING = ("naive", "batch")
_LEAST_USED = 0.02  # of the job, in any plan of a path; rarer ways cost more to audit than they save
_FOR_EXPLORING = 0.2  # of what is left: at most for trying ways that plans lean on untried


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What a path is walked on."""

    path: MixPath
    bench: Bench
    surveyed: Surveyed
    fresh: Ints  # the conversations V, as places in the job
    beside: Bools  # who may stand beside them
    behind: Ints  # everybody's place in the random order, begun behind what filled up the packs of E


class NotWorth(str):
    """Why a certificate would cost more than it saves, whatever is tried."""


def walked(trials: Trials, pilot: Pilot) -> Pilot | str:
    """Lay a path of mixes and walk it; why, where there is none."""
    settings, seed = trials.session.settings, trials.calibration.seed
    # Whatever is compared, the reference is there to be mixed with.
    recipes = tuple(dict.fromkeys((*trials.wish.recipes, *_LABEL_KEEPING))) if trials.wish.recipes else ()
    with survey(settings, replace(trials.wish, recipes=recipes), seed, SystemClock()) as surveyed:
        begun = trials.calibration.pilot
        path = begun.mixes if begun is not None else None
        if path is None:
            found = _laid(trials, pilot, surveyed)
            if isinstance(found, str):
                return found
            path = found
            trials.calibration = replace(trials.calibration, pilot=replace(pilot, mixes=path))
            trials.store.put_calibration(trials.calibration)
            reach("pilot.path-laid")
        ground = _ground(trials, path, surveyed)
    return replace(pilot, stopped=ground) if isinstance(ground, str) else _walked(trials, pilot, ground)


# ── laying ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _laid(trials: Trials, pilot: Pilot, surveyed: Surveyed) -> MixPath | str:
    """Lay the path by what was compared, and fix how many fresh conversations it is worth; or say why there is none."""
    job = surveyed.job
    compared = _Compared(trials, job)
    ways = [way for way in ways_of(job, compared.keys) if _can_be_asked(way, trials.calibration.tier)]
    if len(ways) < 2:
        return "no measured way can be mixed"
    ground = bench(job, ways)
    tried = compared.tried(ground)
    if not tried:
        return "no way that can be mixed was compared"
    target = target_of(pilot)
    allowed = pathing.allowed_of(target, len(job.lengths), len(job.classifiers))
    asker = _Asker(trials=trials, bench=ground, job=job)
    laid = walk.explore(ground.table, asker, allowed, tried)
    laid = walk.explore(_without_crumbs(ground.table, laid), walk.Nobody(), allowed, {**tried, **asker.explored})
    unseen = surveyed.first >= trials.calibration.n_explore
    population = len(walk.concerned(ground.table, laid.steps, unseen, kept=True))
    path = MixPath(
        seed=trials.calibration.seed,
        data_hash=surveyed.data_hash,
        n_distinct=len(job.lengths),
        versions=tuple(c.version for c in job.classifiers),
        edges=ground.edges,
        ways=(),
        steps=(),
        population=population,
        n=0,
        is_net=trials.calibration.is_net,
    )
    aim = pathing.aim_of(path, target)
    n, problem = _size(trials, ground, laid, aim, population)
    return problem or replace(pathing.written(ground, laid, path, {**tried, **asker.explored}), n=n)


def _size(trials: Trials, ground: Bench, laid: walk.Laid, aim: walk.Aim, population: int) -> tuple[int, str]:
    """How many fresh conversations: as many as make the whole cheapest, within the budget; or why none."""
    table = ground.table
    n = len(table.stratum)
    wanted = walk.size(table, laid, aim, n - population)
    least = walk.least(population, aim)
    if laid.path.usd[0] <= laid.path.usd.min():
        return 0, "no mix is cheaper than the reference in its cheapest tier"
    saved = float(laid.path.usd[0] - walk.likely_usd(laid, aim.allowed))
    if aim.net and wanted and least is not None:  # the size is by the plain test, and net of noise more are needed
        wanted = max(wanted, least) if least * walk.item_usd(table, laid) < saved else 0
    if not wanted or least is None:
        return 0, NotWorth(
            f"no mix saves more than its certificate costs: one that may hold would save ${saved:.4f} on "
            f"{n:,} conversations, and {_takes(least, population)}, at ${walk.item_usd(table, laid):.6f} each"
        )
    pack = max(table.levers[way].pack for one in laid.steps for way in np.unique(one.arm % len(table.levers)).tolist())
    # What a conversation costs in the tier that is asked, by what it costs in the cheapest one.
    dearer = float(trials.reference_usd_per_1000) / 1000 / float(table.arm_usd[table.reference])
    usd = walk.item_usd(table, laid, back=0.0) * dearer
    left = max(0.0, float(trials.left_usd()))
    bearable = int(_PLANNED * left / usd) if usd else wanted
    most = min(population // pack, bearable)
    if most < least:
        more = "" if bearable >= least else f"; it would have to be ${least * usd / _PLANNED - left:.4f} more"
        return 0, (
            f"no certificate is possible: it takes {least:,} fresh conversations, one a request, even if no label "
            f"differs; there are enough for {population // pack:,}, and --budget bears {bearable:,}{more}"
        )
    return min(wanted, most), ""


def _takes(least: int | None, population: int) -> str:
    """How many fresh conversations a certificate takes at the least, of those that there are."""
    if least is None:
        return f"all {population:,} fresh ones that a mix might change are too few for one"
    return f"it takes {least:,} fresh ones or more"


def _without_crumbs(table: walk.Table, laid: walk.Laid) -> walk.Table:
    """The table without ways that no plan of the path asks more than a few conversations in."""
    shares = np.zeros(len(table.levers))
    for one in laid.steps:
        weight = table.sizes[one.stratum] * (one.high - one.low) / len(table.stratum)
        shares = np.maximum(shares, np.bincount(one.arm % len(table.levers), weights=weight, minlength=len(shares)))
    dropped = shares < _LEAST_USED
    dropped[table.reference] = False
    return replace(table, usd=np.where(dropped, np.nan, table.usd))


def _can_be_asked(way: Way, tier: Tier) -> bool:
    return way.strategy.tier is Tier.DECISIONS or tier in way.endpoint.tiers


@dataclass(frozen=True, slots=True)
class _Compared:
    """The ways that E was asked in, held against the reference."""

    trials: Trials
    job: Job

    @property
    def arms(self) -> dict[Key, tuple[Arm, Plan]]:
        found = {}
        for arm in self.trials.calibration.arms:
            if arm.role is Role.ARM:
                plan = self.trials.store.plan(arm.plan_id)
                found[Key.of(self.job, arm.strategy, plan.endpoint(arm.endpoint))] = (arm, plan)
        return found

    @property
    def keys(self) -> tuple[Key, ...]:
        return tuple(self.arms)

    def tried(self, ground: Bench) -> dict[int, Observed]:
        reference = self.trials.explored_reference()
        names = [c.name for c in self.job.classifiers]
        found = {}
        for key, (_, plan) in self.arms.items():
            way = ground.number(key)
            if way is not None:
                labels = audited(self.trials.store, plan, labelled(self.trials.store, plan))
                found[way] = pathing.observed(ground, way, pathing.compared(reference, labels, names))
        return found


# ── walking ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _ground(trials: Trials, path: MixPath, surveyed: Surveyed) -> _Ground | str:
    """Find the path's ways in the job as it is now, and the fresh conversations."""
    job = surveyed.job
    keys = [Key(way.strategy, way.model, way.groups) for way in path.ways]
    known = {way.key: way for way in ways_of(job, keys)}
    if surveyed.data_hash != path.data_hash or any(key not in known for key in keys):
        return "the data or the ways to ask it are no longer those that the path was laid for; calibrate again"
    found = bench(job, [known[key] for key in keys], path.edges)
    unseen = surveyed.first >= trials.calibration.n_explore
    pool = walk.concerned(found.table, pathing.read_back(path), unseen, kept=True)
    # The order begins behind what filled up the packs of E, so that fresh ones were, if it can be, in none of them.
    behind = (surveyed.place - trials.n_around) % max(1, int(surveyed.place.max()) + 1)
    fresh = pool[np.argsort(behind[pool], kind="stable")][: path.n]
    beside = unseen.copy()
    beside[fresh] = False
    return _Ground(path=path, bench=found, surveyed=surveyed, fresh=fresh, beside=beside, behind=behind)


def _walked(trials: Trials, pilot: Pilot, ground: _Ground) -> Pilot:
    naive = Strategy(recipe="naive", tier=trials.calibration.tier)
    places = ground.surveyed.place[ground.fresh]
    sample = sample_of(trials.calibration.seed, places)
    asked = Asked(role=Role.VERIFY_REFERENCE, strategy=naive, sample=sample)
    reference = trials.asked(asked)
    if reference is None:
        return replace(pilot, stopped="the reference's labels of fresh conversations may cost more than is left")
    labels = labelled(trials.store, reference)
    names = [c.name for c in ground.surveyed.job.classifiers]
    known = pathing.compared(labels, labels, names).ids
    is_known = ground.surveyed.ids.gather(ground.fresh).is_in(list(known)).to_numpy()
    items = ground.fresh[is_known]
    asker = _Asker(trials=trials, bench=ground.bench, job=ground.surveyed.job, ground=ground, items=items, truth=labels)
    again = None
    if ground.path.is_net:
        second = trials.asked(replace(asked, turn=_SECOND, fresh=True))
        if second is None:
            return replace(pilot, stopped="asking the reference a second time may cost more than is left")
        again = asker.differs(items, labelled(trials.store, second))
    fresh = walk.Fresh(items=items, population=ground.path.population, again=again)
    aim = pathing.aim_of(ground.path, target_of(pilot))
    found = walk.walk(ground.bench.table, pathing.read_back(ground.path), fresh, aim, asker)
    path = replace(
        pathing.judged(ground.path, found, len(items)),
        labelled_by=(trials.explored_plan().id, reference.id),
    )
    return replace(pilot, reference_plan_id=reference.id, mixes=path, stopped=_stopped(path, found))


def _stopped(path: MixPath, found: walk.Walked) -> str:
    n = len(path.steps)
    if found.n_certified == n:
        return ""
    if found.is_broke:
        return f"after step {found.n_certified} of {n}, the next may cost more than what is left of the budget"
    return f"step {found.n_certified + 1} of {n} did not hold; what comes after it on the path was not tried"


def sample_of(seed: int, places: Ints) -> Sample:
    """The conversations at these places of a random order."""
    runs: list[list[int]] = []
    for place in np.sort(places).tolist():
        if runs and runs[-1][1] == place:
            runs[-1][1] = place + 1
        else:
            runs.append([place, place + 1])
    return Sample(seed=seed, n=len(places), skip=runs[0][0], runs=tuple((a, b) for a, b in runs))


@dataclass(slots=True, kw_only=True)
class _Asker:
    """Asks through ordinary plans (`planner.walk.Asker`)."""

    trials: Trials
    bench: Bench
    job: Job
    ground: _Ground | None = None
    items: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    truth: pl.DataFrame = field(default_factory=pl.DataFrame)  # the reference's labels of them
    explored: dict[int, Observed] = field(default_factory=dict)
    n_turns: int = 0
    used: dict[int, Bools] = field(default_factory=dict)  # who stood beside the fresh, by way

    def explore(self, way: int, share: float) -> Observed | None:
        trials, one = self.trials, self.bench.ways[way]
        found = trials.calibration
        parts = replace(split(max(found.n_population, 4), MOST_EXPLORED), n_explore=round(share * found.n_explore))
        n, n_apart = n_audited(parts, one.strategy, found.n_population)
        if not n_apart:
            return None
        if one.usd / len(self.job.lengths) * n > float(trials.left_usd()) * _FOR_EXPLORING:
            return None
        asked = Asked(
            role=Role.ARM,
            strategy=self._strategy(way),
            sample=Sample(seed=found.seed, n=n),
            way=one,
            turn=0,
            ids=tuple(trials.explored_ids()),
            n_apart=n_apart,
        )
        plan = trials.asked(asked)
        if plan is None:
            return None
        labels = audited(trials.store, plan, labelled(trials.store, plan))
        names = [c.name for c in self.job.classifiers]
        seen = pathing.compared(trials.explored_reference(), labels, names)
        self.explored[way] = pathing.observed(self.bench, way, seen)
        return self.explored[way]

    def verify(self, way: int, at: Ints, likely: Ints) -> Bools | None:
        self.n_turns += 1
        assert self.ground is not None
        one, trials, surveyed = self.bench.ways[way], self.trials, self.ground.surveyed
        fillers = self._fillers(way, len(at), likely)
        places = surveyed.place[np.concatenate([self.items[at], fillers])]
        asked = surveyed.ids.gather(self.items[at]).to_list()
        plan = trials.asked(
            Asked(
                role=Role.VERIFY,
                strategy=self._strategy(way),
                sample=sample_of(trials.calibration.seed, places),
                way=one,
                turn=self.n_turns,
                ids=asked,
                # Who was answered in this way before would not stand beside, and packs be smaller than the plan's.
                fresh=one.strategy.conversations_per_request > 1,
            )
        )
        if plan is None:
            return None
        return self.differs(self.items[at], audited(trials.store, plan, labelled(trials.store, plan)))

    def differs(self, items: Ints, labels: pl.DataFrame) -> Bools:
        """Which of these conversations' labels differ from the reference's; what was not answered at all differs."""
        assert self.ground is not None
        names = [c.name for c in self.job.classifiers]
        seen = pathing.compared(self.truth, labels, names)
        row = {name: number for number, name in enumerate(seen.ids)}
        found = np.ones((len(items), len(names)), dtype=bool)
        for number, name in enumerate(self.ground.surveyed.ids.gather(items).to_list()):
            if name in row:
                found[number] = seen.differs[row[name]]
        return found

    def _strategy(self, way: int) -> Strategy:
        strategy = self.bench.ways[way].strategy
        return strategy if strategy.tier is Tier.DECISIONS else replace(strategy, tier=self.trials.calibration.tier)

    def _fillers(self, way: int, n: int, likely: Ints) -> Ints:
        """Ordinary conversations to stand beside: those that will be asked in this way anyway come first."""
        assert self.ground is not None
        used = self.used.setdefault(way, np.zeros(len(likely), dtype=bool))
        free = np.flatnonzero(self.ground.beside & ~used)
        order = np.lexsort((self.ground.behind[free], likely[free] != way))
        chosen = free[order][: n * (self.bench.table.levers[way].pack - 1)]
        used[chosen] = True
        return chosen
