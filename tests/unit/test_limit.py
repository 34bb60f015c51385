"""Limit policies."""

from __future__ import annotations

from semtel_batch.transport.limit import Fixed, Limit, Sample


def test_fixed_is_moved_by_nothing() -> None:
    limit: Limit = Fixed(7)
    sample = Sample(started_at=1.0, ended_at=3.5, in_flight=7)
    assert sample.latency_s == 2.5
    for through in (limit.success, limit.ignored, limit.dropped):
        assert through(sample).number == 7
