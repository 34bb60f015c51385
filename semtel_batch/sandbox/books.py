"""The endpoint's own books: what was asked, what was done, what was billed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from semtel_batch.sandbox.reading import Asked


@dataclass(slots=True)
class Books:
    """Counts of everything, so that a test can prove that nothing was paid twice.

    Plain numbers by hash: dicts of these the garbage collector passes over, however many a long run brings.
    """

    asked: dict[bytes, int] = field(default_factory=dict)  # requests, by hash of the body
    billed: dict[bytes, int] = field(default_factory=dict)
    items: dict[tuple[bytes, str], int] = field(default_factory=dict)  # how often billed
    tokens: dict[str, Counter[str]] = field(default_factory=dict)
    models: dict[str, Counter[str]] = field(default_factory=dict)  # the same by model, of what is in the wire format
    paths: dict[str, Counter[str]] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    max_in_flight: int = 0

    def clear(self) -> None:
        """Begin new books; what is in flight still is."""
        for kept in (self.asked, self.billed, self.items, self.tokens, self.models, self.paths, self.events):
            kept.clear()
        self.max_in_flight = self.in_flight

    def ask(self, digest: bytes) -> int:
        """Note a request that arrived; returns how often it had been answered before."""
        self.asked[digest] = self.asked.get(digest, 0) + 1
        return self.billed.get(digest, 0)

    def bill(self, digest: bytes, asked: Asked | None, usage: dict[str, Any], channel: str) -> None:
        """Note an answer that is charged for."""
        self.billed[digest] = self.billed.get(digest, 0) + 1
        _count(self.tokens, channel, usage)
        if asked is None:
            return
        _count(self.models, asked.model, usage)
        for block in asked.blocks:
            for question in asked.questions:
                # A verdict on a label is another item than the label.
                name = f"{question.name}?" if question.judges else question.name
                self.items[block.digest, name] = self.items.get((block.digest, name), 0) + 1

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
            "requests": {"asked": sum(self.asked.values()), **_totals(self.billed), "distinct": len(self.asked)},
            "items": _totals(self.items),
            "tokens": {channel: dict(counts) for channel, counts in self.tokens.items()},
            "models": {model: dict(counts) for model, counts in self.models.items()},
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
            told["by_request"] = {key.hex(): [n, self.billed.get(key, 0)] for key, n in self.asked.items()}
            told["by_item"] = {f"{key.hex()}:{name}": n for (key, name), n in self.items.items()}
        return told


def _count(kept: dict[str, Counter[str]], name: str, usage: dict[str, Any]) -> None:
    details = usage.get("prompt_tokens_details") or {}
    hidden = usage.get("completion_tokens_details") or {}
    counts = kept.setdefault(name, Counter())
    counts["prompt"] += usage["prompt_tokens"]
    counts["cached"] += details.get("cached_tokens", 0)
    counts["cache_write"] += details.get("cache_write_tokens", 0)
    counts["completion"] += usage.get("completion_tokens", 0)
    counts["reasoning"] += hidden.get("reasoning_tokens", 0)


def _totals(billed: Mapping[Any, int]) -> dict[str, int]:
    return {
        "distinct": len(billed),
        "billed": sum(billed.values()),
        "billed_twice": sum(n > 1 for n in billed.values()),
    }
