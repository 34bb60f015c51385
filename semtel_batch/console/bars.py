"""Progress as live bars, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import rich.console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from semtel_batch.console.figures import clip, count, money, several
from semtel_batch.console.progress import Progress, Step

_NAME_WIDTH = 24
_NOTE_WIDTH = 24


class _Name(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(clip(task.description, _NAME_WIDTH), no_wrap=True)


class _Standing(ProgressColumn):
    """Done of total, money and retries so far."""

    def render(self, task: Task) -> Text:
        step: Step = task.fields["step"]
        text = Text(f"{count(step.done)}/{count(step.total)}", no_wrap=True)
        if step.n_labels:
            text.append(f"  {several(step.n_labels, 'label')}")
        if step.usd is not None:
            text.append(f"  {money(step.usd)}", style="green")
        if step.n_unlabelled:
            text.append(f"  {count(step.n_unlabelled)} without", style="yellow")
        if step.n_retried:
            text.append(f"  {count(step.n_retried)} tried again", style="yellow")
        if step.note:
            text.append(f"  {clip(step.note, _NOTE_WIDTH)}", style="dim")
        return text


class _Live:
    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def update(self, step: Step) -> None:
        if step.name not in self._tasks:
            self._tasks[step.name] = self._bars.add_task(step.name, total=step.total, step=step)
        self._bars.update(self._tasks[step.name], completed=step.done, total=step.total, step=step)


@contextmanager
def live_progress(screen: rich.console.Console) -> Iterator[Progress]:
    """Draw bars on this screen until the context ends."""
    bar_width = None if screen.width >= 100 else max(screen.width // 8, 4)
    columns = (_Name(), BarColumn(bar_width=bar_width), _Standing(), TimeElapsedColumn())
    with RichProgress(*columns, console=screen, expand=bar_width is None) as bars:
        yield _Live(bars)
