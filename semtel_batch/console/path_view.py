"""A path of mixes on the screen: what was tried on fresh conversations, step by step, and how far it held."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from semtel_batch.console.figures import count, money, safe, share
from semtel_batch.console.layout import Page, left, note, right, section, table
from semtel_batch.plans import PathStep

_SHOWN = 12  # of a path that is longer, the steps around its end and some of those before


def view_path(steps: Sequence[PathStep], page: Page) -> RenderableType:
    """The steps, safest first: what each costs, what was expected of it, and what fresh conversations said."""
    columns = [right("step"), left("ways", wrap=True, least=12), right("cost"), right("expected"), right("differed")]
    columns += [left("")]
    shown = _shown(steps)
    rows = []
    for number in shown:
        one = steps[number]
        style = "bold green" if one.is_chosen else ""
        cells = [str(number), safe(" + ".join(one.ways)), money(one.usd), share(one.expected), _seen(one), _said(one)]
        rows.append([Text(cell, style=style) for cell in cells])
    left_out = len(steps) - len(shown)
    told = (
        "expected: labels that differ, of the classifier that differs most; cost of the whole job in the cheapest tiers"
    )
    more = [note(f"{count(left_out)} steps between them are left out.", "dim")] if left_out else []
    return section("Path of mixes on fresh conversations", table(columns, rows), *more, note(told, "dim"))


def _shown(steps: Sequence[PathStep]) -> list[int]:
    """The numbers of the steps to show: the first, the last that held, those around it, and every so many else."""
    tried = max((n for n, one in enumerate(steps) if one.different is not None), default=0)
    if len(steps) <= _SHOWN:
        return list(range(len(steps)))
    every = max(1, len(steps) // 6)
    wanted = {0, len(steps) - 1, *range(0, len(steps), every), *range(tried - 2, tried + 2)}
    return sorted(number for number in wanted if 0 <= number < len(steps))


def _seen(one: PathStep) -> str:
    if one.different is None:
        return "–"
    return f"{', '.join(map(str, one.different))} of {count(one.n)}"


def _said(one: PathStep) -> str:
    if one.different is None:
        return "not tried"
    if one.is_chosen:
        return "certified, and planned"
    return "held" if one.is_certified else "did not hold"
