"""Charts as SVG of their own (matplotlib), in colours that follow the page's light or dark scheme.

Text stays text, so that it can be read, found and enlarged. Whatever stands in a label is drawn as it is: neither
mathematics nor markup.
"""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH_IN = 7.6
# Colours that nothing else has; each becomes a variable of the page's style sheet.
_INK, _FAINT, _MAIN, _OTHER, _WARM = "#010203", "#020304", "#030405", "#040506", "#050607"
_VARIABLES = {_INK: "--ink", _FAINT: "--faint", _MAIN: "--main", _OTHER: "--other", _WARM: "--warm"}

_REFERENCE = re.compile(r'\bid="|href="#|url\(#')

_STYLE: Any = {  # matplotlib types its settings by name, one by one
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _FAINT,
    "grid.linewidth": 0.5,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One bar: its name, its value, and its interval where it has one."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a chart over time, cost or length; `steps` where a value holds until the next."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    steps: bool = False
    marker: str = ""  # at each point, as matplotlib names it


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One way to ask: what it costs and what it may change."""

    name: str
    x: float
    y: float
    chosen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One way to ask: what it costs, and what it keeps as seen (with its interval) or as assumed."""

    name: str
    x: float
    y: float
    low: float
    high: float
    is_seen: bool
    is_chosen: bool = False


def bars(key: str, title: str, rows: Sequence[Row], unit: str) -> str:
    """Horizontal bars, the first on top, with whiskers where there are intervals."""
    figure, axes = _figure(0.5 + 0.27 * max(len(rows), 1))
    names = [_short(row.name) for row in rows]
    axes.barh(range(len(rows)), [row.value for row in rows], color=_MAIN, height=0.66)
    for place, row in enumerate(rows):
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [place, place], color=_INK, linewidth=1.2, solid_capstyle="butt")
    axes.set_yticks(range(len(rows)), names)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    return _svg(figure, key, title)


def pairs(
    key: str,
    title: str,
    rows: Sequence[tuple[str, float, float]],
    unit: str,
    names: tuple[str, str] = ("planned", "paid"),
) -> str:
    """Two bars a row, such as planned and paid."""
    figure, axes = _figure(0.9 + 0.5 * max(len(rows), 1))
    places = range(len(rows))
    axes.barh([p - 0.19 for p in places], [row[1] for row in rows], height=0.34, color=_OTHER, label=names[0])
    axes.barh([p + 0.19 for p in places], [row[2] for row in rows], height=0.34, color=_MAIN, label=names[1])
    axes.set_yticks(places, [_short(row[0]) for row in rows])
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    _legend(axes)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    return _svg(figure, key, title)


def lines(key: str, title: str, drawn: Sequence[Line], x_unit: str, y_unit: str) -> str:
    """Lines over one axis, told apart by colour and by dashes."""
    figure, axes = _figure(2.4)
    colours, dashed = (_MAIN, _WARM, _OTHER), ("-", "--", ":")
    looks = [(colours[i % 3], dashed[(i + i // 3) % 3]) for i in range(9)]
    for line, (colour, dashes) in zip(drawn, itertools.cycle(looks), strict=False):
        style = "steps-post" if line.steps else "default"
        axes.plot(
            line.x,
            line.y,
            dashes,
            color=colour,
            linewidth=1.8,
            label=_short(line.name),
            drawstyle=style,
            marker=line.marker,
        )
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x_unit)
    axes.set_ylabel(y_unit)
    axes.grid()
    if len(drawn) > 1:
        _legend(axes)
    return _svg(figure, key, title)


def points(
    key: str, title: str, drawn: Sequence[Point], frontier: Sequence[tuple[float, float]], units: tuple[str, str]
) -> str:
    """Ways to ask, the chosen one marked and named, the best trades joined; the table below names the others."""
    figure, axes = _figure(3.0)
    others = [point for point in drawn if not point.chosen]
    axes.scatter([p.x for p in others], [p.y for p in others], s=26, color=_OTHER, label="considered")
    for point in drawn:
        if point.chosen:
            axes.scatter([point.x], [point.y], s=90, marker="D", color=_MAIN, label=f"chosen: {_short(point.name)}")
    if frontier:
        axes.plot(*zip(*sorted(frontier), strict=True), "--", color=_WARM, linewidth=1.4, label="best trades")
    axes.set_xlim(left=0)
    highest = max(point.y for point in drawn)
    axes.set_ylim(-0.04 * max(highest, 5.0), 1.08 * max(highest, 5.0))
    axes.set_xlabel(units[0])
    axes.set_ylabel(units[1])
    axes.grid()
    _legend(axes)
    return _svg(figure, key, title)


def readings(
    key: str, title: str, drawn: Sequence[Reading], best: Sequence[tuple[float, float]], units: tuple[str, str]
) -> str:
    """What was seen as dots with whiskers, what is assumed as rings, the best trades joined."""
    figure, axes = _figure(3.2)
    assumed, seen = ([one for one in drawn if one.is_seen is kind] for kind in (False, True))
    if assumed:
        axes.scatter(
            [p.x for p in assumed], [p.y for p in assumed], s=26, facecolors="none", edgecolors=_OTHER, label="assumed"
        )
    for one in seen:
        axes.plot([one.x, one.x], [one.low, one.high], color=_INK, linewidth=0.8)
    if seen:
        axes.scatter([p.x for p in seen], [p.y for p in seen], s=30, color=_MAIN, label="measured or equal")
    for one in drawn:
        if one.is_chosen:
            axes.scatter([one.x], [one.y], s=90, marker="D", color=_WARM, label=f"chosen: {_short(one.name)}")
    if len(best) > 1:
        axes.plot(*zip(*best, strict=True), "--", color=_WARM, linewidth=1.4, label="most for the money")
    axes.set_xlim(left=0)
    axes.set_ylim(top=103)
    axes.set_xlabel(units[0])
    axes.set_ylabel(units[1])
    axes.grid()
    _legend(axes)
    return _svg(figure, key, title)


def _legend(axes: Axes) -> None:
    """Above the chart, where it covers nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, labelcolor=_INK, frameon=False, borderaxespad=0.2)


def _figure(height_in: float) -> tuple[Figure, Axes]:
    import matplotlib as mpl  # takes half a second to load, which only a page needs
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        return figure, figure.add_subplot()


def _svg(figure: Figure, key: str, title: str) -> str:
    """The figure as an SVG element whose ids begin with `key`, with a name for who can't see it."""
    import matplotlib as mpl

    drawn = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": key}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of glyphs that matplotlib's font lacks: the reader's has them
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = drawn.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r"<[^<>]+>", lambda tag: _REFERENCE.sub(rf"\g<0>{key}-", tag[0]), text)  # not what labels say
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    head, _, rest = text.partition(">")
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-labelledby="{key}-title"><title id="{key}-title">{escape(title)}</title>{rest}'


def _short(name: str, most: int = 40) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
