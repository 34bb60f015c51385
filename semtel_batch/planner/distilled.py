"""Networks as a tier of a plan: vectors for everybody, labels where they are sure, and the cheapest way for the rest.

What is left to the LLM is planned like any job: the same conversations without those that the networks are taken to
keep. Which they keep is known where all have a vector; else as many as on the data that they were certified on are
drawn, each network's doubtful ones apart from the others', which is the most that can be left (Boole's inequality).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from semtel_batch.embedders import with_embedders
from semtel_batch.errors import Infeasible
from semtel_batch.network_plan import DISTILLED, AtHand, NetworkShare, NetworkTier
from semtel_batch.planner.baseline import naive
from semtel_batch.planner.constraints import constraints, dollars
from semtel_batch.planner.job import Job, part_of
from semtel_batch.planner.optimize import choose
from semtel_batch.planner.room import RequestCounter
from semtel_batch.planner.timing import Load, part_s
from semtel_batch.planner.tradeoffs import frontier
from semtel_batch.plans import (
    Alternative,
    CostLine,
    Estimate,
    Objective,
    Plan,
    Quality,
    Uncertainty,
    seal,
)
from semtel_batch.records import Stage, TierPrice, Usage
from semtel_batch.strata import uniforms
from semtel_batch.vectors import INPUTS

_TOLERANCE = 1e-9
_OTHER_DRAW = 0x5EED  # so that whom a network is taken to keep has nothing to do with whom a leg serves

Mask = npt.NDArray[np.bool_]


def decide(job: Job) -> Plan:
    """The cheapest plan that keeps the objective, with networks where there are any and they may be used.

    Raises `Infeasible` if there is none.
    """
    at_hand = job.networks
    if at_hand is None or job.study:
        return choose(job)
    job = replace(job, truncated_lengths=functools.cache(job.truncated_lengths))
    plain, problem = _tried(job)
    made, why_none = _cheapest(job, at_hand)
    if made is None:
        if plain is None or at_hand.is_named:
            raise Infeasible(f"Networks: {why_none}" if at_hand.is_named else str(problem))
        return plain
    reason = _obstacle(job, at_hand, made, plain)
    if not reason:
        return _chosen(job, made, plain)
    if at_hand.is_named:
        raise Infeasible(f"With networks, the plan {reason}; loosen that, or plan without --strategy distilled.")
    if plain is None:
        assert problem is not None
        raise problem
    beside = Alternative(estimate=made.chosen, feasible=False, reason=reason)
    return seal(replace(plain, alternatives=(*plain.alternatives, beside)))


def _tried(job: Job) -> tuple[Plan | None, Infeasible | None]:
    try:
        return choose(job), None
    except Infeasible as infeasible:
        return None, infeasible


def _cheapest(job: Job, at_hand: AtHand) -> tuple[Plan | None, str]:
    """The networks' plan by the cheaper way to embed; without one, why."""
    left = _Left.of(job, at_hand)
    if left.coverage <= 0:
        return None, "they are sure of nothing here"
    made, reasons = [], []
    for price in at_hand.embedder.prices:
        try:
            made.append(_with_networks(job, at_hand, left, price))
        except Infeasible as infeasible:
            reasons.append(str(infeasible))
    limits = constraints(job.objective)
    # Where nothing is left to the LLM, nobody but these limits has asked whether embedding in batch is in time.
    best = min(
        made,
        key=lambda plan: (not all(one.keeps(plan.chosen) for one in limits), plan.chosen.usd, plan.chosen.time_s),
        default=None,
    )
    return best, " ".join(dict.fromkeys(reasons))


def _obstacle(job: Job, at_hand: AtHand, made: Plan, plain: Plan | None) -> str:
    """Why the networks' plan may not be chosen, or is not worth it; empty if it is."""
    missed = [one.reason() for one in constraints(job.objective) if not one.keeps(made.chosen)]
    if missed:
        return "; ".join(missed)
    if at_hand.is_named:
        return ""
    if job.objective.min_agreement is None and not job.assume:
        return "may change labels: name it with --strategy distilled, or say with --min-agreement how many"
    if plain is not None and made.chosen.usd >= plain.chosen.usd:
        more = made.chosen.usd - plain.chosen.usd
        return f"costs {dollars(more)} more" if more else "costs the same"
    return ""


