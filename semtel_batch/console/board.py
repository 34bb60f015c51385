"""A view that is drawn over and over on a terminal, in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import rich.console
from rich.console import Group, RenderableType
from rich.live import Live

from semtel_batch.console.progress import Progress, Step

Draw = Callable[[Sequence[RenderableType]], None]


@contextmanager
def live_board(screen: rich.console.Console) -> Iterator[Draw]:
    """Yields what draws a view; the last one stays on the screen. What does not fit is cut, not scrolled."""
    with Live(console=screen, auto_refresh=False, vertical_overflow="ellipsis") as live:
        yield lambda views: live.update(Group(*views), refresh=True)


class BoardProgress(Progress):
    """A run's steps told by a view of where its plan stands, at most once in `every_s`."""

    def __init__(
        self, draw: Draw, look: Callable[[str], Sequence[RenderableType]], clock: Callable[[], float], every_s: float
    ) -> None:
        self._draw, self._look, self._clock, self._every_s = draw, look, clock, every_s
        self._told_at: float | None = None

    def update(self, step: Step) -> None:
        now = self._clock()
        if self._told_at is None or step.ended or now - self._told_at >= self._every_s:
            self._told_at = now
            self._draw(self._look(step.note))
