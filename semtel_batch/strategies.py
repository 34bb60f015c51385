"""Recipes: .toml grids over a strategy's parameters, each with the published evidence for what it does to labels.

A recipe says *how one may ask*; the planner says which of them pays. Evidence is held per lever (packing, combining,
truncating, compressing), because that is how it was published. Levers used together add up, capped at one: nobody has
measured the combinations, and adding is the safe reading.
"""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from semtel_batch.errors import BadStrategy
from semtel_batch.network_plan import DISTILLED
from semtel_batch.parameters import BOUNDED, PARAMETERS, is_number
from semtel_batch.plans import Quality
from semtel_batch.records import Doubt, Strategy, Tier
from semtel_batch.resources import read_small, shipped

MAX_GRID = 500
# Assumed until `calibrate` has measured one: label tokens are near 1 where a model is sure, so this flags few of those.
CONFIDENCE_BELOW = 0.9


class Lever(StrEnum):
    """A way to save money that may change labels."""

    PACKING = "packing"
    COMBINING = "combining"
    TRUNCATING = "truncating"
    COMPRESSING = "compressing"
    DECIDING = "deciding"  # typed decisions instead of a written answer
    CASCADING = "cascading"  # another model first, and the reference only for what is doubtful


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Which values of a parameter a piece of evidence speaks for, both ends included."""

    parameter: str
    low: float
    high: float

    def holds(self, strategy: Strategy) -> bool:
        value = getattr(strategy, self.parameter)
        if self.parameter == "classifiers_per_request" and strategy.groups:
            value = max(map(len, strategy.groups))
        return value is not None and self.low <= value <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One published, or assumed, figure: the share of labels a lever changes where `when` holds.

    For truncation it is the share among the conversations that are cut.
    """

    lever: Lever
    label_change: float
    n: int  # items it was counted on; 0: a guess, or not published
    source: str
    assumed: bool
    when: tuple[Bounds, ...] = ()

    def speaks_for(self, strategy: Strategy) -> bool:
        return all(bounds.holds(strategy) for bounds in self.when)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A named grid of strategies and what is known of them."""

    name: str
    summary: str
    grid: tuple[tuple[str, tuple[Any, ...]], ...]
    evidence: tuple[Evidence, ...]
    path: Path

    def strategies(self) -> tuple[Strategy, ...]:
        """Every point of the grid, in the file's order and each once."""
        names = [name for name, _ in self.grid]
        points = itertools.product(*(values for _, values in self.grid))
        made = (_strategy(self.name, dict(zip(names, point, strict=True))) for point in points)
        return tuple(dict.fromkeys(made))

    def label_change(self, strategy: Strategy, *, cut_share: float = 1.0) -> Quality:
        """What this recipe's evidence says of a strategy; a lever without any counts as changing every label."""
        levers = levers_of(strategy)
        if not levers:
            return Quality(label_change=0.0, assumed=False, basis=_BY_CONSTRUCTION)
        found = [self._worst(lever, strategy) for lever in levers]
        total = sum(_share(lever, one, cut_share) for lever, one in zip(levers, found, strict=True))
        basis = "; ".join(_told(lever, one) for lever, one in zip(levers, found, strict=True))
        return Quality(label_change=min(1.0, total), assumed=True, basis=basis)

    def _worst(self, lever: Lever, strategy: Strategy) -> Evidence | None:
        matching = [one for one in self.evidence if one.lever == lever and one.speaks_for(strategy)]
        return max(matching, key=lambda one: one.label_change, default=None)


_BY_CONSTRUCTION = "by construction: the same request as the naive way's"


def levers_of(strategy: Strategy) -> tuple[Lever, ...]:
    """The levers of a strategy that may change labels."""
    used = {
        Lever.PACKING: strategy.conversations_per_request > 1,
        Lever.COMBINING: strategy.combines,
        Lever.TRUNCATING: strategy.truncate_to is not None,
        Lever.COMPRESSING: strategy.compress_rate is not None,
        Lever.DECIDING: strategy.tier is Tier.DECISIONS,
        Lever.CASCADING: strategy.escalate is not None,
    }
    return tuple(lever for lever, is_used in used.items() if is_used)


def bare(strategy: Strategy) -> Strategy:
    """A strategy without what says nothing of labels: where it is written down, and its price."""
    tier = strategy.tier if strategy.tier is Tier.DECISIONS else Tier.REALTIME  # asked in another way, not only priced
    return replace(strategy, recipe="", tier=tier, model=None)


def ungrouped(strategy: Strategy) -> Strategy:
    """A strategy whatever classifiers shared its prompts: that is told by their versions (`companions`)."""
    return replace(strategy, classifiers_per_request=1, groups=())


