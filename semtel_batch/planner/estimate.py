"""What one strategy on one endpoint would cost and take for a whole job: tokens counted, prices looked up.

A pass (classify, grade) asks every conversation once for each group of classifiers. Follow-ups (reclassify, retry)
ask single items again, one conversation and one classifier a request. No cache hit is counted on.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from semtel_batch.compose.prompt import labels_tokens, measure
from semtel_batch.families import Family, family_with
from semtel_batch.planner.cascade import doubted, doubted_tier, second_endpoint
from semtel_batch.planner.evidence import quality
from semtel_batch.planner.fallback import Fallback, dearer_at_once, divided, fallback
from semtel_batch.planner.interval import Interval, Spread, either_price, interval, without_room
from semtel_batch.planner.job import Job, asked_of, groups, left_share
from semtel_batch.planner.learned import Known, Versions, counted_as
from semtel_batch.planner.lines import Part, Priced
from semtel_batch.planner.pooling import divided as divided_among
from semtel_batch.planner.pooling import partners
from semtel_batch.planner.room import Lengths, RequestCounter, alone_room, answer_fits, pack_room
from semtel_batch.planner.shorter import Shortened
from semtel_batch.planner.timing import WINDOW_S, Load, part_s, total_s
from semtel_batch.plans import ESCALATE, CostLine, Estimate, PromptSize
from semtel_batch.quality.doubt import SECOND_PASS
from semtel_batch.records import Classifier, Doubt, Endpoint, Stage, Strategy, Tier, TierPrice, Usage
from semtel_batch.strategies import Recipe

_NOTHING = Usage()
COMPRESSING = "compress"  # the cost line of this machine's time


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An estimate with what the choice needs beside it."""

    estimate: Estimate
    retry_tier: Tier
    doubted_tier: Tier | None = None  # where doubtful items are asked again; None: as what fails
    problem: str = ""  # why it can't be run at all
    main: tuple[Load, ...] = ()  # what its stages put on the endpoint, in order
    follow_ups: tuple[Load, ...] = ()  # and what is asked again
    elsewhere: tuple[tuple[Endpoint, Load], ...] = ()  # what other endpoints are asked about doubtful labels
    n_conversations: int = 0
    fallback: Fallback | None = None  # batches that the deadline may take back
    compress_s: float = 0.0  # of this machine, beside all else

    @property
    def is_hedged(self) -> bool:
        """Whether only realtime could keep the deadline, should batches be late."""
        return self.fallback is not None and self.fallback.holds


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One strategy on one endpoint, with the conversations as that strategy sends them."""

    job: Job
    strategy: Strategy
    endpoint: Endpoint
    lengths: Lengths
    counter: RequestCounter

    @property
    def model(self) -> str:
        return counted_as(self.endpoint.priced_as, self.strategy.tier)

    @property
    def family(self) -> Family:
        return family_with(self.endpoint.priced_as, self.endpoint.rules)

    def groups(self) -> tuple[tuple[Classifier, ...], ...]:
        return _groups(self.job, self.strategy)

    def answered(self, group: tuple[Classifier, ...]) -> npt.NDArray[np.bool_] | None:
        """The conversations whose labels earlier runs gave in this very way."""
        return self.job.answered(self.strategy, self.endpoint, group) if self.job.answered else None

    def asks(self, group: tuple[Classifier, ...], stage: Stage) -> Iterator[tuple[tuple[Classifier, ...], Lengths]]:
        """What is left to pay for, by the classifiers that some conversations still need of a group.

        Grades are priced in full: only the run can tell which of them are known.
        """
        known = self.answered(group) if stage is Stage.CLASSIFY else None
        for some, mask in asked_of(self.job, group):
            of = mask if known is None else ~known if mask is None else mask & ~known
            yield some, self.lengths if of is None else self.lengths[of]

    def size(self, group: tuple[Classifier, ...], stage: Stage, tier: Tier | None = None) -> PromptSize:
        return measure(group, stage, self.endpoint, self.job.grader, tier or self.strategy.tier)


def estimate(
    job: Job,
    recipe: Recipe,
    strategy: Strategy,
    endpoint: Endpoint,
    counter: RequestCounter,
    joined: tuple[Endpoint, ...] = (),
) -> Draft:
    """Price a strategy on an endpoint whose tier has a known price; dearer ones that have `joined` it answer, too."""
    lengths = lengths_of(job, strategy)
    case = _Case(job=job, strategy=strategy, endpoint=endpoint, lengths=lengths, counter=counter)
    beside = (*partners(job, endpoint), *joined)
    second = SECOND_PASS.get(strategy.doubt)
    stages = (Stage.CLASSIFY, second) if second else (Stage.CLASSIFY,)
    main = [_pass(case, stage) for stage in stages]
    retry_tier = _retry_tier(case, main)
    loads = tuple(part.load() for part in main)
    again = [_again(case, retry_tier, "retry", lengths, _of_what_is_asked(case, job.learned.retried(case.model)))]
    doubtful = _doubtful(case, loads, retry_tier)
    again[:0] = [one.part for one in doubtful if one.endpoint is endpoint]
    escalated = [one for one in doubtful if one.endpoint is not endpoint]
    asked_again = tuple(part.load() for part in again)
    elsewhere = tuple((one.endpoint, one.part.load()) for one in escalated)
    run_s = total_s(endpoint, loads, asked_again, beside, elsewhere)
    held = fallback(job, strategy, endpoint, (loads, asked_again), run_s)
    priced = _priced(case, main, again, held)
    priced = divided_among(priced, job, beside) if joined else priced
    shortened = shortened_by(job, strategy)
    asked = [*priced, *escalated]
    lines = (*_compressing(job, shortened), *(one.part.line(one.price, one.endpoint.name) for one in asked))
    usd = sum((line.usd for line in lines), Decimal(0))
    run_s = job.objective.deadline_s or run_s if held is not None and held.holds else run_s
    compress_s = shortened.cpu_s / (os.cpu_count() or 1) if shortened else 0.0
    time_s = max(run_s, compress_s)
    other = [(one.part.spread, one.price, one.endpoint.priced_as) for one in escalated]
    within = interval(usd, [(one.part.spread, one.price) for one in priced], job.learned, case.model, other)
    within = _if_dearer(case, within, usd, asked, time_s)
    return Draft(
        estimate=Estimate(
            strategy=strategy,
            endpoint=endpoint.name,
            lines=lines,
            usd=usd,
            usd_low=within.usd_low,
            usd_high=within.usd_high,
            uncertainties=within.uncertainties,
            time_s=time_s,
            pool=tuple(other.name for other in beside),
            quality=quality(job, recipe, strategy, endpoint),
        ),
        retry_tier=retry_tier,
        doubted_tier=next((one.part.tier for one in doubtful), None),
        problem=_problem(case, stages) or _problem_of_second(case, [one.endpoint for one in escalated]),
        main=loads,
        follow_ups=asked_again,
        elsewhere=elsewhere,
        n_conversations=len(lengths),
        fallback=held,
        compress_s=compress_s,
    )


def _priced(case: _Case, main: Sequence[Part], again: Sequence[Part], held: Fallback | None) -> list[Priced]:
    """The parts with their prices; of batches that the deadline may take back, each in what it will probably be."""
    prices = case.job.prices.prices
    first, rest = (
        [Priced(part, case.endpoint, prices[case.endpoint.name, part.tier]) for part in parts]
        for parts in (main, again)
    )
    if held is not None:
        first = divided(first, prices[case.endpoint.name, Tier.REALTIME], held)
    return [*first, *rest]


def _doubtful(case: _Case, main: Sequence[Load], retry_tier: Tier) -> list[Priced]:
    """What is doubted, asked again by the reference strategy: it sees the whole text. Empty where nothing is."""
    job, strategy = case.job, case.strategy
    if strategy.doubt is Doubt.NONE:
        return []
    second = second_endpoint(job, strategy, case.endpoint)
    tier = doubted_tier(job, strategy, case.endpoint, main, retry_tier) or retry_tier
    stage = SECOND_PASS.get(strategy.doubt)
    if strategy.escalate is None and stage is not None:
        share = job.learned.flagged(case.model, stage)
    else:
        share = doubted(job, strategy, case.endpoint)
    asking = replace(case, strategy=replace(strategy, tier=tier), endpoint=second)
    name = Stage.RECLASSIFY.value if strategy.escalate is None else ESCALATE
    part = _again(asking, tier, name, job.lengths, _scaled_share(share, left_share(job)))
    return [Priced(part, second, job.prices.prices[second.name, tier])]


def _later(job: Job, part: Part, price: TierPrice, endpoint: Endpoint, time_s: float) -> Decimal:
    """What more a part would cost at a price that comes before the run must have ended."""
    change = job.prices.changes.get((endpoint.name, part.tier))
    until = job.now + timedelta(seconds=max(time_s, job.objective.deadline_s or 0.0))
    if change is None or change.on > until.date():
        return Decimal(0)
    return sum((change.price.cost_usd(one) - price.cost_usd(one) for one in (part.usage, part.surcharge)), Decimal(0))


def _if_dearer(case: _Case, within: Interval, usd: Decimal, asked: Sequence[Priced], time_s: float) -> Interval:
    """The interval with what is not the estimate's to know: prices that change meanwhile, and whether flex has room."""
    later = [_later(case.job, one.part, one.price, one.endpoint, time_s) for one in asked]
    return without_room(either_price(within, usd, later), usd, [dearer_at_once(case.job, one) for one in asked])


