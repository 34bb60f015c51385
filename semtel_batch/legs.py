"""How a plan's legs are worded, shortened and told apart: what the composer is asked for, shard by shard."""

from __future__ import annotations

import hashlib

import orjson

from semtel_batch.compose.bodies import Delivery
from semtel_batch.compose.compress.backends import open_compressor
from semtel_batch.compose.prompt import Prompt, word
from semtel_batch.families import family_of
from semtel_batch.plans import Leg, Plan
from semtel_batch.quality.garbled import halves
from semtel_batch.records import Doubt, Endpoint, Stage, Strategy, Tier
from semtel_batch.rows import Generation

_CHANGING = ("temperature", "reasoning_effort")  # rules of an endpoint that change what is answered


def wording(plan: Plan, leg: Leg, classifiers: tuple[str, ...], stage: Stage, tier: Tier) -> Prompt:
    """The prompt that asks these classifiers at this stage of a plan, in a tier."""
    asked = [plan.classifier(name) for name in classifiers]
    endpoint = plan.asked_of(leg, stage)
    cached = leg.cache_keys > 0 and tier in (Tier.REALTIME, Tier.FLEX) and endpoint.name == leg.endpoint
    delivery = Delivery(tier=tier, cached=cached, logprobs=tells_logprobs(leg.strategy, stage))
    return word(asked, stage, endpoint, plan.grader, plan.prompt_sizes, delivery)


def tells_logprobs(strategy: Strategy, stage: Stage) -> bool:
    """Whether a stage's answers are to come with the probabilities of their tokens; decisions come with their own."""
    is_written = strategy.tier is not Tier.DECISIONS
    return strategy.doubt is Doubt.CONFIDENCE and stage is Stage.CLASSIFY and is_written


def shortening(strategy: Strategy, stage: Stage) -> int | None:
    """To how many tokens a stage cuts a text. Reclassifying is the reference strategy: it sees all of it."""
    return None if stage is Stage.RECLASSIFY else strategy.truncate_to


def compressing(strategy: Strategy, stage: Stage) -> tuple[str, float] | None:
    """By what, and to which share, a stage compresses a text."""
    if strategy.compress_rate is None or stage is Stage.RECLASSIFY:
        return None
    return strategy.compressor or "rules", strategy.compress_rate


def encoding_of(endpoint: Endpoint) -> str:
    return endpoint.encoding or family_of(endpoint.priced_as).encoding


def way_of_asking(prompt: Prompt, endpoint: Endpoint, strategy: Strategy, *, per_request: int) -> str:
    """Hash of all that changes answers besides the conversation: model, system message, pack size, what was cut.

    `per_request`: conversations in a request at most, whatever the strategy packs. Tier and provider are left out,
    since neither changes what the model is asked.
    """
    limit = shortening(strategy, prompt.stage)
    escalated = prompt.stage is Stage.RECLASSIFY and strategy.escalate is not None
    way = {
        "model": endpoint.priced_as,
        "system": hashlib.blake2b(prompt.system.encode(), digest_size=16).hexdigest(),
        "conversations": per_request,
        "truncate_to": limit,
        "keep": strategy.keep.value if limit is not None else None,
        "compress_rate": None if escalated else strategy.compress_rate,
        # A doubted label must not be its own second opinion, where the strategy asks one by one anyway; another model's
        # answer is none, and what it was asked before in this way is not paid again.
        "again": prompt.stage is Stage.RECLASSIFY and strategy.conversations_per_request == 1 and not escalated,
    }
    if (compressed := compressing(strategy, prompt.stage)) is not None:
        way["compressor"] = [compressed[0], open_compressor(compressed[0], encoding_of(endpoint)).version]
    told = [(name, value) for name, value in endpoint.rules if name in _CHANGING]
    if told:
        way["rules"] = told
    if prompt.stage is Stage.RERUN:
        way["rerun"] = True  # nor may a second run be answered from the first
    if tells_logprobs(strategy, prompt.stage):
        way["logprobs"] = True  # what was answered without them can't be doubted by them
    return hashlib.blake2b(orjson.dumps(way, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


def pack_sizes(generation: Generation, strategy: Strategy) -> tuple[int, ...]:
    """How many conversations a request of a generation may hold, each size that its asks may have.

    First asks are packed as the strategy says; what comes after goes as before, alone, or in halves of halves: a run
    that saw its packs broken packs fewer from then on.
    """
    n = strategy.conversations_per_request
    if generation.stage is Stage.RECLASSIFY or n == 1:
        return (1,)
    is_first = generation.stage is Stage.CLASSIFY and generation.attempt == 0
    return (n,) if is_first else halves(n)


def generation_key(generation: Generation) -> str:
    """What the names of a generation's shards begin with, after the plan's id."""
    if generation.stage is Stage.EMBED:
        return f"e{generation.attempt}"  # of no leg
    letter = "s" if generation.stage is Stage.RERUN else generation.stage.value[0]  # "r" reclassifies
    return f"{generation.leg}{letter}{generation.attempt}"


def fingerprint(text_hash: bytes, version: str, way: str, judged: str = "") -> bytes:
    """Identity of one answered question: text, classifier, way of asking, and for a grader the label it judged."""
    parts = (text_hash, version.encode(), way.encode(), judged.encode())
    return hashlib.blake2b(b"\0".join(parts), digest_size=16).digest()
