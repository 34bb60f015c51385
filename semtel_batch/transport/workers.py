"""Workers in a background event loop: requests pulled from an iterator, answers out in groups.

There is no task per request: a fixed number of workers share one iterator, so what is in memory is what is in flight.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Container, Coroutine, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

from semtel_batch.records import Answer
from semtel_batch.transport.shardfile import Call

T = TypeVar("T")

GROUP_SIZE = 500  # answers
GROUP_AGE_S = 1.0  # what a crash may lose
_GROUPS_AHEAD = 2  # a reader this far behind stops the workers: what waits here, a crash loses
_CLOSE_S = 4.0

Ask = Callable[[Call], Awaitable[Answer]]


class LoopThread:
    """An event loop in a daemon thread."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[None, None, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_CLOSE_S)
        if not self._thread.is_alive():
            self.loop.close()


class Workers:
    """One pass over a shard's requests. `groups` gives lists of answers, then None."""

    def __init__(self, calls: Iterator[Call], ask: Ask, *, n_workers: int, sending: Container[object]) -> None:
        self.groups: SimpleQueue[list[Answer] | None] = SimpleQueue()
        self.ended = threading.Event()
        self.error: BaseException | None = None
        self._calls = calls
        self._ask = ask
        self._n_workers = n_workers
        self._sending = sending  # the tasks whose request is out: it is paid for, so they are let finish
        self._tasks: list[asyncio.Task[None]] = []
        self._ready: list[Answer] = []
        self._is_stopping = False

    async def run(self) -> None:
        flushing = asyncio.create_task(self._flush_often())
        try:
            self._tasks = [asyncio.create_task(self._work()) for _ in range(self._n_workers)]
            for task in self._tasks:
                task.add_done_callback(self._note_end)
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            for task in (flushing, *self._tasks):
                task.cancel()
            await asyncio.gather(flushing, *self._tasks, return_exceptions=True)
            self._flush()
            self.groups.put(None)
            self.ended.set()

    def drain(self, within_s: float | None = None) -> None:
        """Send nothing more; let finish what is out, for at most `within_s`. Runs in the loop's thread."""
        self._is_stopping = True
        for task in self._tasks:
            if task not in self._sending:
                task.cancel()
        if within_s is not None:
            asyncio.get_running_loop().call_later(within_s, self._abandon)

    def _abandon(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _work(self) -> None:
        while not self._is_stopping:
            while self.groups.qsize() >= _GROUPS_AHEAD:
                await asyncio.sleep(0.02)
            call = next(self._calls, None)
            if call is None:
                return
            answer = await self._ask(call)
            self._ready.append(answer)  # looked up only now: a flush during the wait has put a new list there
            if len(self._ready) >= GROUP_SIZE:
                self._flush()

    def _note_end(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and self.error is None:
            self.error = error
            self.drain()

    async def _flush_often(self) -> None:
        while True:
            await asyncio.sleep(GROUP_AGE_S)
            self._flush()

    def _flush(self) -> None:
        if self._ready:
            self.groups.put(self._ready)
            self._ready = []
