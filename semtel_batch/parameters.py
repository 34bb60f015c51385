"""The parameters that a recipe's grid may vary: how each is read, and what is said of what it may be.

A reader raises ValueError or TypeError for what it does not take.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from semtel_batch.records import Doubt, Keep, Tier


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(value)
        return value

    return read


def _cut(value: Any) -> int | None:
    return None if value == 0 and not isinstance(value, bool) else _whole(16, 1_000_000)(value)


def _rate(value: Any) -> float | None:
    if not is_number(value) or not 0.1 <= value <= 1:
        raise ValueError(value)
    return None if value == 1 else float(value)


def _probability(value: Any) -> float:
    if not is_number(value) or not 0 < value < 1:
        raise ValueError(value)
    return float(value)


def _compressor(value: Any) -> str:
    backend, _, model = _word(value).partition(":")
    if backend not in ("rules", "llmlingua2") or (model and backend == "rules"):
        raise ValueError(value)
    return str(value)


def _groups(value: Any) -> tuple[tuple[str, ...], ...]:
    if not isinstance(value, list) or not all(isinstance(group, list) and group for group in value):
        raise ValueError(value)
    names = [_word(name) for group in value for name in group]
    if len(names) != len(set(names)):  # who would it share a prompt with?
        raise ValueError(value)
    return tuple(tuple(group) for group in value if len(group) > 1)


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _word(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(value)
    return value


PARAMETERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "tier": (Tier, ", ".join(Tier)),
    "conversations_per_request": (_whole(1, 200), "whole numbers from 1 to 200"),
    "classifiers_per_request": (_whole(0, 100), "whole numbers from 0 (all in one prompt) to 100"),
    "groups": (_groups, 'lists of classifiers that share a prompt, each name once: [["topic", "task"], ["expertise"]]'),
    "truncate_to": (_cut, "whole numbers of tokens from 16 to 1000000, or 0 for the whole text"),
    "keep": (Keep, ", ".join(Keep)),
    "compressor": (_compressor, "rules, llmlingua2, or llmlingua2:MODEL with a folder or a hub's id"),
    "compress_rate": (_rate, "shares of the text to keep, from 0.1 to 1 (1: no compression)"),
    "doubt": (Doubt, ", ".join(Doubt)),
    "grade": (_switch, 'true, false (true is the same as doubt = "grader")'),
    "confidence_below": (_probability, "probabilities above 0 and below 1"),
    "model": (_word, "names of models that an endpoint serves"),
    "escalate": (_word, "names of endpoints in semtel.toml, or reference for the first of them"),
}
BOUNDED = ("conversations_per_request", "classifiers_per_request", "truncate_to", "compress_rate")
