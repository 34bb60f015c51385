"""Decide whether a batch shard is sent now, waits, or is cut smaller, by what the provider's queue holds. Pure.

A provider counts the prompt tokens of a model's unfinished batches against a limit. A batch over it is accepted and
fails a little later, unbilled (facts: openai-python#2084), or is refused at once (Azure). Neither says when there
will be room, and other projects may share the queue.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

_FIRST_WAIT = timedelta(minutes=1)
_LONGEST_WAIT = timedelta(minutes=15)
_PATIENCE = 2  # refusals with nothing of ours in the queue before the shard itself is held too large
_LAST_REFUSAL = 12  # in a row, some two hours: to go on in silence would be to hang
_SMALLEST_TOKENS = 20_000  # below this no limit that was ever seen binds; halving on would only make more batches
# The only place where the number stands: "Limit: 2,000,000 enqueued tokens" (OpenAI), "limit of 30K" (Azure).
_LIMIT = re.compile(r"[Ll]imit(?:: | of )([\d,]+(?:\.\d+)?)\s*([KMB]?)\b")
_UNITS = {"": 1, "K": 1_000, "M": 1_000_000, "B": 1_000_000_000}


class Move(StrEnum):
    SEND = "send"
    WAIT = "wait"
    SPLIT = "split"
    GIVE_UP = "give up"  # for now: somebody has to make room


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    move: Move
    max_tokens: int = 0  # with SPLIT: what a piece may hold


def decide(
    shard_tokens: int,
    waiting_tokens: Sequence[int],
    limit: int | None,
    refused_at: Sequence[datetime],
    now: datetime,
    *,
    can_split: bool = True,
) -> Decision:
    """What to do with a shard of `shard_tokens`, with batches of ours of `waiting_tokens` in the same queue.

    `limit` is the smallest that is known, configured or learned; `refused_at` is when this shard was turned away. A
    shard of one request can't be cut: it goes out when nothing else of ours is in the queue.
    """
    if limit is not None and shard_tokens > limit > 0 and can_split:
        return _split(shard_tokens, limit)
    if waiting_tokens:
        fits = limit is None or sum(waiting_tokens) + shard_tokens <= limit
        return Decision(move=Move.SEND if fits and not refused_at else Move.WAIT)
    if not refused_at:
        return Decision(move=Move.SEND)
    if len(refused_at) >= _PATIENCE and limit is None and shard_tokens > _SMALLEST_TOKENS and can_split:
        return _split(shard_tokens, shard_tokens // 2)
    if len(refused_at) % _LAST_REFUSAL == 0 and now < refused_at[-1] + _FIRST_WAIT:
        return Decision(move=Move.GIVE_UP)
    return Decision(move=Move.SEND if now >= refused_at[-1] + _pause(len(refused_at)) else Move.WAIT)


def learned_limit(message: str) -> int | None:
    """The number of tokens in a provider's refusal, if it names one."""
    found = _LIMIT.search(message)
    return int(float(found[1].replace(",", "")) * _UNITS[found[2]]) if found else None


def _pause(n_refusals: int) -> timedelta:
    doublings: int = 2 ** min(n_refusals - 1, 10)
    return min(_FIRST_WAIT * doublings, _LONGEST_WAIT)


def _split(shard_tokens: int, most: int) -> Decision:
    # Nearly equal pieces: one just below the limit would leave a crumb of a batch behind it. The tenth on top is for
    # requests being whole.
    n_pieces = -(-shard_tokens // most)
    return Decision(move=Move.SPLIT, max_tokens=min(most, shard_tokens * 11 // (n_pieces * 10) + 1))


def smallest_limit(configured: int | None, messages: Iterable[str]) -> int | None:
    """The least number of tokens that is known to fit: as configured, or as any refusal named it."""
    known = [configured, *(learned_limit(message) for message in messages)]
    return min((limit for limit in known if limit is not None), default=None)
