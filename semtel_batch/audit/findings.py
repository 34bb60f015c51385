"""What an audit says: one mismatch a finding, with what was expected and what is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """Whether a mismatch harms anything."""

    BROKEN = "broken"  # something was lost, changed or counted wrong
    HARMLESS = "harmless"  # what a crash, or another process at work, leaves behind


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One mismatch. `which` names the plan, shard, part or file."""

    what: str
    which: str
    expected: str
    found: str
    severity: Severity


Tell = Callable[[Finding], None]
"""Takes a finding; what is looked at goes on."""


def broken(tell: Tell, which: str, what: str, expected: object, found: object) -> None:
    """Tell of something that harms."""
    tell(Finding(what=what, which=which, expected=str(expected), found=str(found), severity=Severity.BROKEN))


def harmless(tell: Tell, which: str, what: str, expected: object, found: object) -> None:
    """Tell of something that does not."""
    tell(Finding(what=what, which=which, expected=str(expected), found=str(found), severity=Severity.HARMLESS))


def compare(tell: Tell, which: str, what: str, expected: object, found: object) -> None:
    """Tell if two values that should be equal are not."""
    if expected != found:
        broken(tell, which, what, expected, found)


def expect_none(tell: Tell, which: str, what: str, found: Sequence[object]) -> None:
    """Tell if there is any of what should not be there."""
    if found:
        broken(tell, which, what, "none", some(found))


def some(values: Sequence[object]) -> str:
    """How many there are, and the first three: "4 (7, 9, 12 …)"."""
    first = ", ".join(str(value) for value in values[:3])
    return f"{len(values)} ({first}{' …' if len(values) > 3 else ''})"
