"""What each model family takes and refuses."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

_SNAPSHOTS = {
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-5-mini": "gpt-5-mini-2025-08-07",
    "gpt-5-nano": "gpt-5-nano-2025-08-07",
}
_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The rules of one family of models. `efforts` is empty where there is no reasoning."""

    efforts: tuple[str, ...] = ()
    default_effort: str | None = None
    max_tokens_allowed: bool = True
    breakpoint_caching: bool = False  # caches at breakpoints and bills the writing
    cached_in_batch: bool = True
    priming: int = 3  # tokens a request costs beside its messages
    embeds: bool = False
    flex: bool = False

    def samples_at(self, effort: str | None) -> bool:
        """Whether temperature, top_p and logprobs are taken at this effort."""
        return not self.efforts or effort == "none"


_LATEST = Family(
    efforts=("none", "low", "medium", "high", "xhigh", "max"),
    default_effort="medium",
    max_tokens_allowed=False,
    breakpoint_caching=True,
    priming=2,
)
_RULES: tuple[tuple[re.Pattern[str], Family], ...] = (
    (re.compile(r"text-embedding-"), Family(embeds=True)),
    (re.compile(r"gpt-(5\.6|6(\.[01])?)(-|$)"), replace(_LATEST, flex=True)),
    (re.compile(r"gpt-(5\.[6-9]|[6-9])"), _LATEST),
    (
        re.compile(r"gpt-5\.5"),
        Family(
            efforts=("none", "low", "medium", "high", "xhigh"),
            default_effort="medium",
            max_tokens_allowed=False,
            priming=2,
            flex=True,
        ),
    ),
    (
        re.compile(r"gpt-5\.[2-4]"),
        Family(
            efforts=("none", "low", "medium", "high", "xhigh"),
            default_effort="none",
            max_tokens_allowed=False,
            priming=2,
            flex=True,
        ),
    ),
    (
        re.compile(r"gpt-5\.1"),
        Family(
            efforts=("none", "low", "medium", "high"),
            default_effort="none",
            max_tokens_allowed=False,
            priming=2,
            flex=True,
        ),
    ),
    (
        re.compile(r"gpt-5"),
        Family(
            efforts=("minimal", "low", "medium", "high"),
            default_effort="medium",
            max_tokens_allowed=False,
            priming=2,
            flex=True,
        ),
    ),
    (
        re.compile(r"o\d"),
        Family(
            efforts=("low", "medium", "high"),
            default_effort="medium",
            max_tokens_allowed=False,
            cached_in_batch=False,
            flex=True,
        ),
    ),
)
_PLAIN = Family(cached_in_batch=False)


@lru_cache(maxsize=256)
def family_of(model: str) -> Family:
    """The rules a model goes by; one that nothing is known of takes what gpt-4.1 takes."""
    return next((family for pattern, family in _RULES if pattern.match(model)), _PLAIN)


@lru_cache(maxsize=256)
def undated(model: str) -> str:
    """The model's name without its snapshot's date."""
    return _DATE.sub("", model)


@lru_cache(maxsize=256)
def snapshot_of(model: str) -> str:
    """The name a response carries."""
    return _SNAPSHOTS.get(model, model)
