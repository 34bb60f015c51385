"""SIGINT and SIGTERM as KeyboardInterrupt, but never in the middle of a transaction and never at a program's end.

An exception in the midst of SQLAlchemy's own cleaning up would be logged with a traceback instead of being raised.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _State:
    depth = 0
    is_waiting = False
    is_ending = False


def interrupt(_signal: int = 0, _frame: FrameType | None = None) -> None:
    """Raise KeyboardInterrupt now, or as soon as what may not be interrupted is over. A signal handler."""
    if _State.is_ending:
        return
    if _State.depth:
        _State.is_waiting = True
        return
    raise KeyboardInterrupt


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold an interrupt back: for what takes milliseconds."""
    _State.depth += 1
    try:
        yield
    finally:
        _State.depth -= 1
        if _State.is_waiting and not _State.depth:
            _State.is_waiting = False
            raise KeyboardInterrupt


@contextmanager
def heard() -> Iterator[None]:
    """For the main program: both signals interrupt it, until `end` is called or it is left."""
    for number in SIGNALS:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in SIGNALS:  # what is left to do is to exit
            signal.signal(number, signal.SIG_IGN)


def end() -> None:
    """From here on a signal changes nothing: the program is about to say why it ends."""
    _State.is_ending = signal.getsignal(signal.SIGINT) is interrupt
