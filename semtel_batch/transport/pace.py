"""What a realtime endpoint is seen to do, second by second: the trace that `report --trace` draws."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median

from semtel_batch.records import Pace

SPAN_S = 1.0
_KEPT = 3_600  # spans that nobody has asked for; older ones go


class _Span:
    """What is counted until the span ends."""

    __slots__ = ("in_flight", "latencies_s", "n_failed", "n_limited", "started_at")

    def __init__(self, started_at: float) -> None:
        self.started_at = started_at
        self.n_limited = self.n_failed = self.in_flight = 0
        self.latencies_s: list[float] = []


class Recorder:
    """Counts one endpoint's replies. `note` belongs to the event loop, `take` to whoever reads the answers."""

    def __init__(self, endpoint: str, *, clock: Callable[[], float]) -> None:
        self._endpoint, self._clock = endpoint, clock
        self._span = _Span(clock())
        self._ended: deque[Pace] = deque(maxlen=_KEPT)
        self._ending = threading.Lock()
        self._limit = 0

    def note(self, status_code: int, latency_s: float, in_flight: int, limit: int) -> None:
        """Count a reply; status 0 stands for none."""
        span = self._span
        if self._clock() - span.started_at >= SPAN_S:
            self.end()
            span = self._span
        self._limit = limit
        span.in_flight = max(span.in_flight, in_flight)
        if status_code == 200:
            span.latencies_s.append(latency_s)
        elif status_code == 429:
            span.n_limited += 1
        else:
            span.n_failed += 1

    def take(self) -> list[Pace]:
        """Give the spans that have ended since the last call."""
        return [self._ended.popleft() for _ in range(len(self._ended))]

    def end(self) -> None:
        """End the span now, as nothing more is to come for a while."""
        now = self._clock()
        with self._ending:  # the loop's thread and the reader's may both find that it is time
            span, self._span = self._span, _Span(now)
        if not (span.latencies_s or span.n_limited or span.n_failed):
            return
        pace = Pace(
            endpoint=self._endpoint,
            at=datetime.now(UTC),
            span_s=now - span.started_at,
            limit=self._limit,
            in_flight=span.in_flight,
            n_answered=len(span.latencies_s),
            n_limited=span.n_limited,
            n_failed=span.n_failed,
            p50_s=median(span.latencies_s) if span.latencies_s else None,
        )
        self._ended.append(pace)
