"""Cut requests into shards that a provider takes: by requests, bytes and enqueued tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from semtel_batch.records import EndpointKind, Tier

Ints = npt.NDArray[np.int64]

# Batch API limits (OpenAI: 50,000 requests and 209,715,200 bytes a file; Azure: 100,000 requests). Five in a hundred of
# the bytes are left free, because a provider's own count has been seen to differ.
_MAX_REQUESTS = {EndpointKind.OPENAI: 50_000, EndpointKind.AZURE: 100_000, EndpointKind.COMPATIBLE: 50_000}
_MAX_BYTES = 209_715_200 * 95 // 100
# A realtime shard is only a unit of book-keeping: small enough to be composed and finished soon.
_REALTIME_REQUESTS = 20_000
_REALTIME_BYTES = 64_000_000
# Beside batches, which are looked at between two realtime shards, it is one of a few minutes.
_BETWEEN_LOOKS_MIN = 3
_BETWEEN_LOOKS_REQUESTS = 5_000  # where no limit says how many that is: five minutes at 16 a second
# A batch that may be taken back, in minutes of realtime: while it is asked there nobody looks at the others.
_CHUNK_MIN = 5
_CHUNK_REQUESTS = 5_000
_MOST_CHUNKS = 100
# The answers of a window's shard are taken in when all of them have ended.
_WINDOW_REQUESTS = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardLimits:
    max_requests: int
    max_bytes: int
    max_tokens: int | None = None  # prompt tokens that may wait at the provider at once


def limits_of(kind: EndpointKind, tier: Tier, enqueued_tokens: int | None) -> ShardLimits:
    """What one shard may hold on an endpoint of this kind in this tier."""
    if tier.is_window:
        return ShardLimits(max_requests=_WINDOW_REQUESTS, max_bytes=_REALTIME_BYTES)
    if tier is not Tier.BATCH:
        return ShardLimits(max_requests=_REALTIME_REQUESTS, max_bytes=_REALTIME_BYTES)
    return ShardLimits(max_requests=_MAX_REQUESTS[kind], max_bytes=_MAX_BYTES, max_tokens=enqueued_tokens)


def between_looks(limits: ShardLimits, rpm: int | None, tpm: int | None) -> ShardLimits:
    """The same for a realtime shard while batches wait: no more than an endpoint takes in a few minutes."""
    return replace(
        limits,
        max_requests=min(limits.max_requests, rpm * _BETWEEN_LOOKS_MIN if rpm else _BETWEEN_LOOKS_REQUESTS),
        max_tokens=tpm * _BETWEEN_LOOKS_MIN if tpm else None,
    )


def in_chunks(limits: ShardLimits, rates: tuple[int | None, int | None], n_requests: int, n_tokens: int) -> ShardLimits:
    """The same for a batch that a deadline may take back: no more than realtime answers in a few minutes.

    `rates`: requests and tokens a minute in realtime; the others: of all that is cut, which becomes no more than a
    hundred shards for it.
    """
    rpm, tpm = rates
    requests = max(rpm * _CHUNK_MIN if rpm else _CHUNK_REQUESTS, -(-n_requests // _MOST_CHUNKS))
    tokens = max(tpm * _CHUNK_MIN, -(-n_tokens // _MOST_CHUNKS)) if tpm else None
    known = [most for most in (limits.max_tokens, tokens) if most is not None]
    return replace(limits, max_requests=min(limits.max_requests, requests), max_tokens=min(known, default=None))


def cut(n_bytes: Ints, n_tokens: Ints, limits: ShardLimits) -> list[tuple[int, int]]:
    """Split requests, in order, into the fewest runs `[start, end)` that keep the limits.

    A single request over a limit gets a run of its own: the provider, not we, says no to it.
    """
    total = len(n_bytes)
    bytes_before = np.concatenate(([0], np.cumsum(n_bytes)))
    tokens_before = np.concatenate(([0], np.cumsum(n_tokens)))
    runs: list[tuple[int, int]] = []
    start = 0
    while start < total:
        end = min(start + limits.max_requests, total)
        end = min(end, _reach(bytes_before, start, limits.max_bytes))
        if limits.max_tokens is not None:
            end = min(end, _reach(tokens_before, start, limits.max_tokens))
        end = max(end, start + 1)
        runs.append((start, end))
        start = end
    return runs


def _reach(before: Ints, start: int, most: int) -> int:
    """The largest end such that the run from start sums to at most `most`."""
    return int(np.searchsorted(before, before[start] + most, side="right")) - 1
