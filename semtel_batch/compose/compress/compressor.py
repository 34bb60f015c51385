"""The one interface of all compressors, and the promise they are held to, whatever they do.

A text comes back shorter and with everything in it that must not change, or it comes back as it was, counted as such.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from semtel_batch import tokens
from semtel_batch.compose.compress.spans import are_kept, protected

MIN_TOKENS = 32
"""Texts of fewer are sent as they are: what can be saved on them is less than a line of the prompt."""


class Compressor(Protocol):
    """Makes texts shorter. `name` and `version` tell its results from another's."""

    name: str
    version: str
    is_cheap: bool  # whether its CPU time is of the order of counting tokens

    def compress(self, texts: Sequence[str], rate: float) -> list[str | None]:
        """Each text with about `rate` of its tokens; None where that failed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed:
    """Texts as they will be sent, and what became of them. Tokens are counted by us, whatever a backend says."""

    texts: list[str]
    tokens_before: int
    tokens_after: int
    kept_whole: Counter[str] = field(default_factory=Counter)  # why, of those that are sent as they were

    @property
    def rate(self) -> float:
        """The share of tokens that is left: measured, not the one that was asked for."""
        return self.tokens_after / self.tokens_before if self.tokens_before else 1.0


def compress_texts(compressor: Compressor, texts: Sequence[str], rate: float, encoding: str) -> Compressed:
    """Shorten what can be shortened without harm."""
    before = tokens.count(texts, encoding).astype(np.int64)
    tried = [i for i, n in enumerate(before.tolist()) if n >= MIN_TOKENS]
    made = compressor.compress([texts[i] for i in tried], rate) if tried else []
    after = tokens.count([text or "" for text in made], encoding).astype(np.int64)
    sent, counts = list(texts), before.copy()
    why: Counter[str] = Counter({"short": len(texts) - len(tried)} if len(tried) < len(texts) else {})
    for i, text, n in zip(tried, made, after.tolist(), strict=True):
        problem = _problem(texts[i], text, int(before[i]), n)
        if problem or text is None:
            why[problem] += 1
        else:
            sent[i], counts[i] = text, n
    return Compressed(texts=sent, tokens_before=int(before.sum()), tokens_after=int(counts.sum()), kept_whole=why)


def _problem(text: str, shortened: str | None, before: int, after: int) -> str:
    """Why a shortened text can't be sent; empty if it can."""
    if shortened is None:
        return "failed"
    if not shortened.strip():
        return "empty"
    if after >= before:
        return "no shorter"
    return "" if are_kept(text, protected(text), shortened) else "changed what must stay"