def _of_what_is_asked(case: _Case, share: Known) -> Known:
    """A share of the items that are asked as a share of all items."""
    n_items = len(case.lengths) * len(case.job.classifiers)
    answered = n_answered(case.job, case.strategy, case.endpoint) / max(1, n_items)
    return _scaled_share(share, max(0.0, left_share(case.job) - answered))


def _scaled_share(share: Known, asked: float) -> Known:
    return replace(share, mean=share.mean * asked, sd=share.sd * asked)


def n_answered(job: Job, strategy: Strategy, endpoint: Endpoint) -> int:
    """Items that earlier runs answered in this way."""
    if job.answered is None:
        return 0
    found = [(group, job.answered(strategy, endpoint, group)) for group in _groups(job, strategy)]
    return sum(int(known.sum()) * len(group) for group, known in found if known is not None)


def _groups(job: Job, strategy: Strategy) -> tuple[tuple[Classifier, ...], ...]:
    return groups(job.classifiers, strategy)


def lengths_of(job: Job, strategy: Strategy) -> Lengths:
    """Tokens of each conversation's block as this strategy sends it."""
    shortened = shortened_by(job, strategy)
    if strategy.truncate_to is None:
        return job.lengths if shortened is None else shortened.lengths
    cut = job.truncated_lengths(strategy.truncate_to, strategy.keep)
    return cut if shortened is None else np.minimum(cut, shortened.lengths)


