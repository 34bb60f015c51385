"""Whether a batch shard is sent, waits or is cut smaller."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_job import START

from semtel_batch.queueing import Decision, Move, decide, learned_limit, smallest_limit

SEND, WAIT = Decision(move=Move.SEND), Decision(move=Move.WAIT)
NOW = START + timedelta(hours=1)


def ago(*minutes: float) -> list[object]:
    return [NOW - timedelta(minutes=m) for m in minutes]


def move(tokens: int, waiting: list[int], limit: int | None, refused: list[object], **more: bool) -> Decision:
    return decide(tokens, waiting, limit, refused, NOW, **more)  # type: ignore[arg-type]


def test_an_empty_queue_takes_a_shard() -> None:
    assert move(500, [], None, []) == move(500, [], 500, []) == SEND


def test_the_queue_is_filled_up_to_its_limit_and_no_further() -> None:
    assert move(400, [600], 1_000, []) == SEND
    assert move(401, [600], 1_000, []) == WAIT
    assert move(10**9, [10**9] * 50, None, []) == SEND, "no limit is known"


def test_what_was_turned_away_waits_while_something_of_ours_is_queued() -> None:
    assert move(400, [600], None, ago(600)) == WAIT


@pytest.mark.parametrize(("minutes", "n", "expected"), [(0.9, 1, WAIT), (1, 1, SEND), (1.9, 2, WAIT), (2, 2, SEND)])
def test_what_was_turned_away_by_an_empty_queue_is_tried_again_after_a_pause(
    minutes: float, n: int, expected: Decision
) -> None:
    assert move(10_000, [], None, ago(*range(100, 100 - n + 1, -1), minutes)) == expected


def test_pauses_do_not_grow_for_ever() -> None:
    assert move(10_000, [], None, ago(*[100] * 40, 15)) == SEND


def test_a_shard_larger_than_the_queue_is_cut_into_nearly_equal_pieces() -> None:
    cut = move(2_100, [900], 1_000, [])
    assert cut.move is Move.SPLIT
    assert 700 < cut.max_tokens <= 1_000


def test_a_large_shard_that_an_empty_queue_refuses_twice_is_halved() -> None:
    assert move(100_000, [], None, ago(60)) == SEND
    cut = move(100_000, [], None, ago(60, 30))
    assert cut.move is Move.SPLIT
    assert 50_000 <= cut.max_tokens <= 56_000
    assert move(20_000, [], None, ago(60, 30)) == SEND, "no limit is that small"


def test_a_single_request_is_never_cut() -> None:
    assert move(2_100, [], 1_000, [], can_split=False) == SEND
    assert move(2_100, [10], 1_000, [], can_split=False) == WAIT
    assert move(2_100, [], 1_000, ago(0.5), can_split=False) == WAIT
    assert move(100_000, [], None, ago(60, 30), can_split=False) == SEND


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_pieces_always_fit_and_are_fewer_tokens_than_the_whole(tokens: int, limit: int) -> None:
    decision = move(tokens, [], limit, [])
    if tokens > limit:
        assert decision.move is Move.SPLIT
        assert 0 < decision.max_tokens <= limit < tokens
    else:
        assert decision == SEND


@pytest.mark.parametrize(
    ("message", "limit"),
    [
        ("Enqueued token limit reached for gpt-x in organization o. Limit: 2,000,000 enqueued tokens.", 2_000_000),
        ("exceeds the limit of 30K enqueued tokens", 30_000),
        ("Limit: 1.5M", 1_500_000),
        ("no number here", None),
        ("", None),
    ],
)
def test_the_limit_is_learned_where_a_refusal_names_it(message: str, limit: int | None) -> None:
    assert learned_limit(message) == limit


def test_the_smallest_limit_counts() -> None:
    assert smallest_limit(None, []) is None
    assert smallest_limit(900, ["Limit: 2,000"]) == 900
    assert smallest_limit(9_000, ["nothing", "Limit: 2,000", "Limit: 3,000"]) == 2_000
