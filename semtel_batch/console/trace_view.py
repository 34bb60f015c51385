"""How realtime endpoints were used, second by second, drawn with blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

from rich.console import RenderableType
from rich.text import Text

from semtel_batch.console.figures import count, duration, several
from semtel_batch.console.layout import MARGIN, Page, note, section
from semtel_batch.records import Pace
from semtel_batch.report import Report

_ROWS = 8  # of the plot of what is in flight
_LABEL = 14  # columns before the plots
_LEVELS, _ASCII_LEVELS = " ▁▂▃▄▅▆▇█", " .:-=+*%#"


@dataclass(frozen=True, slots=True)
class _Column:
    """What one column of the plot stands for: the paces of a stretch of time."""

    limit: int
    in_flight: int
    p50_s: float
    per_s: float
    n_dropped: int


def view_trace(report: Report, page: Page) -> list[RenderableType]:
    """A plot for each endpoint: its limit and what was in flight, pace, latency, 429s and failures."""
    by_endpoint = groupby(sorted(report.trace, key=lambda pace: (pace.endpoint, pace.at)), lambda pace: pace.endpoint)
    views = [_view_endpoint(name, list(paces), page) for name, paces in by_endpoint]
    return views or [note("Nothing was asked in realtime yet, so there is no trace.")]


def _view_endpoint(name: str, paces: Sequence[Pace], page: Page) -> RenderableType:
    columns = _columns(paces, max(page.width - _LABEL - 2 * MARGIN, 16))
    dropped = sum(pace.n_limited for pace in paces), sum(pace.n_failed for pace in paces)
    busy_s = sum(pace.span_s for pace in paces)
    title = f"{duration(busy_s)} at work, {several(dropped[0], '429')}, {several(dropped[1], 'failure')}"
    lines = [
        *_concurrency(columns, page),
        _line("answers/s", columns, lambda c: c.per_s, lambda top: f"{top:,.0f}", page),
        _line("latency p50", columns, lambda c: c.p50_s, lambda top: f"{top:.2f} s", page),
        _line("429s, failed", columns, lambda c: float(c.n_dropped), lambda top: f"{top:,.0f}", page),
        Text(f"{'':{MARGIN + _LABEL}}one column is {duration(busy_s / len(columns))}", style="dim"),
    ]
    return section(name, *lines, note=title)


def _columns(paces: Sequence[Pace], width: int) -> list[_Column]:
    """The paces in at most so many columns, equally many in each but for the last."""
    size = -(-len(paces) // width)
    return [_column(paces[i : i + size]) for i in range(0, len(paces), size)]


def _column(paces: Sequence[Pace]) -> _Column:
    latencies = [pace.p50_s for pace in paces if pace.p50_s is not None]
    return _Column(
        limit=round(median(pace.limit for pace in paces)),
        in_flight=round(median(pace.in_flight for pace in paces)),
        p50_s=median(latencies) if latencies else 0.0,
        per_s=sum(pace.n_answered for pace in paces) / max(sum(pace.span_s for pace in paces), 1e-9),
        n_dropped=sum(pace.n_limited + pace.n_failed for pace in paces),
    )


def _concurrency(columns: Sequence[_Column], page: Page) -> Iterable[Text]:
    """In flight as columns, the limit as a line above them."""
    top = max(max(c.limit, c.in_flight) for c in columns)
    rule = "-" if page.ascii_only else "─"
    for row in range(_ROWS, 0, -1):
        low, high = top * (row - 1) / _ROWS, top * row / _ROWS
        label = count(top) if row == _ROWS else "in flight" if row == 1 else ""
        text = Text(f"{'':{MARGIN}}{label:>{_LABEL - 1}} ", style="dim")
        for c in columns:
            cell = _level((c.in_flight - low) / (high - low), page)
            text.append(*((rule, "yellow") if cell == " " and low < c.limit <= high else (cell, "cyan")))
        yield text


def _line(
    name: str, columns: Sequence[_Column], of: Callable[[_Column], float], shown: Callable[[float], str], page: Page
) -> Text:
    """One figure as a row of blocks, with the most of it."""
    top = max(map(of, columns))
    text = Text(f"{'':{MARGIN}}{name:>{_LABEL - 1}} ", style="dim")
    text.append("".join(_level(of(c) / top if top else 0.0, page) for c in columns), style="green")
    text.append(f" {shown(top)}", style="dim")
    return text


def _level(part: float, page: Page) -> str:
    levels = _ASCII_LEVELS if page.ascii_only else _LEVELS
    part = min(max(part, 0.0), 1.0)
    return levels[max(round(part * (len(levels) - 1)), 1 if part > 0 else 0)]
