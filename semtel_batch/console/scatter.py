"""A plot of characters: dots with marks over two axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from semtel_batch.console.layout import MARGIN, Page

_ROWS = 12
_WIDE_RANGE = 20  # from here on, what is on the x axis is plotted on a logarithmic scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A mark at a place; those that `stand_out` are drawn first, and keep theirs."""

    x: float
    y: float
    mark: str
    style: str = "cyan"
    stands_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """What is written at the ends: of x from least to most, of y likewise, and what y is."""

    x: tuple[str, str]
    y: tuple[str, str]
    name: str


def scatter(dots: Sequence[Dot], axes: Axes, page: Page) -> RenderableType:
    """x to the right, y upwards; a mark that would hide another moves beside it."""
    width = max(24, min(page.width - 2 * MARGIN - 11, 84))
    across = [one.x for one in dots]
    xs = _places(across, width, is_log=min(across) > 0 and max(across) / min(across) > _WIDE_RANGE)
    ys = _places([one.y for one in dots], _ROWS, is_log=False)
    grid = [[Text(" ") for _ in range(width)] for _ in range(_ROWS)]
    for one, x, y in sorted(zip(dots, xs, ys, strict=True), key=lambda placed: not placed[0].stands_out):
        column, row = _free(grid, x, y)
        grid[row][column] = Text(one.mark, style=one.style)
    rule, corner, dash = ("|", "+", "-") if page.ascii_only else ("│", "└", "─")
    lines = []
    for row in range(_ROWS - 1, -1, -1):
        name = {_ROWS - 1: axes.y[1], 0: axes.y[0]}.get(row, "")
        lines.append(Text.assemble((f"{name:>8} {rule}", "dim"), *grid[row]))
    low, high = axes.x
    lines.append(Text(f"{'':8} {corner}{dash * width}", style="dim"))
    lines.append(Text(f"{axes.name:>8}  {low}{high:>{max(1, width - len(low))}}", style="dim"))
    return Padding(Text("\n").join(lines), (0, 0, 0, MARGIN))


def _places(values: Sequence[float], n: int, *, is_log: bool) -> list[int]:
    """Where on a line of n places each value lies."""
    scaled = [math.log(value) for value in values] if is_log else list(values)
    low, span = min(scaled), max(scaled) - min(scaled)
    return [round((value - low) / span * (n - 1)) if span else 0 for value in scaled]


def _free(grid: Sequence[Sequence[Text]], x: int, y: int) -> tuple[int, int]:
    """The place itself, or the nearest free one: to the right, then to the left, then in the row above."""
    width = len(grid[0])
    rows = [y, *range(y + 1, len(grid)), *range(y - 1, -1, -1)]
    for row in rows:
        for column in sorted(range(width), key=lambda c: (abs(c - x), -c))[:7]:
            if grid[row][column].plain == " ":
                return column, row
    return x, y