def one_by_one(strategy: Strategy) -> tuple[Strategy, ...]:
    """The strategies that use one lever of this one each; a way to doubt goes with packing, which it is there for."""
    if strategy.escalate is not None:  # what two models do to labels together, no lever does alone
        return (bare(strategy),)
    naive = Strategy(recipe="", tier=Tier.REALTIME)
    doubting = replace(naive, doubt=strategy.doubt, confidence_below=strategy.confidence_below)
    alone = {
        Lever.PACKING: replace(doubting, conversations_per_request=strategy.conversations_per_request),
        Lever.COMBINING: replace(
            naive, classifiers_per_request=strategy.classifiers_per_request, groups=strategy.groups
        ),
        Lever.TRUNCATING: replace(naive, truncate_to=strategy.truncate_to, keep=strategy.keep),
        Lever.COMPRESSING: replace(naive, compress_rate=strategy.compress_rate, compressor=strategy.compressor),
        Lever.DECIDING: replace(naive, tier=Tier.DECISIONS),
    }
    return tuple(alone[lever] for lever in levers_of(strategy))


def _share(lever: Lever, one: Evidence | None, cut_share: float) -> float:
    change = 1.0 if one is None else one.label_change
    return change * cut_share if lever is Lever.TRUNCATING else change


def _told(lever: Lever, one: Evidence | None) -> str:
    if one is None:
        return f"{lever}: no evidence for these values, so every label counts as changed"
    counted = f", n={one.n}" if one.n else ""
    of_cut = " of those cut" if lever is Lever.TRUNCATING else ""
    return f"{lever}: {100 * one.label_change:.1f} %{of_cut} ({one.source}{counted})"


def _strategy(recipe: str, values: dict[str, Any]) -> Strategy:
    # What truncation keeps means nothing where nothing is cut; one spelling, so that the point is listed once.
    if values.get("truncate_to") is None:
        values.pop("keep", None)
    if values.get("compress_rate") is None:
        values.pop("compressor", None)
    else:
        values.setdefault("compressor", "rules")
    if values.pop("grade", False):  # as recipes said it when there was only this way to doubt
        values["doubt"] = Doubt.GRADER
    if values.get("doubt") is not Doubt.CONFIDENCE:
        values.pop("confidence_below", None)
    else:
        values.setdefault("confidence_below", CONFIDENCE_BELOW)
    if values.get("doubt", Doubt.NONE) is Doubt.NONE:
        values.pop("escalate", None)  # without a doubt there is nothing to escalate
    return Strategy(recipe=recipe, **values)


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def find(names_or_paths: Iterable[str | Path], folder: Path | None = None) -> tuple[Recipe, ...]:
    """Load the recipes named; none named means all there are.

    A name is looked up in the project's `folder` first, then among those shipped; what ends in .toml is a path.
    """
    wanted = tuple(names_or_paths)
    known = _known(folder)
    files = [_file(one, known) for one in wanted] if wanted else [known[name] for name in sorted(known)]
    return tuple(load(file) for file in dict.fromkeys(files))


def _known(folder: Path | None) -> dict[str, Path]:
    folders = [shipped("strategies")] + ([folder] if folder is not None and folder.is_dir() else [])
    return {file.stem: file for one in folders for file in sorted(one.glob("*.toml"))}


def _file(name_or_path: str | Path, known: Mapping[str, Path]) -> Path:
    text = str(name_or_path)
    if text in known:
        return known[text]
    if text == DISTILLED:
        raise BadStrategy(
            f"{DISTILLED!r} is no recipe to be measured: networks are certified by distill; name it for plan or run."
        )
    if Path(text).is_file():
        return Path(text)
    if text.endswith(".toml"):
        raise BadStrategy(
            f"{text}: no such recipe file; give a path that exists, or one of: {', '.join(sorted(known))}."
        )
    raise BadStrategy(
        f"There is no strategy {text!r}; there are: {', '.join(sorted((*known, DISTILLED)))}, or give a .toml file."
    )


def load(path: Path) -> Recipe:
    """Read and check one recipe."""
    document = _document(path)
    _only(document, {"name", "summary", "grid", "evidence"}, path, "")
    name = _name(document, path)
    grid = _grid(document.get("grid"), path)
    evidence = document.get("evidence", [])
    if not isinstance(evidence, list):
        raise _bad(path, "evidence", "is not a list of tables; write each one under [[evidence]]")
    return Recipe(
        name=name,
        summary=_text(document, "summary", path, ""),
        grid=grid,
        evidence=tuple(_evidence(one, path, f"evidence[{i}].") for i, one in enumerate(evidence, 1)),
        path=path,
    )


def _document(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_small(path))
    except OSError as error:
        raise BadStrategy(f"{path}: can't be read ({error.strerror}); give a recipe file that can.") from error
    except UnicodeDecodeError as error:
        raise BadStrategy(f"{path}: is not UTF-8 text; save it as UTF-8.") from error
    except (ValueError, RecursionError) as error:  # tomllib lets through what int() and the stack refuse
        raise BadStrategy(f"{path}: is not valid TOML: {error}; correct it there.") from error


def _name(document: Mapping[str, Any], path: Path) -> str:
    name = _text(document, "name", path, "")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise _bad(path, "name", f"is {name!r}; use lower-case letters, digits and hyphens")
    # Looked up by file name and shown by name: two that differ would make a user change the wrong file.
    if name != path.stem:
        raise _bad(path, "name", f"is {name!r}, but the file is called {path.name}; make them the same")
    return name


