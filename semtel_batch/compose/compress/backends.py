"""Which compressors there are, and worker processes that run one of them, each on one thread.

torch's threads spin: two processes of two threads on two cores are several times slower than two of one. And what a
compressor's library does to a process (seeds, environment, memory) stays in a process of its own.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context, parent_process

from semtel_batch.compose.compress import llmlingua2
from semtel_batch.compose.compress.compressor import Compressed, Compressor, compress_texts
from semtel_batch.compose.compress.rules import Rules
from semtel_batch.errors import BadConfig, BadStrategy

BACKENDS = ("rules", "llmlingua2")
_AT_ONCE = 64  # texts that a worker is given: seconds of a model's work


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How texts are compressed: all that decides what comes out. `compressor` is a backend, or `llmlingua2:MODEL`."""

    compressor: str
    rate: float
    encoding: str

    @property
    def backend(self) -> str:
        return self.compressor.partition(":")[0]

    @property
    def model(self) -> str:
        return self.compressor.partition(":")[2] or llmlingua2.DEFAULT_MODEL

    @property
    def version(self) -> str:
        return open_compressor(self.compressor, self.encoding).version


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """One text's end: what is sent instead (None: it is sent as it is), and what that took."""

    text: str | None
    n_before: int
    n_after: int
    cpu_s: float
    why: str  # it is sent as it is; empty if it isn't


@lru_cache(maxsize=4)
def open_compressor(compressor: str, encoding: str) -> Compressor:
    """The compressor of this name; nothing is loaded before it is used."""
    backend, _, model = compressor.partition(":")
    if backend == "rules":
        return Rules(encoding)
    if backend == "llmlingua2":
        return llmlingua2.LLMLingua2(encoding, model or llmlingua2.DEFAULT_MODEL)
    raise BadStrategy(f"There is no compressor {compressor!r}; there are: {', '.join(BACKENDS)}.")


def check(compressor: str) -> str:
    """Why a compressor can't run here, with what to do; empty if it can."""
    backend, _, model = compressor.partition(":")
    try:
        if backend == "llmlingua2":
            llmlingua2.check(model or llmlingua2.DEFAULT_MODEL)
    except BadConfig as problem:
        return str(problem)
    return ""


def run_here(texts: Sequence[str], way: Way) -> list[Done]:
    """Compress in this process; CPU seconds are shared out by tokens."""
    compressor = open_compressor(way.compressor, way.encoding)
    started = time.process_time()
    made = [compress_texts(compressor, [text], way.rate, way.encoding) for text in texts]
    spent = time.process_time() - started
    total = sum(one.tokens_before for one in made) or 1
    return [_done(text, one, spent * one.tokens_before / total) for text, one in zip(texts, made, strict=True)]


def _done(text: str, made: Compressed, cpu_s: float) -> Done:
    changed = made.texts[0] != text
    why = next(iter(made.kept_whole), "")
    return Done(
        text=made.texts[0] if changed else None,
        n_before=made.tokens_before,
        n_after=made.tokens_after,
        cpu_s=cpu_s,
        why=why,
    )


class Workers:
    """Processes that compress in one way."""

    def __init__(self, way: Way, n_workers: int | None = None) -> None:
        self._way = way
        self._n = n_workers or os.cpu_count() or 1
        self._pool: ProcessPoolExecutor | None = None

    def run(self, texts: Sequence[str]) -> Iterator[Done]:
        """Each text's end, in order."""
        pieces = [texts[i : i + _AT_ONCE] for i in range(0, len(texts), _AT_ONCE)]
        try:
            futures = [self._open().submit(run_here, piece, self._way) for piece in pieces]
            for future in futures:
                yield from future.result()
        except BrokenProcessPool:
            self.close()
            raise BadConfig(
                f"A process that compresses with {self._way.compressor} died, most likely for want of memory; free "
                "some, or plan with another recipe."
            ) from None

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _open(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # A fork would copy locks that threads of ours hold.
            self._pool = ProcessPoolExecutor(self._n, get_context("spawn"), initializer=_start)
        return self._pool


def _start() -> None:
    """In a new worker: one thread, and no signal of the terminal's, which the run itself answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"


def _end_with_parent() -> None:
    """A run that was killed leaves nobody behind who works for it."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
