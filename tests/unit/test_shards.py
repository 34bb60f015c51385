"""Shards: order kept, limits kept, and no fewer runs possible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semtel_batch.compose.shards import ShardLimits, between_looks, cut, limits_of
from semtel_batch.records import EndpointKind, Tier

sizes = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), max_size=25)
some_limits = st.builds(
    ShardLimits,
    max_requests=st.integers(1, 8),
    max_bytes=st.integers(1, 80),
    max_tokens=st.none() | st.integers(1, 80),
)


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    made = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return made[:, 0], made[:, 1]


def fits(pairs: list[tuple[int, int]], limits: ShardLimits) -> bool:
    n_bytes, n_tokens = (sum(column) for column in zip(*pairs, strict=True))
    tokens_fit = limits.max_tokens is None or n_tokens <= limits.max_tokens
    return len(pairs) <= limits.max_requests and n_bytes <= limits.max_bytes and tokens_fit


def fewest(pairs: list[tuple[int, int]], limits: ShardLimits) -> int:
    """Every way to cut, by dynamic programming: best[i] is the fewest runs of the first i requests."""
    best = [0]
    for end in range(1, len(pairs) + 1):
        starts = [s for s in range(end) if end - s == 1 or fits(pairs[s:end], limits)]
        best.append(1 + min(best[s] for s in starts))
    return best[-1]


@given(sizes, some_limits)
@settings(max_examples=300, deadline=None)
def test_runs_cover_all_in_order_keep_the_limits_and_are_the_fewest(
    pairs: list[tuple[int, int]], limits: ShardLimits
) -> None:
    runs = cut(*columns(pairs), limits)
    assert [i for start, end in runs for i in range(start, end)] == list(range(len(pairs)))
    assert all(end - start == 1 or fits(pairs[start:end], limits) for start, end in runs)
    assert len(runs) == (fewest(pairs, limits) if pairs else 0)


def test_an_oversize_request_stands_alone_and_its_neighbours_share() -> None:
    limits = ShardLimits(max_requests=10, max_bytes=10)
    assert cut(*columns([(4, 1), (4, 1), (11, 1), (4, 1), (4, 1)]), limits) == [(0, 2), (2, 3), (3, 5)]


def test_a_limit_is_still_kept_where_it_is_met_exactly() -> None:
    limits = ShardLimits(max_requests=2, max_bytes=10, max_tokens=7)
    assert cut(*columns([(5, 3), (5, 4), (1, 1)]), limits) == [(0, 2), (2, 3)]


def test_sums_of_a_large_job_do_not_overflow() -> None:
    n_bytes = np.full(200_000, 100_000, dtype=np.uint32).astype(np.int64)
    limits = limits_of(EndpointKind.OPENAI, Tier.BATCH, None)
    runs = cut(n_bytes, n_bytes, limits)
    assert all((end - start) * 100_000 <= 209_715_200 for start, end in runs)
    assert len(runs) == -(-200_000 // (limits.max_bytes // 100_000))


@pytest.mark.parametrize(
    ("kind", "requests"),
    [(EndpointKind.OPENAI, 50_000), (EndpointKind.AZURE, 100_000), (EndpointKind.COMPATIBLE, 50_000)],
)
def test_a_batch_takes_what_the_provider_takes(kind: EndpointKind, requests: int) -> None:
    limits = limits_of(kind, Tier.BATCH, 900_000)
    assert (limits.max_requests, limits.max_tokens) == (requests, 900_000)
    assert limits.max_bytes < 200_000_000  # Azure's smallest reading of 200 MB


def test_realtime_shards_know_no_queue() -> None:
    assert limits_of(EndpointKind.OPENAI, Tier.REALTIME, 900_000).max_tokens is None


def test_beside_batches_a_realtime_shard_is_one_of_a_few_minutes() -> None:
    whole = limits_of(EndpointKind.OPENAI, Tier.REALTIME, None)
    assert between_looks(whole, rpm=500, tpm=None).max_requests == 1_500
    assert between_looks(whole, rpm=None, tpm=200_000).max_tokens == 600_000
    assert between_looks(whole, rpm=None, tpm=None).max_requests < whole.max_requests
    assert between_looks(whole, rpm=1_000_000, tpm=None).max_requests == whole.max_requests
