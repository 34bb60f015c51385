"""Vectors of texts: a request's inputs, windows of long texts, and what a reply's numbers come to. Pure.

A text that is longer than a model takes is embedded in windows and their vectors averaged, weighted by tokens: it is
never cut. Vectors come back as base64, a quarter of their size as JSON numbers.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from semtel_batch import tokens, transcripts

Vectors = npt.NDArray[np.float32]

PATH = "/v1/embeddings"
WINDOW_TOKENS = 8_000  # OpenAI and Azure take 8,192 of an input; room for a server that counts otherwise
INPUTS = 32  # texts of a request: a second's answers are in memory at once; OpenAI takes 2,048 inputs
REQUEST_TOKENS = 100_000  # of a request of several texts; OpenAI takes 300,000
LONGEST_TOKENS = 140_000  # of a text, in any encoding: 35 windows. What is longer is left to the LLM


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of a text: whose, how many tokens, and what it says."""

    text_number: int
    n_tokens: int
    text: str


def split(texts: Sequence[str], encoding: str, limit: int = WINDOW_TOKENS) -> Iterator[Window]:
    """Windows of at most `limit` tokens that together are the texts; none of an empty text."""
    counts = tokens.count(texts, encoding).tolist()
    for number, (text, count) in enumerate(zip(texts, counts, strict=True)):
        rest, left = text, count
        while left > limit:
            head = tokens.truncate(rest, limit, encoding)
            if not head:  # a single character of more tokens than a window
                break
            yield Window(number, int(tokens.count([head], encoding)[0]), head)
            rest = rest[len(head) :]
            left = int(tokens.count([rest], encoding)[0])
        if rest:
            yield Window(number, left, rest)


def text_tokens(block_tokens: int, n_texts: int, encoding: str) -> int:
    """Tokens of texts whose blocks, as they stand in a prompt, have so many together."""
    empty = transcripts.blocks(pl.Series([""])).to_list()
    return max(0, block_tokens - n_texts * int(tokens.count(empty, encoding)[0]))


def body_of(windows: Sequence[Window], model: str) -> bytes:
    """A request for the vectors of some windows."""
    return orjson.dumps({"model": model, "input": [one.text for one in windows], "encoding_format": "base64"})


def read(content: str | None, n: int) -> Vectors:
    """The vectors that a reply's `content` holds, as `transport.replies` gives it; raises ValueError for others."""
    try:
        given = orjson.loads(content or "")
        if not isinstance(given, list) or len(given) != n:
            raise ValueError(f"not {n} vectors")
        return np.stack([_vector(one) for one in given])
    except (TypeError, binascii.Error, orjson.JSONDecodeError) as problem:
        raise ValueError(str(problem)) from problem


def pooled(n_texts: int, windows: Sequence[Window], vectors: Vectors) -> Vectors:
    """One unit vector a text: the mean of its windows', weighted by their tokens."""
    made = np.zeros((n_texts, vectors.shape[1] if vectors.ndim == 2 else 0), np.float64)
    weights = np.array([max(1, one.n_tokens) for one in windows], dtype=np.float64)
    np.add.at(made, np.array([one.text_number for one in windows], dtype=np.int64), vectors * weights[:, None])
    norms = np.linalg.norm(made, axis=1, keepdims=True)
    return (made / np.where(norms > 0, norms, 1)).astype(np.float32)


def _vector(given: object) -> Vectors:
    """Base64 of little-endian floats, as asked for; a server that doesn't know it sends numbers."""
    if isinstance(given, str):
        made = np.frombuffer(base64.b64decode(given, validate=True), dtype="<f4").astype(np.float32)
    else:
        with np.errstate(over="ignore"):  # what is too large is infinite then
            made = np.asarray(given, dtype=np.float32)
    if made.ndim != 1 or not made.size or not np.isfinite(made).all():
        raise ValueError("a vector is no list of finite numbers")
    return made
