"""Prompt caching: which part of a prompt was read from, and which written to, a provider's cache."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from semtel_batch.sandbox.counting import Counter, schema_text, text_of
from semtel_batch.sandbox.families import Family, family_of

_MINIMUM, _STEP = 1_024, 128
_TTL_STEPS_S, _TTL_BREAKPOINTS_S = 600.0, 1_800.0


@dataclass(frozen=True, slots=True)
class Cached:
    """Tokens of a prompt read from the cache and written to it."""

    read: int = 0
    written: int = 0


NOTHING = Cached()


class PromptCache:
    """Remembers prefixes per (model, prompt_cache_key), up to the end of each message.

    Prefixes are remembered at message ends (and at explicit breakpoints) only, not at every 128 tokens: two prompts
    that share a system message and part of a conversation hit up to the end of the system message.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._seen: dict[bytes, float] = {}

    def use(self, body: dict[str, Any], model: str, now: float, *, in_batch: bool) -> Cached:
        """Look a prompt up and remember it."""
        family = family_of(model)
        if in_batch and not family.cached_in_batch:
            return NOTHING
        prefixes = self._prefixes(body, model, family)
        return self._by_breakpoint(prefixes, now) if family.breakpoint_caching else self._by_step(prefixes, now)

    def _by_step(self, prefixes: list[tuple[bytes, int]], now: float) -> Cached:
        hits = [n for key, n in prefixes if n >= _MINIMUM and self._fresh(key, now, _TTL_STEPS_S)]
        self._remember([key for key, n in prefixes if n >= _MINIMUM], now)
        return Cached(read=max(hits) // _STEP * _STEP) if hits else NOTHING

    def _by_breakpoint(self, prefixes: list[tuple[bytes, int]], now: float) -> Cached:
        long = [(key, n) for key, n in prefixes if n >= _MINIMUM]
        read = max((n for key, n in long if self._fresh(key, now, _TTL_BREAKPOINTS_S)), default=0)
        self._remember([key for key, _ in long], now)
        return Cached(read=read, written=max((n for _, n in long), default=read) - read)

    def _prefixes(self, body: dict[str, Any], model: str, family: Family) -> list[tuple[bytes, int]]:
        """The prefixes that count, each as hash and token count, shortest first."""
        schema = schema_text(body)
        running = hashlib.sha256(f"{model}\0{body.get('prompt_cache_key') or ''}\0{schema}".encode())
        tokens = self._counter.recurring(schema)
        prefixes = []
        for role, text, marked in _parts(body):
            running.update(f"\0{role}\0{text}".encode())
            tokens += 4 + self._counter.count([text])[0]
            if marked or not family.breakpoint_caching:
                prefixes.append((running.digest(), tokens))
        explicit = (body.get("prompt_cache_options") or {}).get("mode") == "explicit"
        if family.breakpoint_caching and not explicit:
            prefixes.append((running.digest(), tokens))
        return prefixes

    def _fresh(self, key: bytes, now: float, ttl_s: float) -> bool:
        seen_at = self._seen.get(key)
        return seen_at is not None and now - seen_at <= ttl_s

    def _remember(self, keys: list[bytes], now: float) -> None:
        if len(self._seen) > 200_000:
            self._seen.clear()
        self._seen.update(dict.fromkeys(keys, now))


def _parts(body: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Role, text and whether a breakpoint stands at its end, for each piece of the prompt."""
    pieces: list[tuple[str, str, bool]] = []
    for message in body["messages"]:
        content = message.get("content")
        if isinstance(content, list):
            pieces += [(message["role"], part["text"], "prompt_cache_breakpoint" in part) for part in content]
        else:
            pieces.append((message["role"], text_of(message), False))
    return pieces
