"""Whether a leg's fixed prompt is worth caching at the provider, and under how many keys."""

from __future__ import annotations

import math

from semtel_batch.compose.bodies import Delivery
from semtel_batch.compose.prompt import CACHED_FROM, word
from semtel_batch.families import family_with
from semtel_batch.planner.job import Job
from semtel_batch.planner.timing import Load, realtime_s
from semtel_batch.plans import Estimate, PromptSize
from semtel_batch.records import Classifier, Endpoint, EndpointKind, Stage, Tier, TierPrice

_PER_KEY = 15.0  # requests a minute that one key should get at most, from the same guide
# Where hits are to be had: a batch is promised none, and what they cost in a window is not published.
CACHING_TIERS = (Tier.REALTIME, Tier.FLEX)


def fixed_tokens(size: PromptSize, message_overhead: int, reply_overhead: int) -> int:
    """Tokens of a prompt up to the end of its fixed part: what a cache may hold."""
    return size.static_tokens - message_overhead - reply_overhead


def cache_keys(endpoint: Endpoint, price: TierPrice, size: PromptSize, load: Load) -> int:
    """How many cache keys to spread a leg's requests over, by the rate that is expected; 0: no caching.

    Where writing costs extra, two requests of a key already repay it: 1.25 + 0.1 against 2.
    """
    family = family_with(endpoint.priced_as, endpoint.rules)
    fixed = fixed_tokens(size, family.message_overhead, family.reply_overhead)
    pays = load.tier in CACHING_TIERS and fixed >= CACHED_FROM and price.cached_usd < price.input_usd
    if not pays or endpoint.kind is EndpointKind.COMPATIBLE or load.n_requests < 2:
        return 0
    per_minute = 60.0 * load.n_requests / max(realtime_s(endpoint, load), 1e-9)
    return max(1, min(math.ceil(per_minute / _PER_KEY), load.n_requests // 2))


def leg_keys(job: Job, of: Estimate, group: tuple[Classifier, ...], n_groups: int = 1) -> int:
    """Cache keys of a leg that asks one of `n_groups` groups of an estimate's classifiers."""
    endpoint = next(e for e in job.endpoints if e.name == of.endpoint)
    tier = of.strategy.tier
    first = next((line for line in of.lines if line.part == Stage.CLASSIFY.value), None)
    price = job.prices.get(endpoint.name, tier)
    if first is None or price is None:
        return 0
    load = Load(
        tier=tier,
        n_requests=first.n_requests // n_groups,
        prompt_tokens=first.usage.prompt_tokens // n_groups,
        cap_tokens=first.usage.completion_tokens // n_groups,
        completion_tokens=first.usage.completion_tokens // n_groups,
    )
    size = word(group, Stage.CLASSIFY, endpoint, None, delivery=Delivery(tier=tier)).size
    return cache_keys(endpoint, price, size, load)
