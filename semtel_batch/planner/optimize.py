"""Choose the cheapest way that keeps the deadline, the budget and the agreement, and say why the others lost.

One strategy on one endpoint serves the whole job wherever nothing stands in the way of the cheapest: `price_all` prices
the points, `_judge` says what each one breaks. Where a limit does, a mix of the same points may be cheaper (`mixing`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from semtel_batch.compose.bodies import Delivery
from semtel_batch.compose.prompt import word
from semtel_batch.errors import BadConfig, Infeasible
from semtel_batch.planner import mixed_plan, promise
from semtel_batch.planner.baseline import naive, reused_usd
from semtel_batch.planner.caching import leg_keys
from semtel_batch.planner.cascade import second_endpoint
from semtel_batch.planner.caveats import about_compressing, caveats
from semtel_batch.planner.certified import Channel, certified_mix, one_point_more, path_steps
from semtel_batch.planner.constraints import Constraint, binding, constraints, dollars, nearest
from semtel_batch.planner.estimate import Draft, n_answered
from semtel_batch.planner.evidence import is_promised, keeps_labels
from semtel_batch.planner.job import Job, groups
from semtel_batch.planner.mixing import Mixed, mix, nearest_mixes
from semtel_batch.planner.points import price_all
from semtel_batch.planner.room import RequestCounter
from semtel_batch.planner.slicing import edges
from semtel_batch.planner.tradeoffs import at_later_prices, frontier, steps
from semtel_batch.plans import Alternative, Estimate, Leg, Plan, PromptSize, seal
from semtel_batch.prices import shutdown_problem
from semtel_batch.records import Doubt, Endpoint, Stage, Tier, TierPrice
from semtel_batch.strategies import Recipe

LEAST_SAVING = 0.02  # of the best single way's bill; for less, several legs aren't worth following
_UNMEASURED = "would change labels, and nothing was measured: name the recipe with --strategy, or say --assume"
_KEPT = "labelled by the reference in the calibration"
_UNASKED = "was measured to change labels: say with --min-agreement how many, name the recipe, or say --assume"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    draft: Draft
    reason: str  # empty: may be chosen


def choose(job: Job) -> Plan:
    """Decide a job: the cheapest way that keeps its objective, sealed. Raises `Infeasible` if there is none.

    For a budget without an agreement, the way that changes the fewest labels.
    """
    _refuse_shut_down(job)
    # Cutting and counting all conversations is the dearest step here; both tiers, and grading, use the same cut.
    job = replace(job, truncated_lengths=functools.cache(job.truncated_lengths))
    counter = RequestCounter(seed=job.seed)
    drafts = price_all(job, counter)
    limits = constraints(job.objective)
    judged = [_judge(job, draft, limits) for draft in drafts.made]
    able = [one.draft for one in judged if not one.reason]
    best = min(able, key=functools.partial(_preference, job)) if able else None
    mixed = _mixed(job, judged, limits, best)
    held = certified_mix(job, _channels(job, drafts.made), limits)
    if isinstance(held, str):
        left_out = (*drafts.left_out, f"The mix that calibrate certified is not used: {held}.")
        drafts = replace(drafts, left_out=left_out)
    elif held is not None and _saves(held.estimate, mixed.estimate if mixed else best.estimate if best else None):
        alternatives = tuple(_alternative(one, held.estimate) for one in judged)
        plan = _certified_plan(job, held, alternatives, drafts.left_out, counter)
        return seal(_weighed(job, plan, judged, limits))
    if mixed is not None:
        alternatives = tuple(_alternative(one, mixed.estimate) for one in judged)
        plan = _mixed_plan(job, mixed, alternatives, drafts.left_out, counter)
        return seal(_weighed(job, plan, judged, limits))
    if best is None:
        raise _infeasible(job, judged, limits)
    alternatives = tuple(_alternative(one, best.estimate) for one in judged)
    plan = _plan(job, best, alternatives, drafts.left_out, counter)
    return seal(_weighed(job, plan, judged, limits))


def _preference(job: Job, draft: Draft) -> tuple[float, Decimal, bool, float]:
    """The cheapest first; at one price what is promised before what there may be no room for, then the fastest.

    Where quality is sought, what changes fewer labels goes before all that.
    """
    estimate = draft.estimate
    change = estimate.quality.label_change if job.objective.seeks_quality else 0.0
    return change, estimate.usd, estimate.strategy.tier is Tier.FLEX, estimate.time_s


# ── the choice ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _judge(job: Job, draft: Draft, limits: Sequence[Constraint]) -> _Judged:
    if draft.problem:
        return _Judged(draft=draft, reason=draft.problem)
    if not _is_allowed(job, draft):
        pilot = (
            promise.pilot_of(job) if promise.is_barred(job, draft.estimate.strategy, _endpoint(job, draft)) else None
        )
        if pilot is not None:
            return _Judged(draft=draft, reason=promise.refusal(pilot))
        return _Judged(draft=draft, reason=_UNMEASURED if draft.estimate.quality.assumed else _UNASKED)
    missed = [one.reason() for one in limits if not one.keeps(draft.estimate)]
    return _Judged(draft=draft, reason="; ".join(missed))


def _mixed(job: Job, judged: Sequence[_Judged], limits: Sequence[Constraint], best: Draft | None) -> Mixed | None:
    """A mix, where it saves enough over the best single way, or where no single way keeps the limits.

    With or without a limit: conversations of other lengths may have other cheapest ways.
    """
    able = [one.draft for one in judged if not one.draft.problem and _is_allowed(job, one.draft)]
    if job.objective.seeks_quality and (best is None or best.estimate.quality.label_change):
        return _best_mixed(job, able, limits, best)
    if job.objective.seeks_quality:  # nothing need change: the cheapest of what changes nothing
        able = [draft for draft in able if not draft.estimate.quality.label_change]
    is_free = best is not None and best.estimate.usd <= min((d.estimate.usd for d in able), default=Decimal(0))
    if len(able) < 2 or (is_free and not edges(job.lengths)):
        return None
    least = float(best.estimate.usd) * (1 - LEAST_SAVING) if best is not None else None
    mixed = mix(job, _with_recipes(job, able), limits, least)
    if mixed is None or len(mixed.served) < 2:
        return None
    return mixed if _saves(mixed.estimate, best.estimate if best is not None else None) else None


def _saves(mixed: Estimate, other: Estimate | None) -> bool:
    """Whether a mix saves enough on what else could be planned, if anything."""
    return other is None or float(mixed.usd) <= float(other.usd) * (1 - LEAST_SAVING)


def _best_mixed(job: Job, able: Sequence[Draft], limits: Sequence[Constraint], best: Draft | None) -> Mixed | None:
    """The mix that changes the fewest labels within the limits, if those are fewer than of any single way."""
    mixed = mix(job, _with_recipes(job, able), limits, seeks_quality=True) if len(able) > 1 else None
    if mixed is None or len(mixed.served) < 2:
        return None
    most = best.estimate.quality.label_change * (1 - LEAST_SAVING) if best is not None else 1.0
    return mixed if mixed.estimate.quality.label_change <= most else None


def _channels(job: Job, drafts: Sequence[Draft]) -> list[Channel]:
    """Every way in every tier that may be mixed."""
    found = _with_recipes(job, drafts)
    return [Channel(recipe=recipe, draft=draft, endpoint=_endpoint(job, draft)) for recipe, draft in found]


def _with_recipes(job: Job, drafts: Sequence[Draft]) -> list[tuple[Recipe, Draft]]:
    by_name = {recipe.name: recipe for recipe in job.recipes}
    return [(by_name[draft.estimate.strategy.recipe], draft) for draft in drafts]


def _is_allowed(job: Job, draft: Draft) -> bool:
    if job.named or job.assume or keeps_labels(job, draft.estimate.strategy, _endpoint(job, draft)):
        return True
    if promise.is_barred(job, draft.estimate.strategy, _endpoint(job, draft)):
        return False
    # Measured on this very data, and held against the agreement that was asked for, or the best that a budget buys.
    wanted = job.objective.min_agreement is not None or job.objective.seeks_quality
    return wanted and not draft.estimate.quality.assumed


def _alternative(one: _Judged, best: Estimate) -> Alternative:
    this = one.draft.estimate
    if one.reason or this is best:
        return Alternative(estimate=this, feasible=not one.reason, reason=one.reason)
    if this.usd == best.usd and this.strategy.tier is Tier.FLEX:
        return Alternative(estimate=this, feasible=True, reason="costs the same, and only while there is room")
    if this.usd == best.usd:
        return Alternative(estimate=this, feasible=True, reason="costs the same and is not faster")
    if this.usd < best.usd:  # quality was sought
        return Alternative(estimate=this, feasible=True, reason="changes more labels")
    return Alternative(estimate=this, feasible=True, reason=f"costs {dollars(this.usd - best.usd)} more")


def _infeasible(job: Job, judged: Sequence[_Judged], limits: Sequence[Constraint]) -> Infeasible:
    """Name the limit that binds, and of each the nearest value at which a plan exists."""
    runnable = [one.draft for one in judged if not one.draft.problem]
    allowed = [draft.estimate for draft in runnable if _is_allowed(job, draft)]
    if not allowed:
        return Infeasible(f"No strategy may be run: {'; '.join(dict.fromkeys(one.reason for one in judged))}.")
    asked = " and ".join(one.asked() for one in limits)
    near = "; ".join(_near(one, limits, allowed) for one in limits)
    binds = _binds(limits, allowed)
    mixes = _near_mixes(job, [draft for draft in runnable if _is_allowed(job, draft)], limits)
    return Infeasible(f"No plan keeps {asked}; {binds}. Nearest: {near}.{mixes}{_hint(job, runnable, limits)}")


def _binds(limits: Sequence[Constraint], estimates: Sequence[Estimate]) -> str:
    names = [one.name for one in binding(limits, estimates)]
    if names:
        return f"what binds is the {' or the '.join(names)}"
    return f"{' and '.join(one.name for one in limits)} bind together, and loosening one of them is not enough"


def _near(one: Constraint, limits: Sequence[Constraint], estimates: Sequence[Estimate]) -> str:
    best = nearest(one, limits, estimates)
    also = [other for other in limits if other is not one and not other.keeps(best)]
    with_also = "".join(f" with {other.name} {other.show(other.measure(best))}" for other in also)
    return f"{one.name} {one.show(one.measure(best))}{with_also} ({best.strategy.recipe} on {best.endpoint})"


def _near_mixes(job: Job, allowed: Sequence[Draft], limits: Sequence[Constraint]) -> str:
    """What a mix of several ways would come nearer to, if it does."""
    if len(allowed) < 2:
        return ""
    found = nearest_mixes(job, _with_recipes(job, allowed), limits)
    said = []
    for one in limits:
        others = [other for other in limits if other is not one]
        single = nearest(one, limits, [draft.estimate for draft in allowed])
        keeps = all(other.keeps(single) for other in others)
        value = found.get(one.name)
        if value is not None and (not keeps or value < 0.98 * float(one.measure(single))):
            said.append(f"{one.name} {one.show(Decimal(repr(value)) if one.name == 'budget' else value)}")
    return f" Several ways mixed would come nearer: {'; '.join(said)}." if said else ""


def _hint(job: Job, runnable: Sequence[Draft], limits: Sequence[Constraint]) -> str:
    """Ways that would keep every limit, but need the user's word for what they do to labels."""
    barred = [d.estimate for d in runnable if not _is_allowed(job, d) and all(c.keeps(d.estimate) for c in limits)]
    if not barred:
        return ""
    cheapest = min(barred, key=lambda e: e.usd)
    return (
        f" Recipe {cheapest.strategy.recipe} would keep it, but may change "
        f"{100 * cheapest.quality.label_change:.1f} % of labels (assumed): name it with --strategy, or say --assume."
    )


