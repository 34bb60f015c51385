"""constraints.txt: plain pins and nothing else, for everything that a development environment holds."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parents[2]
LINES = (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def test_each_line_is_a_name_and_a_version() -> None:
    wrong = [line for line in LINES if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==\d[A-Za-z0-9.!+]*", line)]
    assert wrong == []
    assert len({canonicalize_name(line.partition("==")[0]) for line in LINES}) == len(LINES)


def test_everything_needed_to_develop_is_pinned_within_its_bounds() -> None:
    pins = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in LINES)}
    unpinned = [str(one) for one in _needed() if canonicalize_name(one.name) not in pins]
    assert unpinned == []
    outside = [str(one) for one in _needed() if not one.specifier.contains(pins[canonicalize_name(one.name)])]
    assert outside == []


def _needed() -> list[Requirement]:
    """What pyproject.toml asks for with the extras dev and sandbox, and what that asks for in turn."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    waiting = [Requirement(line) for line in (*project["dependencies"], *extras["dev"], *extras["sandbox"])]
    found: dict[str, Requirement] = {}
    while waiting:
        one = waiting.pop()
        if found.setdefault(str(one), one) is one:
            waiting += _dependencies(one)
    return list(found.values())


def _dependencies(parent: Requirement) -> list[Requirement]:
    try:
        lines = requires(parent.name) or []
    except PackageNotFoundError:  # for another platform, or not installed here
        return []
    wanted = [Requirement(line) for line in lines]
    extras = parent.extras or {""}
    return [r for r in wanted if r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in extras)]
