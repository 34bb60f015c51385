"""The concurrency trace on the screen, and its way there through the store."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from small_job import plan

from semtel_batch.console.layout import Page
from semtel_batch.console.trace_view import view_trace
from semtel_batch.records import Pace
from semtel_batch.store import Store
from semtel_batch.transport.pace import Recorder

START = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
QUIET = Pace(
    endpoint="main",
    at=START,
    span_s=1.0,
    limit=8,
    in_flight=4,
    n_answered=40,
    n_limited=0,
    n_failed=0,
    p50_s=0.1,
)


def paces(n: int, first: int = 0, **changes: Any) -> list[Pace]:
    return [replace(QUIET, at=START + timedelta(seconds=first + i), **changes) for i in range(n)]


def drawn(found: list[Pace], *, width: int = 80, ascii_only: bool = False) -> list[str]:
    screen = Console(width=width, record=True, file=StringIO())
    report: Any = SimpleNamespace(trace=tuple(found))
    for view in view_trace(report, Page(width=width, ascii_only=ascii_only)):
        screen.print(view)
    return screen.export_text().splitlines()


def test_what_is_in_flight_stands_below_the_limit() -> None:
    lines = drawn(paces(5))
    assert lines[0] == "main  5 s at work, 0 429s, 0 failures"
    plot = [line[16:21] for line in lines[1:9]]
    assert plot == ["─────", "     ", "     ", "     ", "█████", "█████", "█████", "█████"]
    assert lines[1].split()[0] == "8"
    assert any("answers/s █████ 40" in line for line in lines)
    assert any("latency p50 █████ 0.10 s" in line for line in lines)


def test_a_change_is_seen_where_it_happened() -> None:
    lines = drawn(paces(3) + paces(3, 3, limit=2, in_flight=2, n_limited=4, p50_s=0.4))
    assert lines[0] == "main  6 s at work, 12 429s, 0 failures"
    assert [line[16:22] for line in lines[1:9]][-2:] == ["██████", "██████"]
    assert [line[16:22] for line in lines[1:9]][-3] == "███   "
    assert next(line for line in lines if "429s, failed" in line)[16:22] == "   ███"


@pytest.mark.parametrize("width", [40, 80, 150])
@pytest.mark.parametrize("n", [1, 7, 200, 10_000])
def test_it_fits_the_screen_however_long_the_run(width: int, n: int) -> None:
    assert max(map(len, drawn(paces(n), width=width))) <= width


def test_in_ascii_nothing_else_is_drawn() -> None:
    assert all(line.isascii() for line in drawn(paces(30), ascii_only=True))


def test_each_endpoint_has_its_own_and_none_is_said() -> None:
    lines = drawn(paces(2) + paces(2, endpoint="other"))
    assert [line.split("  ")[0] for line in lines if "at work" in line] == ["main", "other"]
    assert "no trace" in drawn([])[0]


def test_paces_come_back_from_the_store_as_they_were(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = plan()
    store.add_plan(made)
    kept = [QUIET, replace(QUIET, p50_s=None, n_limited=3, n_failed=2, endpoint="other")]
    store.add_paces(made.id, kept)
    store.add_paces(made.id, [])
    assert store.paces(made.id) == kept
    store.close()


def test_a_recorder_ends_a_span_each_second_and_when_it_is_told() -> None:
    now = 100.0
    recorder = Recorder("main", clock=lambda: now)
    for status, latency_s in ((200, 0.1), (200, 0.3), (429, 0.0), (503, 0.0), (0, 1.0), (200, 0.2)):
        recorder.note(status, latency_s, in_flight=5, limit=7)
    assert recorder.take() == []
    now = 101.0
    recorder.note(200, 0.5, in_flight=3, limit=9)
    (first,) = recorder.take()
    assert (first.n_answered, first.n_limited, first.n_failed, first.p50_s) == (3, 1, 2, 0.2)
    assert (first.in_flight, first.limit, first.span_s) == (5, 7, 1.0)
    now = 101.5
    recorder.end()
    recorder.end()
    (last,) = recorder.take()
    assert (last.n_answered, last.in_flight, last.limit, last.span_s) == (1, 3, 9, 0.5)