# ── the plan ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _plan(
    job: Job, best: Draft, alternatives: tuple[Alternative, ...], left_out: tuple[str, ...], counter: RequestCounter
) -> Plan:
    chosen, endpoint = best.estimate, _endpoint(job, best)
    return Plan(
        id=job.plan_id,
        created_at=job.now,
        objective=job.objective,
        data=job.profile,
        classifiers=job.classifiers,
        grader=job.grader if chosen.strategy.doubt is Doubt.GRADER else None,
        endpoints=_asked(job, chosen, endpoint),
        prices=_prices(job, best),
        legs=_legs(job, best),
        retry_tier=best.retry_tier,
        max_attempts=job.max_attempts,
        seed=job.seed,
        chosen=chosen,
        alternatives=alternatives,
        naive_usd=naive(job, endpoint, counter).usd,
        certified=is_promised(job, chosen.strategy, endpoint),
        warnings=(*caveats(job, chosen, endpoint), *about_compressing(job, alternatives), *left_out),
        study=job.study,
        fresh=job.fresh,
        cpu_usd_per_hour=job.cpu_usd_per_hour if chosen.strategy.compress_rate is not None else Decimal(0),
        n_reused_items=n_answered(job, chosen.strategy, endpoint),
        reused_usd=reused_usd(job, chosen, endpoint, counter),
        prompt_sizes=_prompt_sizes(job, chosen, endpoint),
    )


