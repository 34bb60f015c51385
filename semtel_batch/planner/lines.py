"""The lines of an estimate before they have a price: requests of one stage in one tier, with their tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from semtel_batch.planner.interval import Spread
from semtel_batch.planner.timing import Load
from semtel_batch.plans import CostLine
from semtel_batch.records import Endpoint, Tier, TierPrice, Usage

_NOTHING = Usage()
_NO_SPREAD = Spread()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One cost line to be: requests of one stage in one tier, with expected and upper tokens.

    The upper ones are what time is planned by; money has its own interval, made of `spread`.
    """

    name: str
    tier: Tier
    n_requests: int = 0
    n_requests_high: int = 0
    usage: Usage = _NOTHING
    usage_high: Usage = _NOTHING
    spread: Spread = _NO_SPREAD
    surcharge: Usage = _NOTHING  # billed on top: a request over the long-context limit costs double
    cap_tokens: int = 0

    def __add__(self, other: Part) -> Part:
        return Part(
            name=self.name,
            tier=self.tier,
            n_requests=self.n_requests + other.n_requests,
            n_requests_high=self.n_requests_high + other.n_requests_high,
            usage=self.usage + other.usage,
            usage_high=self.usage_high + other.usage_high,
            spread=self.spread + other.spread,
            surcharge=self.surcharge + other.surcharge,
            cap_tokens=self.cap_tokens + other.cap_tokens,
        )

    def scaled(self, share: float) -> Part:
        return replace(
            self,
            n_requests=math.ceil(share * self.n_requests),
            n_requests_high=math.ceil(share * self.n_requests_high),
            usage=_scaled(self.usage, share),
            usage_high=_scaled(self.usage_high, share),
            spread=self.spread.scaled(share),
            cap_tokens=math.ceil(share * self.cap_tokens),
        )

    def line(self, price: TierPrice, endpoint: str) -> CostLine:
        return CostLine(
            part=self.name,
            n_requests=self.n_requests,
            usage=self.usage,
            usd=price.cost_usd(self.usage) + price.cost_usd(self.surcharge),
            tier=self.tier,
            endpoint=endpoint,
        )

    def load(self) -> Load:
        return Load(
            tier=self.tier,
            n_requests=self.n_requests_high,
            prompt_tokens=self.usage_high.prompt_tokens,
            cap_tokens=self.cap_tokens,
            completion_tokens=self.usage_high.completion_tokens,
        )


def _scaled(usage: Usage, share: float) -> Usage:
    return Usage(
        prompt_tokens=math.ceil(share * usage.prompt_tokens),
        completion_tokens=math.ceil(share * usage.completion_tokens),
        reasoning_tokens=math.ceil(share * usage.reasoning_tokens),
    )


class Priced(NamedTuple):
    """A part with who is asked, and the price of that."""

    part: Part
    endpoint: Endpoint
    price: TierPrice