# ── what is left ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Left:
    """Which items networks are taken to leave to the LLM (conversations × classifiers), and how much they cover."""

    items: Mask
    coverage: float
    low: float
    high: float

    @staticmethod
    def of(job: Job, at_hand: AtHand) -> _Left:
        shares = at_hand.networks
        if at_hand.kept is not None:
            items = ~at_hand.kept
            coverage = 1.0 - float(items.any(axis=1).mean())
            return _Left(items=items, coverage=coverage, low=coverage, high=coverage)
        ends = [_foreseen(one, len(job.lengths)) for one in shares]
        return _Left(
            items=_drawn(job, shares),
            coverage=max(0.0, 1.0 - sum(1.0 - one.coverage for one in shares)),
            low=max(0.0, 1.0 - sum(1.0 - low for low, _ in ends)),
            high=min(high for _, high in ends),
        )


def _foreseen(one: NetworkShare, n: int) -> tuple[float, float]:
    """Between which shares of n other conversations a network will keep: its interval, wider by their own chance."""
    wider = math.sqrt(1.0 + one.n_calibrated / max(1, n))
    low = one.coverage - wider * (one.coverage - one.coverage_low)
    return max(0.0, low), min(1.0, one.coverage + wider * (one.coverage_high - one.coverage))


def _drawn(job: Job, shares: tuple[NetworkShare, ...]) -> Mask:
    """As many as each network leaves, one after the other along a drawn number: they meet as late as they can."""
    places = np.argsort(np.argsort(uniforms(job.seed ^ _OTHER_DRAW, job.numbers)))
    drawn, start, columns = (places + 0.5) / max(1, len(places)), 0.0, []
    for one in shares:
        columns.append((drawn - start) % 1.0 < 1.0 - one.coverage)
        start += 1.0 - one.coverage
    return np.stack(columns, axis=1)


def _rest(job: Job, left: _Left, objective: Objective) -> Job:
    """The job that is left: the conversations that some network leaves, and of each the classifiers that it needs."""
    some: Mask = np.asarray(left.items.any(axis=1))
    if not some.any():
        some[:1] = True  # a plan has legs, if only for what does not come as expected
    by_name = {c.name: left.items[some, place] for place, c in enumerate(job.classifiers)}
    part = part_of(job, some)
    return replace(part, left=by_name, objective=objective, pilots=(), labelled=None, networks=None)


# ── the plan ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _with_networks(job: Job, at_hand: AtHand, left: _Left, price: TierPrice) -> Plan:
    """The rest's plan with the networks before it; its alternatives are of the rest still."""
    n_requests = math.ceil(at_hand.n_texts / INPUTS)
    usage = Usage(prompt_tokens=at_hand.prompt_tokens)
    load = Load(
        tier=price.tier, n_requests=n_requests, prompt_tokens=usage.prompt_tokens, cap_tokens=0, completion_tokens=0
    )
    usd, time_s = price.cost_usd(usage), part_s(at_hand.embedder.endpoint, load)
    rest = choose(_rest(job, left, _less(job.objective, usd, time_s)))
    embedder = at_hand.embedder.endpoint.name
    line = CostLine(
        part=Stage.EMBED.value, n_requests=n_requests, usage=usage, usd=usd, tier=price.tier, endpoint=embedder
    )
    tier = NetworkTier(
        networks=at_hand.networks,
        embedder=embedder,
        vectors=at_hand.embedder.vectors,
        tier=price.tier,
        n_texts=at_hand.n_texts,
        prompt_tokens=at_hand.prompt_tokens,
        embedding_usd=usd,
        trained_usd=at_hand.trained_usd,
        coverage=left.coverage,
        coverage_low=left.low,
        coverage_high=left.high,
        is_measured=at_hand.kept is not None,
    )
    quality = _quality(at_hand, rest.chosen.quality)
    chosen = _estimate(rest.chosen, line, time_s, tier, quality)
    plan = replace(
        rest,
        network=tier,
        chosen=chosen,
        objective=job.objective,
        certified=rest.certified and not quality.assumed,
    )
    return with_embedders(plan, [at_hand.embedder])


