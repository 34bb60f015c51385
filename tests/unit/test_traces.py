"""Traces of tasks that ask at the same time are added up; those of one task stay as they are."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from semtel_batch.records import Pace
from semtel_batch.traces import together

START = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
ONE = Pace(
    endpoint="main", at=START, span_s=1.0, limit=8, in_flight=4, n_answered=40, n_limited=1, n_failed=2, p50_s=0.1
)


def paces(n: int, first: float = 0.0, **changes: object) -> list[Pace]:
    return [replace(ONE, at=START + timedelta(seconds=first + i), **changes) for i in range(n)]  # type: ignore[arg-type]


def test_what_one_task_saw_stays_as_it_is() -> None:
    jitter = [replace(pace, at=pace.at - timedelta(seconds=0.1 * (i % 2))) for i, pace in enumerate(paces(6))]
    assert together(jitter) == jitter
    aside = [*jitter, *paces(3, endpoint="other")]
    assert together(aside) == aside
    assert together([]) == []


def test_what_tasks_did_at_the_same_time_is_added_up() -> None:
    found = together([*paces(5, 1.0), *paces(5, 1.0, limit=2, in_flight=1, n_answered=10, p50_s=0.6)])
    assert len(found) == 5
    assert {(one.limit, one.in_flight, one.n_answered, one.n_limited, one.n_failed) for one in found} == {
        (10, 5, 50, 2, 4)
    }
    assert all(one.p50_s == pytest.approx(0.2) for one in found)


def test_nothing_is_lost_where_spans_are_long_short_or_aslant() -> None:
    given = [*paces(7, 0.3), *paces(4, 1.7, span_s=2.5, in_flight=6), *paces(9, 0.6, span_s=0.4)]
    found = together(given)
    for count in ("n_answered", "n_limited", "n_failed"):
        assert sum(getattr(one, count) for one in found) == sum(getattr(one, count) for one in given)
    assert max(one.in_flight for one in found) <= 4 + 3 * 6 + 4
    assert [one.at for one in found] == sorted({one.at for one in found})
