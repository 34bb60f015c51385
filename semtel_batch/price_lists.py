"""What genai-prices' published lists say, looked up once: US dollars per million tokens."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

import genai_prices
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice

VERSION = genai_prices.__version__

# Small enough that no long-context tier applies; those start at 272,000 input tokens in one request.
_SAMPLE_TOKENS = 1_000
_PER_MTOK = Decimal(1_000_000) / _SAMPLE_TOKENS


class Listed(NamedTuple):
    """US dollars a million tokens."""

    read: Decimal
    cached: Decimal
    written: Decimal
    output: Decimal


@lru_cache(maxsize=1024)
def listed(model: str, provider: str, at: datetime, context: tuple[tuple[str, str], ...]) -> Listed:
    """A model's list prices at a moment; 0 for a part that the list lacks. LookupError for a model that it lacks."""

    def usd(**tokens: int) -> Decimal:
        priced = genai_prices.calc_price(
            genai_prices.Usage(**tokens),
            model,
            provider_id=provider,
            genai_request_timestamp=at,
            price_context=dict(context),
        )
        return (priced.total_price * _PER_MTOK).normalize() + 0  # + 0: no exponent left by normalize

    return Listed(
        read=usd(input_tokens=_SAMPLE_TOKENS),
        cached=usd(input_tokens=_SAMPLE_TOKENS, cache_read_tokens=_SAMPLE_TOKENS),
        written=usd(input_tokens=_SAMPLE_TOKENS, cache_write_tokens=_SAMPLE_TOKENS),
        output=usd(output_tokens=_SAMPLE_TOKENS),
    )


def may_change(model: str, provider: str) -> bool:
    """Whether the list has more than one price of a model, from one day or hour on another; True for one it lacks."""
    try:
        _, found = get_snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        return True
    return not isinstance(found.prices, ModelPrice)
