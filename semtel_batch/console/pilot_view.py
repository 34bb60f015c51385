"""What a pilot over mixes found, on the screen and in JSON."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from rich.console import RenderableType

from semtel_batch.console.figures import safe
from semtel_batch.console.layout import Page, note, section
from semtel_batch.console.path_view import view_path
from semtel_batch.measurements import MixPath, Pilot
from semtel_batch.planner import promise
from semtel_batch.planner.certified import path_steps


def view_pilot(pilot: Pilot, page: Page) -> Iterator[RenderableType]:
    """What a pilot over mixes found, and what a plan will take."""
    path = pilot.mixes
    assert path is not None
    yield view_path(path_steps(pilot), page)
    lines = []
    if path.certified is not None:
        lines += [note(safe(one.wording)) for one in promise.mix_certificates(pilot)]
        lines.append(note(f"`plan --min-agreement {pilot.min_agreement:g}` takes this mix on this data."))
    else:
        lines.append(note("Nothing is certified."))
    if pilot.stopped:
        lines.append(note(f"Stopped: {safe(pilot.stopped)}.", "dim"))
    yield section("Certified on fresh conversations", *lines)


def path_as_json(pilot: Pilot) -> dict[str, Any] | None:
    """A path with everything that was counted."""
    path = pilot.mixes
    if path is None:
        return None
    return {
        "n": path.n,
        "n_asked": path.n_asked,
        "population": path.population,
        "n_distinct": path.n_distinct,
        "seed": path.seed,
        "edges": path.edges,
        "classifiers": pilot.classifiers,
        "ways": [_way(path, number) for number in range(len(path.ways))],
        "steps": [
            {
                "usd": str(Decimal(repr(round(one.usd, 6)))),
                "expected": one.expected,
                "different": one.different,
                "is_certified": one.is_certified,
                "shares": [
                    {"way": s.way, "stratum": s.stratum, "low": s.low, "high": s.high, "expected": s.expected}
                    for s in one.shares
                ],
            }
            for one in path.steps
        ],
        "certified": None if path.certified is None else path.steps.index(path.certified),
        "wording": [one.wording for one in promise.mix_certificates(pilot)] if path.certified is not None else [],
    }


def _way(path: MixPath, number: int) -> dict[str, Any]:
    one = path.ways[number]
    strategy = one.strategy
    return {
        "recipe": one.recipe,
        "model": one.model,
        "conversations_per_request": strategy.conversations_per_request,
        "groups": [len(group) for group in one.groups],
        "truncate_to": strategy.truncate_to,
        "keep": strategy.keep.value,
        "doubt": strategy.doubt.value,
        "n_tried": one.n_tried,
    }
