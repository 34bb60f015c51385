"""What a user should know before trusting a plan: what was assumed, and what may bite."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from semtel_batch.families import family_with, is_openai
from semtel_batch.planner.cascade import doubted, second_endpoint, told
from semtel_batch.planner.constraints import dollars
from semtel_batch.planner.estimate import COMPRESSING, n_answered
from semtel_batch.planner.fallback import is_hedged
from semtel_batch.planner.job import Job, groups
from semtel_batch.planner.learned import counted_as
from semtel_batch.planner.packsizes import about_packs
from semtel_batch.planner.shorter import Shortened
from semtel_batch.planner.timing import HOUR_S, WINDOW_S
from semtel_batch.plans import Alternative, Estimate
from semtel_batch.prices import SELF_HOSTED, WINDOWS, shutdown_problem
from semtel_batch.records import Endpoint, EndpointKind, Stage, Strategy, Tier, Usage


def caveats(job: Job, chosen: Estimate, endpoint: Endpoint) -> tuple[str, ...]:
    """The warnings that a plan carries, most important first."""
    return (
        *_about_labels(job, chosen),
        *_about_escalating(job, chosen, endpoint),
        *about_packs(job, chosen.strategy, endpoint),
        *_about_time(job, chosen, endpoint),
        *_about_windows(job, chosen, endpoint),
        *_about_prices(job, chosen, endpoint),
        *_about_changes(job, chosen, endpoint),
        *_about_caching(job, chosen, endpoint),
        *_about_tokens(job, endpoint),
    )


def _about_caching(job: Job, chosen: Estimate, endpoint: Endpoint) -> Iterator[str]:
    first = next((line.usage for line in chosen.lines if line.part == Stage.CLASSIFY.value), None)
    if first is None or not first.cached_tokens:
        return
    model = counted_as(endpoint.priced_as, chosen.strategy.tier)
    own = [o for o in job.learned.observations if o.model == model and o.tier is chosen.strategy.tier]
    yield (
        f"{100 * first.cached_tokens / first.prompt_tokens:.0f} % of the prompt tokens are taken to come from the "
        f"provider's cache, as in earlier runs (measured, n={sum(o.n_requests for o in own):,} requests)."
    )


def about_compressing(job: Job, alternatives: Sequence[Alternative]) -> Iterator[str]:
    """What compressing takes and saves, of each way that was priced; above all where it doesn't pay.

    "Prompt compression in the wild" (ECIR 2026, arXiv 2604.02985): outside a narrow window it costs more than it saves.
    """
    estimates = [one.estimate for one in alternatives]
    told = set()
    for one in estimates:
        way = (one.strategy.compressor, one.strategy.compress_rate, one.strategy.tier)
        if one.strategy.compress_rate is None or job.compressed is None or way in told:
            continue
        told.add(way)
        plain = _uncompressed(one, estimates)
        if plain is not None and _is_answered(job, one, plain):
            plain = None  # what earlier runs answered costs no money and no time: that says nothing of compressing
        shortened = job.compressed(one.strategy.compressor or "rules", one.strategy.compress_rate)
        paid = sum((line.usd for line in one.lines if line.part == COMPRESSING), Decimal(0))
        saved = _saved_usd(job, one, shortened) if plain is None else plain.usd - (one.usd - paid)
        slower = shortened.cpu_s / (os.cpu_count() or 1) >= one.time_s if plain is None else one.time_s > plain.time_s
        yield _compression(one.strategy, shortened, (paid, saved), slower=slower)


def _is_answered(job: Job, *estimates: Estimate) -> bool:
    """Whether earlier runs answered some of the job in one of these ways."""
    endpoints = {endpoint.name: endpoint for endpoint in job.endpoints}
    return any(n_answered(job, one.strategy, endpoints[one.endpoint]) for one in estimates)


def _saved_usd(job: Job, one: Estimate, shortened: Shortened) -> Decimal:
    """The price of the tokens that are left out, where no price of the texts as they are can be held against it."""
    n_prompts = len(groups(job.classifiers, one.strategy))
    left_out = n_prompts * int(job.lengths.sum() - shortened.lengths.sum())
    return job.prices.prices[one.endpoint, one.strategy.tier].cost_usd(Usage(prompt_tokens=left_out))


def _uncompressed(one: Estimate, estimates: Sequence[Estimate]) -> Estimate | None:
    """The same way of asking with the texts as they are, whatever recipe it comes from."""
    same = replace(one.strategy, compressor=None, compress_rate=None, recipe="")
    return next((e for e in estimates if e.endpoint == one.endpoint and replace(e.strategy, recipe="") == same), None)


def _compression(strategy: Strategy, shortened: Shortened, usd: tuple[Decimal, Decimal], *, slower: bool) -> str:
    spent, (paid, saved) = shortened.spent, usd
    verdict = "it pays" if saved > paid else "it is dearer than sending the text as it is"
    if slower:
        verdict = f"{verdict} and slower" if saved <= paid else f"{verdict}, but is slower"
    basis = "earlier runs" if shortened.earlier else "a sample of this data"
    return (
        f"Compressing with {strategy.compressor} ({strategy.tier!s}), asked to keep "
        f"{100 * (strategy.compress_rate or 1):.0f} %, keeps {100 * spent.rate:.0f} % of the tokens and "
        f"takes {spent.cpu_s_per_1k:.3f} CPU-s per 1,000 (measured on {basis}, {spent.n_texts:,} texts): "
        f"{dollars(paid)} of CPU time saves {dollars(saved)}; {verdict}."
    )


def _about_labels(job: Job, chosen: Estimate) -> Iterator[str]:
    quality = chosen.quality
    if not quality.assumed:
        return
    if job.objective.min_agreement is None:
        yield "No --min-agreement was given: the cheapest way was chosen whatever it does to labels."


def _about_escalating(job: Job, chosen: Estimate, endpoint: Endpoint) -> Iterator[str]:
    if chosen.strategy.escalate is not None:
        second = second_endpoint(job, chosen.strategy, endpoint)
        yield told(doubted(job, chosen.strategy, endpoint), second)


def _about_time(job: Job, chosen: Estimate, endpoint: Endpoint) -> Iterator[str]:
    deadline_s = job.objective.deadline_s
    until = job.now + timedelta(seconds=max(chosen.time_s, deadline_s or 0.0))
    for one in (endpoint, *_beside(job, chosen)):
        problem = shutdown_problem(one, job.now, until)
        if problem is not None:
            yield problem.message
    windowed = chosen.strategy.tier in WINDOW_S
    if is_hedged(job, chosen.strategy, chosen.time_s):
        yield _about_hedge(job, chosen, endpoint)
    elif windowed and deadline_s is not None and deadline_s - chosen.time_s < HOUR_S:
        yield (
            "The deadline leaves less than an hour after the completion window: what comes back in its last minutes, "
            "or not at all, is asked again after it."
        )
    if chosen.strategy.tier is Tier.FLEX:
        yield (
            "Flex is served while there is room: what it has none for is asked in realtime, at that price, if the "
            "endpoint lists it and the budget bears it."
        )
    queued = chosen.strategy.tier is Tier.BATCH and endpoint.kind is not EndpointKind.COMPATIBLE
    if queued and endpoint.enqueued_tokens is None:
        yield (
            f"Endpoint {endpoint.name!r} names no enqueued_tokens limit: one completion window is counted on, and a "
            "provider that queues fewer tokens makes it several."
        )


def _about_hedge(job: Job, chosen: Estimate, endpoint: Endpoint) -> str:
    first = [line for line in chosen.lines if line.part == Stage.CLASSIFY.value]
    asked = sum(line.n_requests for line in first)
    taken = sum(line.n_requests for line in first if line.tier is Tier.REALTIME)
    n = job.learned.turnaround(endpoint.priced_as).n
    known = f"measured on {n} batches" if n else "assumed: half of them within 2.5 hours"
    return (
        f"Batches may take a day, longer than the deadline: what is not back in time is taken back and asked in "
        f"realtime, {100 * taken / max(1, asked):.0f} % is expected to be ({known}). For that, keep "
        "semtel-batch collect --wait running."
    )


def _about_windows(job: Job, chosen: Estimate, endpoint: Endpoint) -> Iterator[str]:
    """What OpenAI's completion windows would take off, where nobody has said yet that answers may be kept there."""
    deadline_s, is_listed = job.objective.deadline_s, any(tier.is_window for tier in endpoint.tiers)
    same = replace(chosen.strategy, recipe="", model=None) == Strategy(recipe="", tier=Tier.REALTIME)
    if not is_openai(endpoint.kind, endpoint.base_url) or is_listed or not same or deadline_s is None:
        return
    paid = sum((line.usd for line in chosen.lines if line.tier is Tier.REALTIME), Decimal(0))
    fitting = [tier for tier in WINDOWS if WINDOW_S[tier] + HOUR_S <= deadline_s]
    tier = min(fitting, key=lambda one: WINDOWS[one], default=None)
    if tier is None or not paid:
        return
    named = ", ".join(f'"{one}"' for one in (*endpoint.tiers, tier))
    yield (
        f"The {tier} completion window would take about {dollars(paid * (1 - WINDOWS[tier]))} off and end before the "
        f"deadline. OpenAI keeps its answers (store: true), so it is used only where you ask for it: tiers = [{named}] "
        f"in the [[endpoint]] {endpoint.name!r} of semtel.toml."
    )