def shortened_by(job: Job, strategy: Strategy) -> Shortened | None:
    """What compressing does to the texts, where a strategy does; None elsewhere."""
    if strategy.compress_rate is None or job.compressed is None:
        return None
    return job.compressed(strategy.compressor or "rules", strategy.compress_rate)


def _compressing(job: Job, shortened: Shortened | None) -> tuple[CostLine, ...]:
    """This machine's time, at its price: what compressing costs, whatever the provider bills."""
    if shortened is None:
        return ()
    usd = job.cpu_usd_per_hour * Decimal(str(round(shortened.cpu_s, 3))) / 3600
    return (CostLine(part=COMPRESSING, n_requests=0, usage=_NOTHING, usd=usd),)


def _pass(case: _Case, stage: Stage) -> Part:
    """Every conversation once for each group of classifiers; a second pass is packed and paid like the first."""
    asks = (ask for group in case.groups() for ask in case.asks(group, stage))
    parts = (_group_pass(case, stage, group, lengths) for group, lengths in asks)
    return sum(parts, Part(name=stage.value, tier=case.strategy.tier))


def _group_pass(case: _Case, stage: Stage, group: tuple[Classifier, ...], lengths: Lengths) -> Part:
    if not len(lengths):
        return Part(name=stage.value, tier=case.strategy.tier)
    size, n = case.size(group, stage), case.strategy.conversations_per_request
    extra = _extra_tokens(case, stage, group)
    n_requests = case.counter(lengths, extra, pack_room(size, case.endpoint, n), n)
    text_tokens = int(lengths.sum()) + extra * len(lengths)
    ask = _Ask(n_requests, len(lengths), text_tokens, stage, tuple(c.version for c in group))
    part = _part(case, stage.value, case.strategy.tier, size, ask)
    return replace(part, surcharge=_surcharge(case, lengths, size, extra))


