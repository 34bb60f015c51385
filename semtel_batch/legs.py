"""How a plan's legs are worded, shortened and told apart: what the composer is asked for, shard by shard."""

from __future__ import annotations

import hashlib

import orjson

from semtel_batch.compose.bodies import Delivery
from semtel_batch.compose.prompt import Prompt, word
from semtel_batch.families import family_of
from semtel_batch.plans import Leg, Plan
from semtel_batch.records import Endpoint, Stage, Strategy, Tier
from semtel_batch.rows import Generation


def wording(plan: Plan, leg: Leg, classifiers: tuple[str, ...], stage: Stage, tier: Tier) -> Prompt:
    """The prompt that asks these classifiers at this stage of a plan, in a tier."""
    asked = [plan.classifier(name) for name in classifiers]
    return word(asked, stage, plan.endpoint(leg.endpoint), plan.grader, plan.prompt_sizes, Delivery(tier=tier))


def shortening(strategy: Strategy, stage: Stage) -> int | None:
    """To how many tokens a stage cuts a text. Reclassifying is the reference strategy: it sees all of it."""
    return None if stage is Stage.RECLASSIFY else strategy.truncate_to


def encoding_of(endpoint: Endpoint) -> str:
    return endpoint.encoding or family_of(endpoint.priced_as).encoding


def way_of_asking(prompt: Prompt, endpoint: Endpoint, strategy: Strategy, *, alone: bool) -> str:
    """Hash of all that changes answers besides the conversation: model, system message, pack size, what was cut.

    `alone`: one conversation a request, whatever the strategy packs. Tier and provider are left out, since neither
    changes what the model is asked.
    """
    limit = shortening(strategy, prompt.stage)
    way = {
        "model": endpoint.priced_as,
        "system": hashlib.blake2b(prompt.system.encode(), digest_size=16).hexdigest(),
        "conversations": 1 if alone else strategy.conversations_per_request,
        "truncate_to": limit,
        "keep": strategy.keep.value if limit is not None else None,
        "compress_rate": strategy.compress_rate,
        # A doubted label must not be its own second opinion, where the strategy asks one by one anyway.
        "again": prompt.stage is Stage.RECLASSIFY and strategy.conversations_per_request == 1,
    }
    return hashlib.blake2b(orjson.dumps(way, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


def is_alone(generation: Generation, strategy: Strategy) -> bool:
    """Whether a generation asks one conversation a request: the strategy does, or it asks again."""
    again = generation.attempt > 0 or generation.stage is Stage.RECLASSIFY
    return again or strategy.conversations_per_request == 1


def fingerprint(text_hash: bytes, version: str, way: str, judged: str = "") -> bytes:
    """Identity of one answered question: text, classifier, way of asking, and for a grader the label it judged."""
    parts = (text_hash, version.encode(), way.encode(), judged.encode())
    return hashlib.blake2b(b"\0".join(parts), digest_size=16).digest()
