"""The few shapes that every view is made of: headings, facts, tables, bars.

Foreign text reaches a view only through `safe` and as rich `Text`, so that neither its markup nor its escape codes
mean anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from semtel_batch.console.figures import safe

_EIGHTHS = " ▏▎▍▌▋▊▉"
MARGIN = 2
_GAP = 2  # between two columns
_NARROWEST = 4  # of words


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a view must know of the screen."""

    width: int
    ascii_only: bool = False

    @property
    def narrow(self) -> bool:
        return self.width < 100

    @property
    def roomy(self) -> bool:
        return self.width >= 120

    @property
    def wide(self) -> bool:
        return self.width >= 150


def heading(title: str, note: str = "") -> Text:
    text = Text(safe(title), style="bold")
    if note:
        text.append(f"  {safe(note)}", style="dim")
    return text


def facts(pairs: Iterable[tuple[str, str]]) -> RenderableType:
    """Names and values, one a line, the values aligned."""
    grid = Table.grid(Column(no_wrap=True, style="dim"), Column(overflow="fold"), padding=(0, 2, 0, 0))
    for name, value in pairs:
        grid.add_row(Text(name), Text(safe(value)))
    return Padding(grid, (0, 0, 0, MARGIN), expand=False)


def left(name: str, *, wrap: bool = False, least: int = 10) -> Column:
    """A column of words; one that wraps gives way first, but never below so many characters."""
    return Column(Text(name), no_wrap=not wrap, overflow="fold", min_width=least if wrap else None)


def right(name: str) -> Column:
    return Column(Text(name), justify="right", no_wrap=True)


def table(columns: Sequence[Column], rows: Iterable[Sequence[str | Text]]) -> RenderableType:
    """A table with a rule under its head and nothing else drawn."""
    made = Table(
        *columns, box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False, show_edge=False
    )
    return _filled(made, rows)


def chart(columns: Sequence[Column], rows: Iterable[Sequence[str | Text]]) -> RenderableType:
    """A table without a head: labels, bars and figures."""
    return _filled(Table.grid(*columns, padding=(0, 2, 0, 0)), rows)


def _filled(made: Table, rows: Iterable[Sequence[str | Text]]) -> RenderableType:
    widths = [cell_len(str(column.header)) for column in made.columns]
    for row in rows:
        cells = [cell if isinstance(cell, Text) else Text(safe(cell)) for cell in row]
        widths = [max(width, cell.cell_len) for width, cell in zip(widths, cells, strict=True)]
        made.add_row(*cells)
    if not str(made.columns[-1].header):
        widths[-1] = 0  # bars at the end: they give way before a word does
    fixed = [width for width, column in zip(widths, made.columns, strict=True) if column.no_wrap]
    return Padding(_Yielding(made, sum(fixed) + _GAP * (len(widths) - 1)), (0, 0, 0, MARGIN), expand=False)


@dataclass(frozen=True, slots=True)
class _Yielding:
    """A table whose words become narrower than they would like to, before a figure at its edge is cut off."""

    made: Table
    fixed: int  # characters of the columns that can't wrap, and of the gaps

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        words = [column for column in self.made.columns if column.min_width is not None]
        room = options.max_width - self.fixed
        if words and sum(column.min_width or 0 for column in words) > room:
            for column in words:
                column.min_width = min(column.min_width or 0, max(_NARROWEST, room // len(words)))
        yield self.made

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self.made)


def note(text: str, style: str = "") -> RenderableType:
    return Padding(Text(safe(text), style=style), (0, 0, 0, MARGIN))


def points(texts: Iterable[str], marks: Sequence[str] = ("-",), style: str = "") -> RenderableType:
    """One foreign text a point, its lines hanging from its mark; marks start over when they run out."""
    grid = Table.grid(Column(no_wrap=True), Column(overflow="fold"), padding=(0, 1, 0, 0))
    for i, text in enumerate(texts):
        grid.add_row(Text(marks[i % len(marks)], style=style), Text(safe(text)))
    return Padding(grid, (0, 0, 0, MARGIN), expand=False)


def bar(part: float, width: int, page: Page, style: str = "cyan") -> Text:
    """A bar filled to this share, to an eighth of a character where the encoding has them."""
    part = min(max(part, 0.0), 1.0)
    if page.ascii_only:
        return Text(("#" * max(round(part * width), 1 if part else 0)).ljust(width), style=style)
    eighths = max(round(part * width * 8), 1 if part else 0)
    filled = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    return Text(filled.ljust(width), style=style)


def section(title: str, *body: RenderableType, note: str = "") -> Group:
    return Group(heading(title, note), *body, Text(""))
