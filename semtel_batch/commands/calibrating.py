"""`calibrate`: a sample spent on measuring strategies, through ordinary plans, within a budget."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import polars as pl

from semtel_batch import config, strategies
from semtel_batch.clock import SystemClock
from semtel_batch.commands import piloting
from semtel_batch.commands.arms import audited, drop_arms, make_arm, run_arms, set_apart
from semtel_batch.commands.pilot_plans import explored
from semtel_batch.commands.session import open_session
from semtel_batch.config import Settings
from semtel_batch.conversations import load_index
from semtel_batch.engines.local import Wish
from semtel_batch.errors import BadConfig, BadStrategy, Incomplete, Infeasible, PriceUnknown
from semtel_batch.measurements import Arm, Calibration, Kind, Measurement, Role
from semtel_batch.planner.cascade import resolved
from semtel_batch.planner.job import grouped_for
from semtel_batch.plans import ESCALATE, Objective, Plan, Sample
from semtel_batch.prices import price_of
from semtel_batch.quality.certificate import Target
from semtel_batch.quality.doubt import SECOND_PASS
from semtel_batch.records import Doubt, Endpoint, Stage, Strategy, Tier
from semtel_batch.results import latest, read_labels
from semtel_batch.session import Session
from semtel_batch.store import Store, plan_folder
from semtel_batch.strategies import bare, levers_of
from semtel_batch.studies import calibrate as study
from semtel_batch.studies.labelling import labelled
from semtel_batch.studies.threshold import TARGET, Threshold, as_it_ran, threshold
from semtel_batch.wishes import columns_of

_MARGIN = 0.9  # what a sample costs is nearly, not quite, in proportion to its size


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a user asks `calibrate` for."""

    wish: Wish
    budget_usd: Decimal
    tier: Tier
    n: int | None
    seed: int
    min_agreement: float | None = None  # to be certified; None: nothing is
    is_net: bool = False  # beyond what the reference changes by itself

    @property
    def explore_usd(self) -> Decimal:
        """What comparing may cost; where something is to be certified, the other half is for that."""
        return self.budget_usd if self.min_agreement is None else self.budget_usd / 2


