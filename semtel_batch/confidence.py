"""How probable a model found its own labels: the product over the tokens that spell a label in the JSON answer.

Tokens need not end where a label begins: every token that shares a character with the label, or with the quote that
ends it, counts whole. The quote is part of it, since only there "Travel" is told from "Travel and transport". What
such tokens hold besides is the answer's fixed form, which a model gives with a probability near one.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache

_ENTRY = re.compile(r"\{[^{}]*\}")  # the innermost objects of the wire format: one a conversation
_ID = re.compile(r'"id"\s*:\s*"?(\d{1,9})"?')

Logprobs = Sequence[tuple[str, float]]


def confidences(logprobs: Logprobs, classifiers: Sequence[str], n: int) -> dict[tuple[int, str], float]:
    """Probability of each label by (slot, classifier), 0…1; what can't be found once and for sure is left out.

    `logprobs`: the answer's tokens in order with their natural log probabilities; `n`: conversations asked.
    """
    text = "".join(token for token, _ in logprobs)
    ends = _ends(logprobs)
    found: dict[tuple[int, str], float] = {}
    twice: set[tuple[int, str]] = set()
    for slot, name, start, end in _labels(text, classifiers, n):
        key = (slot, name)
        if key in found:
            twice.add(key)
        # Tokens that share a character with start…end: the first that ends after its start, up to the one at its end.
        first, last = bisect_right(ends, start), bisect_left(ends, end)
        found[key] = math.exp(sum(value for _, value in logprobs[first : last + 1]))
    return {key: value for key, value in found.items() if key not in twice}


def _ends(logprobs: Logprobs) -> list[int]:
    ends, at = [], 0
    for token, _ in logprobs:
        at += len(token)
        ends.append(at)
    return ends


def _labels(text: str, classifiers: Sequence[str], n: int) -> Iterator[tuple[int, str, int, int]]:
    """Where each label stands: slot, classifier, and the characters from its first to its closing quote."""
    for entry in _ENTRY.finditer(text):
        ids = _ID.findall(entry[0])
        if len(ids) == 1:
            slot = int(ids[0])
        elif not ids and n == 1:
            slot = 1
        else:
            continue
        for name in classifiers:
            for value in _member(name).finditer(entry[0]):
                yield slot, name, entry.start() + value.start(1), entry.start() + value.end(1) + 1


@lru_cache(maxsize=256)
def _member(name: str) -> re.Pattern[str]:
    return re.compile(rf'{re.escape(json.dumps(name, ensure_ascii=False))}\s*:\s*"((?:[^"\\]|\\.)*)"')
