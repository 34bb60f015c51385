"""The sandbox's time: a simulated wall clock for batches and files, a plain one for limits, both can be moved ahead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Clock:
    """`now()` runs at `time_scale` sandbox seconds a real second; `steady()` at one. `advance` moves both.

    Workers wait with `until`; `quiet` returns when all of them wait, so that after a jump in time everything that
    fell due has been done before the next request is answered.
    """

    def __init__(
        self, *, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic, scale: float = 1.0
    ) -> None:
        self._steady = steady
        self._scale = scale
        self._base = wall()
        self._since = steady()
        self._ahead = 0.0
        self._busy = 0
        self._moved = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def now(self) -> float:
        """Simulated seconds since the epoch."""
        return self._base + (self._steady() - self._since) * self._scale

    def steady(self) -> float:
        """Seconds that only move ahead, unscaled."""
        return self._steady() + self._ahead

    def rescale(self, scale: float) -> None:
        """Let time run faster or slower from here on."""
        self._base, self._since, self._scale = self.now(), self._steady(), scale
        self.wake()

    def advance(self, seconds: float) -> None:
        """Jump ahead."""
        self._base += seconds
        self._ahead += seconds
        self.wake()

    def wake(self) -> None:
        """Have every waiting worker look again at what it waits for."""
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def enter(self) -> None:
        """A worker begins."""
        self._busy += 1
        self._idle.clear()

    def leave(self) -> None:
        """A worker ends or begins to wait."""
        self._busy -= 1
        if self._busy == 0:
            self._idle.set()

    async def until(self, moment: float, *, unless: Callable[[], bool] = lambda: False) -> None:
        """Wait, as a worker that has entered, for a simulated moment, or until `unless` holds after a `wake`."""
        while (missing := moment - self.now()) > 0 and not unless():
            moved = self._moved
            self.leave()
            try:
                await asyncio.wait_for(moved.wait(), missing / self._scale if self._scale > 0 else None)
            except TimeoutError:
                pass
            finally:
                self.enter()

    async def breathe(self) -> None:
        """Let others run, without ceasing to be at work."""
        await asyncio.sleep(0)

    async def quiet(self) -> None:
        """Wait until no worker has anything to do at the present moment."""
        await asyncio.sleep(0)
        while not self._idle.is_set():
            await self._idle.wait()
            await asyncio.sleep(0)