def _grid(table: Any, path: Path) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    if not isinstance(table, dict) or "tier" not in table:
        raise _bad(path, "grid", 'is missing its tier; write [grid] and below it, say, tier = ["batch"]')
    _only(table, set(PARAMETERS), path, "grid.")
    if "grade" in table and "doubt" in table:
        raise _bad(path, "grid.grade", 'stands beside doubt; leave it out and write doubt = ["grader"]')
    if "groups" in table and "classifiers_per_request" in table:
        raise _bad(
            path, "grid.groups", "stands beside classifiers_per_request; one of the two says who shares a prompt"
        )
    if "escalate" in table and not (table.get("grade") or set(_listed(table.get("doubt", []))) - {Doubt.NONE.value}):
        raise _bad(path, "grid.escalate", 'stands without a way to doubt; write, say, doubt = ["confidence"]')
    grid = tuple((key, _values(key, value, path)) for key, value in table.items())
    size = math.prod(len(values) for _, values in grid)
    if size > MAX_GRID:
        raise _bad(path, "grid", f"has {size} points, more than {MAX_GRID}; shorten its lists or split the recipe")
    return grid


def _listed(value: Any) -> list[Any]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]


def _values(key: str, value: Any, path: Path) -> tuple[Any, ...]:
    read, allowed = PARAMETERS[key]
    listed = value if isinstance(value, list) and not _is_one_grouping(key, value) else [value]
    if not listed:
        raise _bad(path, f"grid.{key}", f"is an empty list; give at least one of: {allowed}")
    try:
        return tuple(dict.fromkeys(read(one) for one in listed))
    except (TypeError, ValueError) as error:
        raise _bad(path, f"grid.{key}", f"is {value!r}; allowed: {allowed}") from error


def _is_one_grouping(key: str, value: list[Any]) -> bool:
    """A grouping is a list of lists by itself; a list of them is a level deeper."""
    deeper = value and isinstance(value[0], list) and value[0] and isinstance(value[0][0], list)
    return key == "groups" and bool(value) and not deeper


def _evidence(table: Any, path: Path, where: str) -> Evidence:
    if not isinstance(table, dict):
        raise _bad(path, where.rstrip("."), "is not a table; write it under [[evidence]]")
    _only(table, {"lever", "label_change", "n", "source", "assumed", "when"}, path, where)
    when = table.get("when", {})
    if not isinstance(when, dict):
        raise _bad(path, f"{where}when", "is not a table; write when = { conversations_per_request = [2, 10] }")
    return Evidence(
        lever=_lever(table, path, where),
        label_change=_number(table, "label_change", path, where, high=1.0),
        n=int(_number(table, "n", path, where, high=math.inf, default=0)),
        source=_text(table, "source", path, where),
        assumed=_flag(table, "assumed", path, where),
        when=tuple(_bounds(key, value, path, where) for key, value in when.items()),
    )


def _lever(table: Mapping[str, Any], path: Path, where: str) -> Lever:
    try:
        return Lever(table.get("lever", ""))
    except ValueError as error:
        allowed = ", ".join(Lever)
        raise _bad(path, f"{where}lever", f"is {table.get('lever')!r}; allowed: {allowed}") from error


def _bounds(key: str, value: Any, path: Path, where: str) -> Bounds:
    named = f"{where}when.{key}"
    if key not in BOUNDED:
        raise _bad(path, named, f"is not a number a strategy has; allowed: {', '.join(BOUNDED)}")
    numbers = value if isinstance(value, list) else [value, value]
    if len(numbers) != 2 or not all(is_number(one) for one in numbers) or numbers[0] > numbers[1]:
        raise _bad(path, named, f"is {value!r}; give one number, or the lowest and the highest as [low, high]")
    return Bounds(parameter=key, low=float(numbers[0]), high=float(numbers[1]))


def _text(table: Mapping[str, Any], key: str, path: Path, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value.strip():
        raise _bad(path, where + key, "is missing or empty; it takes a text")
    return value


def _flag(table: Mapping[str, Any], key: str, path: Path, where: str) -> bool:
    value = table.get(key, True)
    if not isinstance(value, bool):
        raise _bad(path, where + key, f"is {value!r}; allowed: true, false")
    return value


def _number(
    table: Mapping[str, Any], key: str, path: Path, where: str, *, high: float, default: float | None = None
) -> float:
    value = table.get(key, default)
    if not is_number(value) or not 0 <= value <= high:
        raise _bad(path, where + key, f"is {value!r}; it takes a number from 0 to {high:g}")
    return float(value)


def _only(table: Mapping[str, Any], allowed: set[str], path: Path, where: str) -> None:
    for key in table:
        if key not in allowed:
            raise _bad(path, where + key, f"is not known; allowed: {', '.join(sorted(allowed))}")


def _bad(path: Path, key: str, what: str) -> BadStrategy:
    return BadStrategy(f"{path}: {key} {what}.")