def _mixed_plan(
    job: Job, mixed: Mixed, alternatives: tuple[Alternative, ...], left_out: tuple[str, ...], counter: RequestCounter
) -> Plan:
    parts = [(replace(job, classifiers=one.way.group), one.draft, one.way.endpoint) for one in mixed.served]
    warnings = (line for part, draft, endpoint in parts for line in caveats(part, draft.estimate, endpoint))
    sizes = (pair for part, draft, endpoint in parts for pair in _prompt_sizes(part, draft.estimate, endpoint))
    largest = next(one for one in mixed.served if one.draft.estimate.strategy == mixed.estimate.strategy)
    return Plan(
        id=job.plan_id,
        created_at=job.now,
        objective=job.objective,
        data=job.profile,
        classifiers=job.classifiers,
        grader=job.grader if any(d.estimate.strategy.doubt is Doubt.GRADER for _, d, _ in parts) else None,
        endpoints=mixed_plan.endpoints(job, mixed),
        prices=tuple(dict.fromkeys(price for part, draft, _ in parts for price in _prices(part, draft))),
        legs=mixed_plan.legs(job, mixed),
        retry_tier=largest.draft.retry_tier,
        max_attempts=job.max_attempts,
        seed=job.seed,
        chosen=mixed.estimate,
        alternatives=alternatives,
        naive_usd=naive(job, largest.way.endpoint, counter).usd,
        certified=all(is_promised(part, draft.estimate.strategy, endpoint) for part, draft, endpoint in parts),
        warnings=tuple(dict.fromkeys((*warnings, *about_compressing(job, alternatives), *left_out))),
        study=job.study,
        fresh=job.fresh,
        cpu_usd_per_hour=job.cpu_usd_per_hour if mixed.compresses else Decimal(0),
        n_reused_items=mixed.n_reused,
        reused_usd=mixed.reused_usd,
        prompt_sizes=tuple(dict.fromkeys(sizes)),
        strata=mixed.strata,
        mix=mixed_plan.shares(mixed),
        shadow_prices=mixed_plan.shadow_prices(mixed),
    )