def _extra_tokens(case: _Case, stage: Stage, group: tuple[Classifier, ...]) -> int:
    if stage is not Stage.GRADE:
        return 0
    return labels_tokens(group, case.endpoint.encoding or case.family.encoding)


class _Ask(NamedTuple):
    n_requests: int
    n_conversations: int
    text_tokens: int
    stage: Stage
    versions: Versions


def _part(case: _Case, name: str, tier: Tier, size: PromptSize, ask: _Ask) -> Part:
    """Tokens of some requests: the static part in each, every conversation once, an answer for each of them."""
    learned = case.job.learned
    counted = ask.n_requests * size.static_tokens + ask.text_tokens
    own = ask.n_requests * learned.offset(case.model, ask.stage, ask.versions)
    prompt = max(0, counted + round(learned.prompt(case.model).extra(ask.n_requests, counted).mean + own))
    envelopes = ask.n_requests * size.envelope_tokens
    answer = learned.answer(case.model, ask.stage, ask.versions, size.envelope_tokens, size.answer_tokens)
    thought = learned.hidden(case.model, case.family.reasoning_tokens)
    cache = learned.cache(case.model, tier, ask.stage, ask.versions)
    expected = round(envelopes + ask.n_conversations * answer.mean)
    longest = int(size.slack * (envelopes + ask.n_conversations * size.longest_answer_tokens))
    hidden = round(ask.n_requests * thought.mean)
    hidden_high = max(hidden, ask.n_requests * case.family.reasoning_tokens_high)
    per_request = math.ceil(ask.n_conversations / max(1, ask.n_requests))
    return Part(
        name=name,
        tier=tier,
        n_requests=ask.n_requests,
        n_requests_high=ask.n_requests,
        usage=Usage(
            prompt_tokens=prompt,
            cached_tokens=int(prompt * cache.read) if cache else 0,
            cache_write_tokens=int(prompt * cache.written) if cache else 0,
            completion_tokens=expected + hidden,
            reasoning_tokens=hidden,
        ),
        usage_high=Usage(prompt_tokens=prompt, completion_tokens=longest + hidden_high, reasoning_tokens=hidden_high),
        spread=Spread.of(ask.n_requests, counted, ask.n_conversations, answer, thought),
        cap_tokens=ask.n_requests * size.max_completion_tokens(per_request),
    )


def _surcharge(case: _Case, lengths: Lengths, size: PromptSize, extra: int) -> Usage:
    """What is billed on top for requests over the long-context limit: input once more, output half as much again."""
    limit = case.family.long_context_over
    if limit is None:
        return _NOTHING
    prompts = lengths[lengths + extra + size.static_tokens > limit] + extra + size.static_tokens
    answers = len(prompts) * size.expected_completion_tokens(1)
    return Usage(prompt_tokens=int(prompts.sum()), completion_tokens=math.ceil(answers / 2))


