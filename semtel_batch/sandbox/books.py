"""The endpoint's own books: what was asked, what was done, what was billed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from semtel_batch.sandbox.reading import Asked


@dataclass(slots=True)
class Tally:
    """How often something was asked, and how often it was billed."""

    asked: int = 0
    billed: int = 0


@dataclass(slots=True)
class Books:
    """Counts of everything, so that a test can prove that nothing was paid twice."""

    requests: dict[bytes, Tally] = field(default_factory=dict)
    items: dict[tuple[bytes, str], int] = field(default_factory=dict)  # how often billed
    tokens: dict[str, Counter[str]] = field(default_factory=dict)
    paths: dict[str, Counter[str]] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    max_in_flight: int = 0

    def clear(self) -> None:
        """Begin new books; what is in flight still is."""
        for kept in (self.requests, self.items, self.tokens, self.paths, self.events):
            kept.clear()
        self.max_in_flight = self.in_flight

    def ask(self, digest: bytes) -> int:
        """Note a request that arrived; returns how often it had been answered before."""
        tally = self.requests.setdefault(digest, Tally())
        tally.asked += 1
        return tally.billed

    def bill(self, digest: bytes, asked: Asked | None, usage: dict[str, Any], channel: str) -> None:
        """Note an answer that is charged for."""
        self.requests.setdefault(digest, Tally()).billed += 1
        self._count_tokens(usage, channel)
        if asked is None:
            return
        for block in asked.blocks:
            for question in asked.questions:
                # A verdict on a label is another item than the label.
                name = f"{question.name}?" if question.judges else question.name
                self.items[block.digest, name] = self.items.get((block.digest, name), 0) + 1

    def _count_tokens(self, usage: dict[str, Any], channel: str) -> None:
        details = usage.get("prompt_tokens_details") or {}
        hidden = usage.get("completion_tokens_details") or {}
        self.tokens.setdefault(channel, Counter()).update(
            prompt=usage["prompt_tokens"],
            cached=details.get("cached_tokens", 0),
            cache_write=details.get("cache_write_tokens", 0),
            completion=usage.get("completion_tokens", 0),
            reasoning=hidden.get("reasoning_tokens", 0),
        )

    def enter(self) -> None:
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def leave(self) -> None:
        self.in_flight -= 1

    def answered(self, path: str, outcome: str) -> None:
        self.paths.setdefault(path, Counter())[outcome] += 1

    def shown(self, *, detail: bool) -> dict[str, Any]:
        """The books as JSON; with `detail`, every request and item."""
        told: dict[str, Any] = {
            "requests": _totals(list(self.requests.values())),
            "items": {
                "distinct": len(self.items),
                "billed": sum(self.items.values()),
                "billed_twice": sum(n > 1 for n in self.items.values()),
            },
            "tokens": {channel: dict(counts) for channel, counts in self.tokens.items()},
            "paths": {path: dict(counts) for path, counts in self.paths.items()},
            "max_in_flight": self.max_in_flight,
            "files_uploaded": 0,
            "files_deleted": 0,
            "bytes_uploaded": 0,
            "batches_created": 0,
            "rate_limited": 0,
        }
        told.update(self.events)
        if detail:
            told["by_request"] = {key.hex(): [t.asked, t.billed] for key, t in self.requests.items()}
            told["by_item"] = {f"{key.hex()}:{name}": n for (key, name), n in self.items.items()}
        return told


def _totals(tallies: list[Tally]) -> dict[str, int]:
    return {
        "distinct": len(tallies),
        "asked": sum(tally.asked for tally in tallies),
        "billed": sum(tally.billed for tally in tallies),
        "billed_twice": sum(tally.billed > 1 for tally in tallies),
    }
