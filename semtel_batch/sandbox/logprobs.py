"""An answer as tokens with log probabilities: pieces of text that spell it, a label's doubt on its first piece."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

_PIECE = re.compile(r"\s*\w{1,6}|\s*[^\w\s]+|\s+")  # about what a vocabulary makes of words and punctuation
_CERTAIN = -1e-5

Sure = Sequence[Mapping[str, float]]
"""One dict per block, in order: classifier → probability of the label given."""


def content(text: str, answers: Sequence[Mapping[str, str]], sure: Sure) -> list[dict[str, Any]]:
    """The `logprobs.content` of a choice."""
    starts = _starts(text, answers, sure)
    listed = []
    for piece in _PIECE.finditer(text):
        doubt = next((value for at, value in starts.items() if piece.start() <= at < piece.end()), _CERTAIN)
        listed.append({"token": piece[0], "logprob": doubt, "bytes": list(piece[0].encode()), "top_logprobs": []})
    return listed


def _starts(text: str, answers: Sequence[Mapping[str, str]], sure: Sure) -> dict[int, float]:
    """Where each label begins in the text, with its log probability; a label that a fault spoilt is not found."""
    found: dict[int, float] = {}
    at = 0
    for labels, probabilities in zip(answers, sure, strict=True):
        for name, label in labels.items():
            member = f"{orjson.dumps(name).decode()}:{orjson.dumps(label).decode()}"
            place = text.find(member, at)
            if place >= 0:
                at = place + len(member)
                found[at - len(orjson.dumps(label).decode()) + 1] = math.log(probabilities[name])
    return found
