"""Progress of a run's steps, told in absolute figures so that telling it twice does no harm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from semtel_batch.console.figures import count, duration, money, safe, several

_EVERY_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Where one step stands. `note` is free text, such as the provider's word for a batch's state."""

    name: str
    done: int
    total: int
    usd: Decimal | None = None
    n_retried: int = 0  # tries beyond the first: 429s, 5xx, lost connections
    n_labels: int = 0
    n_unlabelled: int = 0  # that came back without a label, so far
    note: str = ""

    @property
    def ended(self) -> bool:
        return self.done >= self.total


class Progress(Protocol):
    """Takes each step's standing as often as the caller likes."""

    def update(self, step: Step) -> None: ...


class _Silent:
    def update(self, step: Step) -> None:
        pass


def silent_progress() -> Progress:
    return _Silent()


class _Plain:
    """A line when a step begins, one every ten seconds, and one when it ends: what a log can bear."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._say, self._clock = say, clock
        self._began: dict[str, float] = {}
        self._told: dict[str, tuple[float, Step]] = {}

    def update(self, step: Step) -> None:
        now = self._clock()
        self._began.setdefault(step.name, now)
        told = self._told.get(step.name)
        if told is not None:
            told_at, last = told
            if step == last or (now - told_at < _EVERY_S and not (step.ended and not last.ended)):
                return
        self._told[step.name] = (now, step)
        self._say(line_of(step, now - self._began[step.name]))


def plain_progress(say: Callable[[str], None], clock: Callable[[], float]) -> Progress:
    return _Plain(say, clock)


def line_of(step: Step, elapsed_s: float) -> str:
    """A step as one line of text."""
    percent = f" ({100 * step.done / step.total:.0f} %)" if step.total else ""
    parts = [f"{safe(step.name)}: {count(step.done)} of {count(step.total)}{percent}"]
    if step.n_labels:
        parts.append(several(step.n_labels, "label"))
    if step.usd is not None:
        parts.append(money(step.usd))
    if step.n_unlabelled:
        parts.append(f"{count(step.n_unlabelled)} without a label")
    if step.n_retried:
        parts.append(f"{count(step.n_retried)} tried again")
    if elapsed_s >= 1:
        parts.append(duration(elapsed_s))
    if step.note:
        parts.append(safe(step.note))
    return ", ".join(parts)