def calibrate(options: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    session = open_session(options)
    wanted = _asked(session.settings, asked)
    found = _unfinished(session, wanted)
    if found is None:
        found = _begin(session, wanted)
        if not asked["yes"] and not session.console.confirm(_question(found)):
            drop_arms(session, found.arms)
            raise Incomplete("Nothing was spent.")
        with session.store() as store:
            store.put_calibration(found)
    else:
        session.console.say(f"going on with calibration {found.id} of {found.created_at:%Y-%m-%d %H:%M}")
    with session.store() as store:
        run_arms(session, store, explored(found))
        ended = replace(found, ended_at=found.ended_at or SystemClock().now())
        findings, measured = _found(store, ended)
        store.set_evidence(ended.id, measured)
        if found.min_agreement is not None:
            ended = replace(
                piloting.certified(session, store, wanted.wish, found, findings), ended_at=SystemClock().now()
            )
        store.put_calibration(ended)
        findings = replace(findings, calibration=ended, spent_usd=_spent(store, ended))
    session.console.show_calibration(findings)


def _question(made: Calibration) -> str:
    arms = f"{len(made.arms)} plans over {made.n_explore} conversations"
    if made.min_agreement is None:
        return f"Spend at most ${made.usd_high:.4f} on {arms}?"
    return f"Spend at most ${made.usd_high:.4f} on {arms}, and on certifying what is left of ${made.budget_usd}?"


def _asked(settings: Settings, asked: Mapping[str, Any]) -> Asked:
    if not settings.endpoints:
        raise BadConfig("No endpoint is configured; add an [[endpoint]] to semtel.toml, or set OPENAI_API_KEY.")
    wish = Wish(
        source=asked["data"],
        classifiers=tuple(asked["classifiers"]) or settings.defaults.classifiers,
        objective=Objective(),
        recipes=tuple(asked["recipes"]),
        columns=columns_of(settings.columns, asked["columns"]),
    )
    tier = Tier(asked["tier"])
    if tier not in settings.endpoints[0].tiers:
        raise BadConfig(f"Endpoint {settings.endpoints[0].name!r} doesn't offer {tier}; choose another --tier.")
    seed = secrets.randbelow(2**31) if asked["seed"] is None else asked["seed"]
    return Asked(
        wish=wish,
        budget_usd=config.parse_usd(asked["budget"]),
        tier=tier,
        n=asked["n"],
        seed=seed,
        min_agreement=asked["min_agreement"],
        is_net=asked["net"],
    )


def _unfinished(session: Session, asked: Asked) -> Calibration | None:
    """A calibration of the same data and classifiers that was broken off."""
    with closing(Store(session.project)) as store:
        return next(
            (
                one
                for one in store.calibrations()
                if one.ended_at is None
                and (one.source, one.asked, one.min_agreement, one.is_net)
                == (asked.wish.source, asked.wish.classifiers, asked.min_agreement, asked.is_net)
            ),
            None,
        )


# -- planning ------------------------------------------------------------------------------------------------------


def _begin(session: Session, asked: Asked) -> Calibration:
    """Plan every arm on as many conversations as the budget bears."""
    small = _planned(session, asked, study.FEWEST)
    high = _usd_high(small)
    n_population = small[0][1].data.n_population or small[0][1].data.n_conversations
    drop_arms(session, [arm for arm, _ in small])
    wanted = _wanted(session, asked, small, n_population)
    if high > asked.explore_usd:
        half = "" if asked.min_agreement is None else ", of which half is for certifying"
        raise Infeasible(
            f"{study.FEWEST} conversations by {len(small)} plans may cost ${high:.4f}, more than the budget of "
            f"${asked.budget_usd}{half}: raise it to that, or name fewer recipes with --strategy."
        )
    n = min(wanted, int(_MARGIN * study.FEWEST * float(asked.explore_usd / high))) if high else wanted
    n = max(n, min(wanted, study.FEWEST))
    while True:
        made = _planned(session, asked, n)
        high = _usd_high(made)
        if high <= asked.explore_usd or n <= study.FEWEST:
            break
        drop_arms(session, [arm for arm, _ in made])
        n = max(study.FEWEST, int(n * _MARGIN))
    parts = study.split(n_population, n)
    return Calibration(
        id=secrets.token_hex(6),
        created_at=SystemClock().now(),
        source=asked.wish.source,
        asked=asked.wish.classifiers,
        classifiers=tuple(c.name for c in made[0][1].classifiers),
        tier=asked.tier,
        seed=asked.seed,
        n_population=n_population,
        n_explore=parts.n_explore,
        n_verify=parts.n_verify,
        n_audit=parts.n_audit,
        budget_usd=asked.budget_usd,
        usd_high=high,
        arms=tuple(arm for arm, _ in made),
        min_agreement=asked.min_agreement,
        is_net=asked.is_net,
    )


def _wanted(session: Session, asked: Asked, small: Sequence[tuple[Arm, Plan]], n_population: int) -> int:
    """How many conversations to compare on. Where it is for a certificate, no more than a tenth of what that may save.

    `small`: the plans over the fewest. An `n` that the user names is taken as it is.
    """
    wanted = study.split(n_population, asked.n).n_explore
    if asked.n is not None or asked.min_agreement is None:
        return wanted
    worth = study.worth_comparing(_usd_per_1000(small[0][1]), [_usd_per_1000(plan) for _, plan in small], n_population)
    high = _usd_high(small)
    if high > worth:
        session.console.warn(
            f"Comparing ways on {study.FEWEST} conversations may cost ${high:.4f}; what the cheapest could save on "
            f"{n_population:,} is ${10 * worth:.4f}, and a tenth of that is what a sample is worth."
        )
    return max(min(wanted, study.FEWEST), min(wanted, int(study.FEWEST * worth / high))) if high else wanted


def _planned(session: Session, asked: Asked, n: int) -> list[tuple[Arm, Plan]]:
    """A plan each for the reference, the reference again and every arm, over `n` explored conversations."""
    settings = session.settings
    recipes = strategies.find(asked.wish.recipes, settings.strategies)
    naive = strategies.find(["naive"])[0]
    reference = Strategy(recipe="naive", tier=asked.tier)
    wish = replace(asked.wish, recipes=(), sample=Sample(seed=asked.seed, n=n), points=(study.point(naive, reference),))
    first = settings.endpoints[0]
    made = [
        make_arm(session, wish, first, Role.REFERENCE),
        make_arm(session, replace(wish, fresh=True), first, Role.AGAIN),
    ]
    n_population = made[0][1].data.n_population or 0
    parts = replace(study.split(max(n_population, 4), n), n_explore=made[0][1].data.n_conversations)
    explored = load_index(plan_folder(session.project, made[0][1].id) / "conversations")["conversation_id"]
    for endpoint in settings.endpoints[1:]:
        if endpoint.priced_as != first.priced_as and asked.tier in endpoint.tiers and not asked.wish.recipes:
            made.append(make_arm(session, wish, endpoint, Role.ARM))
    classifiers, longest = made[0][1].classifiers, made[0][1].data.max_tokens
    found = study.factors(recipes, asked.tier, longest, named=bool(asked.wish.recipes))
    points = [(recipe, *way) for recipe, point_ in found for way in ways(settings, grouped_for(classifiers, point_))]
    tried = set()
    for recipe, strategy, endpoint in points:
        if not levers_of(strategy) or (endpoint.name, bare(strategy)) in tried:  # of these none are combined by it
            continue
        tried.add((endpoint.name, bare(strategy)))
        n_asked, n_audited = study.n_audited(parts, strategy, n_population)
        if not n_audited:
            continue
        point = replace(wish, sample=Sample(seed=asked.seed, n=n_asked), points=(study.point(recipe, strategy),))
        try:
            made.append(make_arm(session, point, endpoint, Role.ARM))
        except (Infeasible, PriceUnknown, BadStrategy) as problem:
            if isinstance(problem, BadStrategy) and asked.wish.recipes:
                raise
            session.console.detail(f"{recipe.name} is not measured on {endpoint.name}: {problem}")
            continue
        if strategy.conversations_per_request > 1:
            set_apart(session, made[-1][1], explored, n_audited)
    return made


def ways(settings: Settings, strategy: Strategy) -> Iterator[tuple[Strategy, Endpoint]]:
    """Where a strategy is measured: on the reference's endpoint, or as a cascade on each cheaper one before it."""
    strategy = resolved(strategy, settings.endpoints)
    second = next((one for one in settings.endpoints if one.name == strategy.escalate), None)
    if strategy.escalate is None:
        yield strategy, settings.endpoints[0]
    for first in settings.endpoints if second is not None else ():
        serves = strategy.tier in first.tiers and strategy.model in (None, first.model, first.priced_as)
        if second is not None and serves and first.priced_as != second.priced_as and _is_cheaper(first, second):
            yield strategy, first


def _is_cheaper(first: Endpoint, second: Endpoint) -> bool:
    """Whether reading costs less at one endpoint than at another; a cascade the other way round saves nothing."""
    now = SystemClock().now()
    try:
        prices = [min(price_of(one, tier, now).input_usd for tier in one.tiers) for one in (first, second)]
    except PriceUnknown:
        return True  # then the plan says so
    return prices[0] < prices[1]


def _usd_high(made: Sequence[tuple[Arm, Plan]]) -> Decimal:
    """Upper estimate of all plans. Where a plain pack is measured, its second passes take over what it paid for.

    What a cascade escalates to the reference alone, the reference has answered.
    """
    plain = {bare(arm.strategy) for arm, _ in made if arm.strategy.doubt is Doubt.NONE}
    total = Decimal(0)
    for arm, plan in made:
        total += plan.chosen.usd_high
        if arm.strategy.doubt in SECOND_PASS and replace(bare(arm.strategy), doubt=Doubt.NONE) in plain:
            total -= next(line.usd for line in plan.chosen.lines if line.part == Stage.CLASSIFY.value)
        reference = made[0][1].legs[0]
        if (arm.strategy.escalate, arm.strategy.conversations_per_request) == (reference.endpoint, 1):
            total -= sum(line.usd for line in plan.chosen.lines if line.part == ESCALATE)
    return total


# -- reading -------------------------------------------------------------------------------------------


def _found(store: Store, calibration: Calibration) -> tuple[study.Findings, list[Measurement]]:
    arms = explored(calibration)
    plans = {arm.plan_id: store.plan(arm.plan_id) for arm in arms}
    first = next(arm for arm in arms if arm.role is Role.REFERENCE)
    reference = labelled(store, plans[first.plan_id])
    edges = study.length_edges(reference)
    model = plans[first.plan_id].endpoint(first.endpoint).priced_as
    measured: list[Measurement] = []
    lines, routers, doubting = [], [], []
    for arm in arms[1:]:
        plan = plans[arm.plan_id]
        kind = Kind.SELF_FLIP if arm.role is Role.AGAIN else Kind.CHANGE
        basis = study.Basis(
            calibration=calibration,
            plan=plan,
            strategy=arm.strategy,
            reference=model,
            model=plan.models_of(plan.legs[0]),
            edges=edges,
            kind=kind,
        )
        labels = audited(store, plan, labelled(store, plan))
        counted = study.measure(basis, reference, labels)
        measured += counted
        if arm.role is Role.ARM:
            lines.append(_line(plan, basis, counted))
        if arm.strategy.doubt is not Doubt.NONE:
            bound = _threshold(store, calibration, plan, labels) if arm.strategy.doubt is Doubt.CONFIDENCE else None
            measured += study.threshold_measurements(basis, bound) if bound is not None and bound.certified else []
            held = as_it_ran(labels, reference)
            doubting.append(study.Doubting(strategy=arm.strategy, model=basis.model, held=held, bound=bound))
        if arm.strategy.doubt is Doubt.RERUN:
            routers.append(study.router(arm.strategy, reference, list(_runs(store, plan, labels)), labels))
    findings = study.Findings(
        calibration=calibration,
        spent_usd=_spent(store, calibration),
        reference_usd_per_1000=_usd_per_1000(plans[first.plan_id]),
        floors=study.floors(measured),
        measured=tuple(sorted(lines, key=lambda line: line.usd_per_1000)),
        routers=tuple(one for one in routers if one is not None),
        doubting=tuple(doubting),
    )
    return findings, measured


def _spent(store: Store, calibration: Calibration) -> Decimal:
    return sum((part.cost_usd for arm in calibration.arms for part in store.parts(arm.plan_id)), Decimal(0))


def _runs(store: Store, plan: Plan, audited: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The labels of a router's first and second run: conversation_id, classifier, label."""
    ids = audited.select("row", "conversation_id").unique("row")
    read = read_labels(store, plan)
    for stage in (Stage.CLASSIFY, Stage.RERUN):
        given = latest(read.filter(pl.col("stage") == stage.value, pl.col("label").is_not_null()))
        yield given.join(ids, on="row", how="inner").select("conversation_id", "classifier", "label")


def _threshold(store: Store, calibration: Calibration, plan: Plan, audited: pl.DataFrame) -> Threshold | None:
    """The confidence of an arm that doubts by it, held against its target; None where none could be found.

    What is doubted counts as the reference gives it a second time, so who is asked again has to be its model.
    """
    model = store.plan(calibration.arms[0].plan_id).endpoints[0].priced_as
    if plan.asked_of(plan.legs[0], Stage.RECLASSIFY).priced_as != model:
        return None
    plans = {arm.role: store.plan(arm.plan_id) for arm in reversed(calibration.arms)}
    ids = audited.select("row", "conversation_id").unique("row")
    read = read_labels(store, plan).filter(pl.col("stage") == Stage.CLASSIFY.value, pl.col("label").is_not_null())
    first = latest(read).join(ids, on="row", how="inner")
    reference, again = (labelled(store, plans[role]) for role in (Role.REFERENCE, Role.AGAIN))
    target = (
        TARGET if calibration.min_agreement is None else Target.of_agreement(calibration.min_agreement, TARGET.delta)
    )
    return threshold(first, reference, again, calibration.seed, target)


def _line(plan: Plan, basis: study.Basis, counted: Sequence[Measurement]) -> study.Measured:
    return study.Measured(
        strategy=basis.strategy,
        model=basis.model,
        plan_id=plan.id,
        usd_per_1000=_usd_per_1000(plan),
        changes=tuple(one for one in counted if one.max_tokens is None),
    )


def _usd_per_1000(plan: Plan) -> Decimal:
    """What a plan was priced at, had nothing of it been answered before."""
    return (plan.chosen.usd + plan.reused_usd) * 1000 / max(1, plan.data.n_unique)
