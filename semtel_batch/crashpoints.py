"""Named moments at which a test may kill this process, as a power cut would: no cleanup, no goodbye.

Every step of a run that changes something, here or at a provider, says before or after it that it was reached. Two
environment variables listen: SEMTEL_CRASH_LOG=FILE writes the names down, SEMTEL_CRASH_AT=NAME or NAME:3 kills the
process when that one is reached (for the third time); *:30 is the thirtieth of any name. Without them, reaching costs
one comparison.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class _Listener:
    name: str
    turn: int
    log: Path | None
    seen: Counter[str] = field(default_factory=Counter)

    def hear(self, name: str) -> None:
        self.seen[name] += 1
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(f"{name}\n")
        turn = self.seen.total() if self.name == "*" else self.seen[name] if self.name == name else 0
        if turn == self.turn:
            os.kill(os.getpid(), signal.SIGKILL)


def _listener(environ: Mapping[str, str]) -> _Listener | None:
    at, log = environ.get("SEMTEL_CRASH_AT", ""), environ.get("SEMTEL_CRASH_LOG", "")
    name, _, turn = at.partition(":")
    if not at and not log:
        return None
    return _Listener(name=name, turn=int(turn or 1), log=Path(log) if log else None)


_listening = _listener(os.environ)


def listen(environ: Mapping[str, str]) -> None:
    """Read the variables anew, in a process that was forked after this module was imported."""
    global _listening
    _listening = _listener(environ)


def reach(name: str) -> None:
    """Say that a moment has come."""
    if _listening is not None:
        _listening.hear(name)