def _certified_plan(
    job: Job, held: Mixed, alternatives: tuple[Alternative, ...], left_out: tuple[str, ...], counter: RequestCounter
) -> Plan:
    """The plan of a mix that a pilot certified: its stored numbers come from the pilot's seed."""
    pilot = promise.mixed_pilot(job)
    assert pilot is not None and pilot.mixes is not None
    plan = _mixed_plan(replace(job, seed=pilot.mixes.seed), held, alternatives, left_out, counter)
    reason = f"certified so: {promise.wording_of_mix(pilot)}"
    return replace(
        plan,
        certified=True,
        mix=tuple(replace(one, reason=_KEPT if one.stratum % 2 else reason) for one in plan.mix),
        path=path_steps(pilot),
        shadow_prices=one_point_more(pilot, plan.chosen),
    )


def _weighed(job: Job, plan: Plan, judged: Sequence[_Judged], limits: Sequence[Constraint]) -> Plan:
    """Add what other limits would do to the bill, over all that could be run."""
    runnable = [one.draft for one in judged if not one.draft.problem]
    allowed = [draft.estimate for draft in runnable if _is_allowed(job, draft)]
    barred = [draft.estimate for draft in runnable if not _is_allowed(job, draft)]
    points = frontier([*allowed, *barred], plan.chosen)
    later = at_later_prices(job.prices, plan.chosen)
    if not plan.mix:
        found = (*steps(limits, allowed, barred, plan.chosen), *later)
        return replace(plan, frontier=points, shadow_prices=found)
    named = tuple(replace(one, name=f"mix of {plan.recipe}") if one.is_chosen else one for one in points)
    # Of a mix the program itself says what a limit costs; what evidence would save, it doesn't.
    evidence = steps((), allowed, barred, plan.chosen)
    return replace(plan, frontier=named, shadow_prices=(*plan.shadow_prices, *evidence, *later))


