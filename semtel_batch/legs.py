"""How a plan's legs are worded, shortened and told apart: what the composer is asked for, shard by shard."""

from __future__ import annotations

import hashlib

import orjson

from semtel_batch.compose.prompt import Prompt, word
from semtel_batch.families import family_of
from semtel_batch.plans import Leg, Plan
from semtel_batch.records import Endpoint, Shard, Stage, Strategy


def wording(plan: Plan, leg: Leg, classifiers: tuple[str, ...], stage: Stage) -> Prompt:
    """The prompt that asks these classifiers at this stage of a plan."""
    return word([plan.classifier(name) for name in classifiers], stage, plan.endpoint(leg.endpoint), plan.grader)


def shortening(strategy: Strategy, stage: Stage) -> int | None:
    """To how many tokens a stage cuts a text. Reclassifying is the reference strategy: it sees all of it."""
    return None if stage is Stage.RECLASSIFY else strategy.truncate_to


def encoding_of(endpoint: Endpoint) -> str:
    return endpoint.encoding or family_of(endpoint.priced_as).encoding


def way_of_asking(plan: Plan, shard: Shard) -> str:
    """What of the strategy changes answers, in canonical form: a part of every item's fingerprint."""
    strategy = plan.legs[shard.leg].strategy
    single = shard.attempt > 0 or shard.stage is Stage.RECLASSIFY
    limit = shortening(strategy, shard.stage)
    prompt = wording(plan, plan.legs[shard.leg], shard.classifiers, shard.stage)
    return orjson.dumps(
        {
            "model": plan.endpoint(shard.endpoint).priced_as,
            "system": hashlib.blake2b(prompt.system.encode(), digest_size=16).hexdigest(),
            "conversations": 1 if single else strategy.conversations_per_request,
            "truncate_to": limit,
            "keep": strategy.keep.value if limit is not None else None,
            "compress_rate": strategy.compress_rate,
        },
        option=orjson.OPT_SORT_KEYS,
    ).decode()
