"""A seat of Spark's that hears nothing of its shares any more: it stops, and nobody waits for it for ever."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from small_job import plan

from semtel_batch import plans
from semtel_batch.engines.spark.seats import Job, Lost, Round, Seat
from semtel_batch.transport.shares import Load


class _Way:
    """Stands for the way to endpoints, with lanes that begin between a look at `_is_wanted` and their first call."""

    def __init__(self) -> None:
        self.n_cancelled = 0
        self.is_stopped = threading.Event()

    def loads(self) -> dict[str, Load]:
        return {}

    def allow(self, shares: dict[str, float], densities: object = None) -> None:
        pass

    def cancel(self, shard: object, receipt: object) -> None:
        self.n_cancelled += 1
        if self.n_cancelled > 1:
            self.is_stopped.set()


class _Silent:
    def __init__(self, problem: Exception) -> None:
        self._problem = problem

    def ask(self, what: str, **told: Any) -> dict[str, Any]:
        raise self._problem


@pytest.mark.parametrize(
    ("problem", "is_raised"), [(Lost("no answer"), False), (TimeoutError("the loop is stuck"), True)]
)
def test_a_lane_that_begins_after_the_seat_was_told_to_stop_ends_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: Exception, is_raised: bool
) -> None:
    way = _Way()
    row = cast(Any, SimpleNamespace(row=SimpleNamespace(shard=None)))
    asked = Round((row,), 1)
    seat = Seat(Job(plans.to_json(plan()), tmp_path, tmp_path, tmp_path), asked, _Silent(problem))
    monkeypatch.setattr(seat, "_way", way, raising=False)
    ended: list[bool] = []
    monkeypatch.setattr(seat, "_take_slices", lambda: ended.append(way.is_stopped.wait(20)))
    if is_raised:
        with pytest.raises(TimeoutError, match="the loop is stuck"):
            seat._work_in_lanes()
    else:
        seat._work_in_lanes()
    assert ended == [True, True]