def _again(case: _Case, tier: Tier, name: str, lengths: Lengths, share: Known) -> Part:
    """A share of all items, each asked again alone: one conversation, one classifier.

    Of a small job's one percent not even one request may be due; the tokens are that part of one.
    """
    n, text = len(lengths), int(lengths.sum())
    everything = Part(name=name, tier=tier)
    for classifier in case.job.classifiers:
        ask = _Ask(n, n, text, Stage.CLASSIFY, (classifier.version,))
        everything += _part(case, name, tier, case.size((classifier,), Stage.CLASSIFY, tier), ask)
    expected, upper = everything.scaled(share.mean), everything.scaled(min(1.0, share.mean + 2 * share.sd))
    usd = float(case.job.prices.prices[case.endpoint.name, tier].cost_usd(everything.usage))
    spread = expected.spread.again(name, share, usd, n * len(case.job.classifiers))
    return replace(upper, n_requests=expected.n_requests, usage=expected.usage, spread=spread)


def _retry_tier(case: _Case, main: list[Part]) -> Tier:
    """Where what fails is asked again: the same tier, unless its next windows would end after the deadline."""
    tier, deadline_s = case.strategy.tier, case.job.objective.deadline_s
    if case.job.prices.get(case.endpoint.name, Tier.REALTIME) is None:
        return tier
    if tier is Tier.FLEX:  # what it had no room for would be refused there again
        return Tier.REALTIME
    if tier not in WINDOW_S or deadline_s is None:
        return tier
    left_s = deadline_s - sum(part_s(case.endpoint, part.load()) for part in main)
    n_windows = 1 if case.strategy.doubt is Doubt.NONE else 2  # retry, and reclassify
    return tier if left_s >= n_windows * WINDOW_S[tier] else Tier.REALTIME


def _problem(case: _Case, stages: tuple[Stage, ...]) -> str:
    """Why the context window rules this out; empty if it doesn't."""
    n = case.strategy.conversations_per_request
    for stage in stages:
        for group in case.groups():
            size, extra = case.size(group, stage), _extra_tokens(case, stage, group)
            if pack_room(size, case.endpoint, n) < 1 or not answer_fits(size, case.endpoint, n):
                return _no_room(size, case)
            if n_long := _too_long(case.lengths + extra, size, case.endpoint):
                return f"{_are_too_long(n_long, case)}; truncate (strategy truncated) or take them out"
    return ""


def _no_room(size: PromptSize, case: _Case) -> str:
    """Why not even an empty conversation fits into a request."""
    if (queue := case.endpoint.enqueued_tokens) and queue <= size.static_tokens:
        return f"the prompt alone is longer than the {queue:,} enqueued_tokens of endpoint {case.endpoint.name!r}"
    return f"the prompt alone fills the context window of {case.family.context_window:,} tokens"


def _problem_of_second(case: _Case, seconds: Sequence[Endpoint]) -> str:
    """Why the context window of whom doubtful labels are escalated to rules this out: they see the whole texts."""
    for second, classifier in itertools.product(seconds, case.job.classifiers):
        other = replace(case, endpoint=second)
        size = other.size((classifier,), Stage.CLASSIFY, Tier.REALTIME)
        if n_long := _too_long(case.job.lengths, size, second):
            return f"{_are_too_long(n_long, other)} of {second.name!r}, which doubtful labels are escalated to"
    return ""


def _too_long(lengths: Lengths, size: PromptSize, endpoint: Endpoint) -> int:
    return int(np.count_nonzero(lengths > alone_room(size, endpoint)))


def _are_too_long(n_long: int, case: _Case) -> str:
    are = f"{n_long:,} conversation{'s are' if n_long > 1 else ' is'}"
    return f"{are} too long for the context window of {case.family.context_window:,} tokens"
