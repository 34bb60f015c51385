"""Traces of several tasks that asked the same endpoint at the same time, put together as if one had asked."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from semtel_batch.records import Pace

_TOUCHING = 0.2  # of a span: spans of one task follow one another, but for the jitter of two clocks


def together(paces: Iterable[Pace]) -> list[Pace]:
    """What all tasks did at each endpoint, second by second: what is in flight and allowed, and counts, are added up.

    `paces` in the order in which they were written down. Those of an endpoint that one task alone has asked at a time
    come back as they are, in that order.
    """
    by_endpoint: dict[str, list[Pace]] = defaultdict(list)
    for pace in paces:
        by_endpoint[pace.endpoint].append(pace)
    found: list[Pace] = []
    for name, own in by_endpoint.items():
        found += _added(name, own) if _overlap(own) else own
    return found


def _ends(pace: Pace) -> tuple[float, float]:
    end = pace.at.timestamp()
    return end - pace.span_s, end


def _overlap(paces: Sequence[Pace]) -> bool:
    """Whether any two were seen at the same time."""
    last = -math.inf
    for start, end in sorted(map(_ends, paces)):
        if last - start > _TOUCHING * (end - start):
            return True
        last = max(last, end)
    return False


@dataclass(slots=True)
class _Second:
    in_flight: float = 0.0
    limit: float = 0.0
    ended: list[Pace] = field(default_factory=list)


def _added(name: str, paces: Sequence[Pace]) -> Iterator[Pace]:
    """Levels count for as much of a second as they lasted, answers for the second in which their span ended."""
    seconds: dict[int, _Second] = defaultdict(_Second)
    for pace in paces:
        start, end = _ends(pace)
        for number in range(math.floor(start), math.ceil(end)):
            lasted_s = min(end, number + 1) - max(start, number)
            seconds[number].in_flight += pace.in_flight * lasted_s
            seconds[number].limit += pace.limit * lasted_s
        seconds[math.ceil(end) - 1].ended.append(pace)
    for number, second in sorted(seconds.items()):
        latencies = [(pace.n_answered, pace.p50_s) for pace in second.ended if pace.p50_s is not None]
        n_timed = sum(n for n, _ in latencies)
        yield Pace(
            endpoint=name,
            at=datetime.fromtimestamp(number + 1, UTC),
            span_s=1.0,
            limit=round(second.limit),
            in_flight=round(second.in_flight),
            n_answered=sum(pace.n_answered for pace in second.ended),
            n_limited=sum(pace.n_limited for pace in second.ended),
            n_failed=sum(pace.n_failed for pace in second.ended),
            p50_s=sum(n * p50_s for n, p50_s in latencies) / n_timed if n_timed else None,
        )
