"""Embeddings: texts in, unit vectors out, through the same admission, retries and limits as every other request.

A text that is longer than a model takes is embedded in windows and their vectors averaged, weighted by tokens: it is
never cut. Vectors come back as base64, a quarter of their size as JSON numbers.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson

from semtel_batch import tokens
from semtel_batch.errors import EndpointError
from semtel_batch.records import Endpoint
from semtel_batch.transport.client import Client, Reply
from semtel_batch.transport.connection import Connection
from semtel_batch.transport.pool import Pool
from semtel_batch.transport.shardfile import Call
from semtel_batch.transport.verdicts import Patience, Verdict, stops

Vectors = npt.NDArray[np.float32]

PATH = "/v1/embeddings"
WINDOW_TOKENS = 8_000  # OpenAI and Azure take 8,192 of an input; room for a server that counts otherwise
_INPUTS = 64  # of a request, so that several are under way of what is kept at once; OpenAI takes 2,048
_REQUEST_TOKENS = 100_000  # OpenAI takes 300,000
_STATES = frozenset({Verdict.RATE_LIMITED, Verdict.SLOW_DOWN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Unit vectors, one a text, and the tokens that were billed for them."""

    vectors: Vectors
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of a text: whose, how many tokens, and what it says."""

    text_number: int
    n_tokens: int
    text: str


class Embedder:
    """Embeds texts on one endpoint, whose `model` is an embedding model."""

    def __init__(self, endpoint: Endpoint, connection: Connection, *, encoding: str, tasks: int = 1) -> None:
        self._endpoint, self._connection, self._encoding, self._tasks = endpoint, connection, encoding, tasks

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed all of them; a text without a character is the zero vector. Raises what ends all work."""
        windows = list(split(texts, self._encoding))
        requests = list(grouped(windows))
        replies = asyncio.run(self._all(requests)) if requests else []
        found = [self._read(request, reply) for request, reply in zip(requests, replies, strict=True)]
        vectors = np.concatenate([one for one, _ in found]) if found else np.zeros((0, 0), np.float32)
        return Embedded(vectors=pooled(len(texts), windows, vectors), n_tokens=sum(n for _, n in found))

    async def _all(self, requests: Sequence[Sequence[Window]]) -> list[Reply]:
        patience = Patience()
        client = Client(self._endpoint, self._connection, patience=patience, tasks=self._tasks)
        pool = Pool([client], patience=patience, rng=random.Random(0))
        waiting: asyncio.Queue[int] = asyncio.Queue()
        for number in range(len(requests)):
            waiting.put_nowait(number)
        replies: dict[int, Reply] = {}

        async def work() -> None:
            while not waiting.empty():
                number = waiting.get_nowait()
                replies[number] = await self._ask(pool, self._call(number, requests[number]), patience)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._endpoint.concurrency, len(requests))):
                    group.create_task(work())
        except BaseExceptionGroup as problems:
            raise problems.exceptions[0] from None
        finally:
            await pool.close()
        return [replies[number] for number in range(len(requests))]

    def _call(self, number: int, windows: Sequence[Window]) -> Call:
        body = {
            "model": self._endpoint.model,
            "input": [one.text for one in windows],
            "encoding_format": "base64",
        }
        return Call(custom_id=str(number), url=PATH, body=orjson.dumps(body))

    async def _ask(self, pool: Pool, call: Call, patience: Patience) -> Reply:
        """Send until it is answered or its tries are spent."""
        n_failed = n_limited = 0
        started_at, avoid = time.monotonic(), None
        while True:
            at, reply = await pool.send(call, avoid)
            verdict = pool.judged(at, reply)
            if verdict is Verdict.FINAL or stops(verdict):
                return reply
            is_limited = verdict in _STATES
            n_limited, n_failed = n_limited + is_limited, n_failed + (not is_limited)
            if patience.is_spent(n_failed, n_limited):
                pool.stop_if_unreachable(at, reply, started_at)
                return reply
            await pool.back_off(at, reply, verdict, n_limited if is_limited else n_failed)

    def _read(self, windows: Sequence[Window], reply: Reply) -> tuple[Vectors, int]:
        try:
            if reply.status_code != 200 or not isinstance(reply.body, Mapping):
                raise ValueError(f"status {reply.status_code} {reply.error.code or reply.error.message or ''}".strip())
            data = sorted(reply.body["data"], key=lambda one: int(one["index"]))
            if [int(one["index"]) for one in data] != list(range(len(windows))):
                raise ValueError(f"{len(data)} vectors for {len(windows)} texts")
            return np.stack([_vector(one["embedding"]) for one in data]), int(reply.body["usage"]["prompt_tokens"])
        except (KeyError, TypeError, ValueError, binascii.Error) as problem:
            raise EndpointError(
                f"Endpoint '{self._endpoint.name}' gave no embeddings from model '{self._endpoint.model}' ({problem}); "
                "check that it is an embedding model that this endpoint serves, then run the same command again."
            ) from None


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


def grouped(windows: Sequence[Window]) -> Iterator[list[Window]]:
    """Windows that share a request, in order."""
    held: list[Window] = []
    n_tokens = 0
    for one in windows:
        if held and (len(held) == _INPUTS or n_tokens + one.n_tokens > _REQUEST_TOKENS):
            yield held
            held, n_tokens = [], 0
        held.append(one)
        n_tokens += one.n_tokens
    if held:
        yield held


def pooled(n_texts: int, windows: Sequence[Window], vectors: Vectors) -> Vectors:
    """One unit vector a text: the mean of its windows', weighted by their tokens."""
    made = np.zeros((n_texts, vectors.shape[1] if vectors.ndim == 2 else 0), np.float32)
    weights = np.array([max(1, one.n_tokens) for one in windows], dtype=np.float32)
    np.add.at(made, np.array([one.text_number for one in windows], dtype=np.int64), vectors * weights[:, None])
    norms = np.linalg.norm(made, axis=1, keepdims=True)
    return (made / np.where(norms > 0, norms, 1)).astype(np.float32)


def _vector(given: object) -> Vectors:
    """Base64 of little-endian floats, as asked for; a server that doesn't know it sends numbers."""
    if isinstance(given, str):
        return np.frombuffer(base64.b64decode(given, validate=True), dtype="<f4").astype(np.float32)
    return np.asarray(given, dtype=np.float32)