def _beside(job: Job, chosen: Estimate) -> list[Endpoint]:
    """The endpoints that take a part of the realtime requests."""
    return [endpoint for endpoint in job.endpoints if endpoint.name in chosen.pool]


def _about_prices(job: Job, chosen: Estimate, endpoint: Endpoint) -> Iterator[str]:
    price = job.prices.prices[endpoint.name, chosen.strategy.tier]
    if price.source.startswith(SELF_HOSTED):
        yield f"Costs are 0 because endpoint {endpoint.name!r} has no price: {SELF_HOSTED}."
    elif endpoint.kind is EndpointKind.COMPATIBLE and endpoint.price is None:
        yield f"Endpoint {endpoint.name!r} is priced by {price.source}: set [endpoint.price] in semtel.toml if it does."


def _about_changes(job: Job, chosen: Estimate, endpoint: Endpoint) -> Iterator[str]:
    """Prices that are known to change while the run may still go on."""
    until = job.now + timedelta(seconds=max(chosen.time_s, job.objective.deadline_s or 0.0))
    for tier in dict.fromkeys((chosen.strategy.tier, Tier.REALTIME)):
        change, now = job.prices.changes.get((endpoint.name, tier)), job.prices.get(endpoint.name, tier)
        if change is not None and now is not None and change.on <= until.date():
            yield (
                f"From {change.on} on, {tier} of endpoint {endpoint.name!r} costs ${change.price.input_usd} in and "
                f"${change.price.output_usd} out per million tokens instead of ${now.input_usd} and ${now.output_usd}: "
                "the run may reach that day. The estimate is at today's price, its interval bears either; --explain "
                "says what submitting it then would cost."
            )


def _about_tokens(job: Job, endpoint: Endpoint) -> Iterator[str]:
    family = family_with(endpoint.priced_as, endpoint.rules)
    encoding = endpoint.encoding or family.encoding
    if endpoint.encoding is None and not family.encoding_known:
        yield f"Tokens of {endpoint.priced_as!r} are counted as {encoding}, which is assumed."
    if encoding != job.profile.encoding:
        yield (
            f"Texts were counted in {job.profile.encoding}, but endpoint {endpoint.name!r} counts in {encoding}: "
            "the estimate is off by what they differ."
        )
