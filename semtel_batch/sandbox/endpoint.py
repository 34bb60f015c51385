"""The whole sandbox as one object: settings, clock, books, files, batches, and the desk that answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semtel_batch.sandbox.batch_work import BatchWork
from semtel_batch.sandbox.batches import Batch, Batches
from semtel_batch.sandbox.books import Books
from semtel_batch.sandbox.clock import Clock
from semtel_batch.sandbox.desk import Desk
from semtel_batch.sandbox.faults import Faults
from semtel_batch.sandbox.files import FileStore
from semtel_batch.sandbox.limits import Limiter
from semtel_batch.sandbox.responses import Responses
from semtel_batch.sandbox.settings import Settings, from_mapping


class Endpoint:
    """Everything that lives as long as the server, and the batches at work. Belongs to one event loop."""

    def __init__(self, settings: Settings, folder: Path, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock = clock or Clock(scale=settings.time_scale)
        self.books = Books()
        self.faults = Faults(settings.faults, settings.seed)
        self.desk = Desk(settings, self.clock, self.books, self.faults)
        self.limiter = Limiter(settings, self.clock.steady)
        self.files = FileStore(folder, self.clock.now)
        self.batches = Batches()
        self.responses = Responses(self.desk)
        self._work = BatchWork(self.desk, self.files, self.batches, lambda: self.settings)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def azure(self) -> bool:
        return self.settings.dress == "azure"

    def configure(self, changes: Mapping[str, Any]) -> None:
        """Change settings; buckets are filled anew, books, files and batches stay."""
        self._apply(from_mapping(changes, self.settings))

    def _apply(self, settings: Settings) -> None:
        self.desk.configure(settings)  # first: it may refuse, a gold file for instance
        self.faults.configure(settings.faults, settings.seed)
        if settings.time_scale != self.settings.time_scale:
            self.clock.rescale(settings.time_scale)
        self.limiter = Limiter(settings, self.clock.steady)
        self.settings = settings

    def start(self, batch: Batch) -> None:
        """Set a new batch to work."""
        self.batches.add(batch)
        self.books.events["batches_created"] += 1
        self.clock.enter()
        task = asyncio.create_task(self._run(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, batch: Batch) -> None:
        try:
            await self._work.run(batch)
        finally:
            self.clock.leave()

    async def advance(self, seconds: float) -> None:
        """Jump ahead, and return when all that fell due is done."""
        self.clock.advance(seconds)
        await self.clock.quiet()

    async def reset(self) -> None:
        """Forget files, batches, books, caches and scripted faults; settings stay."""
        await self.stop()
        self.files.clear()
        self.batches.clear()
        self.responses.clear()
        self.books.clear()
        self.faults.clear()
        self.desk.forget()
        self._apply(self.settings)

    async def stop(self) -> None:
        """End all work on batches."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