def _less(objective: Objective, usd: Decimal, time_s: float) -> Objective:
    """What an objective leaves to the legs when the embeddings are paid and there."""
    return replace(
        objective,
        budget_usd=None if objective.budget_usd is None else max(Decimal(0), objective.budget_usd - usd),
        deadline_s=None if objective.deadline_s is None else max(0.0, objective.deadline_s - time_s),
    )


def _quality(at_hand: AtHand, rest: Quality) -> Quality:
    """Of what is kept, what the networks were certified for; of the rest, the legs'; and what was learned from, on top.

    P(differs) = P(kept and differs) + P(left and differs), whatever the shares: at most the larger of the two, and of
    what the networks learned as much as the run that they learned from may have changed.
    """
    worst = max(one.max_disagreement for one in at_hand.networks)
    told = "; ".join(
        f"{one.classifier}: of what the network keeps at least {1 - one.max_disagreement:.0%} agrees with "
        f"{one.reference} (n={one.n_kept:,}, {1 - one.delta:.0%} confidence)"
        for one in at_hand.networks
    )
    where = "on this data" if at_hand.is_same_data else "on other data, so assumed for this"
    return Quality(
        label_change=min(1.0, max(worst, rest.label_change) + at_hand.reference_change),
        assumed=rest.assumed or not at_hand.is_same_data,
        basis=f"{told}, {where}; the rest: {rest.basis}",
    )


def _estimate(rest: Estimate, line: CostLine, time_s: float, tier: NetworkTier, quality: Quality) -> Estimate:
    left = max(1.0 - tier.coverage, _TOLERANCE)
    fewer, more = ((1.0 - share) / left for share in (tier.coverage_high, tier.coverage_low))
    low, high = (
        line.usd + usd * Decimal(repr(factor)) for usd, factor in ((rest.usd_low, fewer), (rest.usd_high, more))
    )
    usd = line.usd + rest.usd
    unknown = [
        replace(one, usd_low=one.usd_low + line.usd, usd_high=one.usd_high + line.usd) for one in rest.uncertainties
    ]
    if not tier.is_measured:
        ends = [line.usd + rest.usd * Decimal(repr(factor)) for factor in (fewer, more)]
        unknown.append(Uncertainty(what="what networks keep", usd_low=ends[0], usd_high=ends[1], basis=tier.basis))
    return replace(
        rest,
        strategy=replace(rest.strategy, recipe=DISTILLED),
        lines=(line, *rest.lines),
        usd=usd,
        usd_low=low,
        usd_high=high,
        time_s=rest.time_s + time_s,
        quality=quality,
        uncertainties=tuple(sorted(unknown, key=lambda one: one.usd_low - one.usd_high)),
    )


def _chosen(job: Job, made: Plan, plain: Plan | None) -> Plan:
    """The networks' plan beside what the whole job would cost in every other way."""
    chosen = made.chosen
    others = tuple(_beside(plain, chosen)) if plain else ()
    alternatives = (Alternative(estimate=chosen, feasible=True), *others)
    endpoint = next(e for e in job.endpoints if e.name == made.legs[0].endpoint)
    naive_usd = plain.naive_usd if plain else naive(job, endpoint, RequestCounter(seed=job.seed)).usd
    points = frontier([one.estimate for one in alternatives], chosen)
    return seal(replace(made, alternatives=alternatives, naive_usd=naive_usd, frontier=points))


def _beside(plain: Plan, chosen: Estimate) -> Iterator[Alternative]:
    for one in plain.alternatives:
        more = one.estimate.usd - chosen.usd
        reason = f"costs {dollars(more)} more" if more > 0 else f"only {DISTILLED} was named"
        yield replace(one, reason=reason) if one.feasible else one