def _prices(job: Job, best: Draft) -> tuple[tuple[str, TierPrice], ...]:
    name = best.estimate.endpoint
    # Realtime too, where it can be had: what a batch has not answered in time is asked there.
    tiers = dict.fromkeys((best.estimate.strategy.tier, best.retry_tier, Tier.REALTIME))
    asked = [*((name, tier) for tier in tiers), *((other, Tier.REALTIME) for other in best.estimate.pool)]
    second = best.estimate.strategy.escalate or name
    asked += [(second, tier) for tier in (best.doubted_tier, Tier.REALTIME) if tier]
    return tuple((who, price) for who, tier in dict.fromkeys(asked) if (price := job.prices.get(who, tier)) is not None)


def _asked(job: Job, chosen: Estimate, endpoint: Endpoint) -> tuple[Endpoint, ...]:
    """Who takes part: the endpoint, those that share its realtime, and the one that doubtful labels go to."""
    second = second_endpoint(job, chosen.strategy, endpoint)
    pool = (one for one in job.endpoints if one.name in chosen.pool)
    return tuple(dict.fromkeys((endpoint, *pool, second)))


def _legs(job: Job, best: Draft) -> tuple[Leg, ...]:
    chosen = best.estimate
    grouped = groups(job.classifiers, chosen.strategy)
    return tuple(
        Leg(
            number=number,
            classifiers=tuple(classifier.name for classifier in group),
            strategy=chosen.strategy,
            endpoint=chosen.endpoint,
            doubted_tier=best.doubted_tier,
            pool=chosen.pool,
            cache_keys=leg_keys(job, chosen, group, len(grouped)),
        )
        for number, group in enumerate(grouped)
    )


def _prompt_sizes(job: Job, chosen: Estimate, endpoint: Endpoint) -> tuple[tuple[str, PromptSize], ...]:
    """What the first pass's prompts were counted to, so that `submit` need not load a vocabulary for it."""
    grouped = groups(job.classifiers, chosen.strategy)
    prompts = [
        word(group, Stage.CLASSIFY, endpoint, None, delivery=Delivery(tier=chosen.strategy.tier)) for group in grouped
    ]
    return tuple((prompt.key, prompt.size) for prompt in prompts)


def _endpoint(job: Job, draft: Draft) -> Endpoint:
    return next(e for e in job.endpoints if e.name == draft.estimate.endpoint)


def _refuse_shut_down(job: Job) -> None:
    for endpoint in job.endpoints:
        problem = shutdown_problem(endpoint, job.now, job.now)
        if problem is not None and problem.severity == "refuse":
            raise BadConfig(problem.message)
