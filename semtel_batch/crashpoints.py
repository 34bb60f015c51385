"""Named moments at which a test may kill this process, as a power cut would: no cleanup, no goodbye.

Every step of a run that changes something, here or at a provider, says before or after it that it was reached. Two
environment variables listen. SEMTEL_CRASH_LOG=FILE writes the names down. SEMTEL_CRASH_AT kills the process: NAME or
NAME:3 when that one is reached (for the third time), *:30 at the thirtieth of any name, `new` at the first whose name
the file does not hold yet. Without them, reaching costs one comparison.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_ANY, _NEW = "*", "new"


@dataclass(slots=True)
class _Listener:
    name: str
    turn: int
    log: Path | None
    known: frozenset[str]
    seen: Counter[str] = field(default_factory=Counter)

    def hear(self, name: str) -> None:
        self.seen[name] += 1
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(f"{name}\n")
        if self._is_it(name):
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_it(self, name: str) -> bool:
        if self.name == _NEW:
            return name not in self.known
        if self.name == _ANY:
            return self.seen.total() == self.turn
        return self.name == name and self.seen[name] == self.turn


def _listener(environ: Mapping[str, str]) -> _Listener | None:
    at, log = environ.get("SEMTEL_CRASH_AT", ""), environ.get("SEMTEL_CRASH_LOG", "")
    if not at and not log:
        return None
    name, _, turn = at.partition(":")
    path = Path(log) if log else None
    known = path.read_text(encoding="utf-8").split() if path is not None and path.exists() else ()
    return _Listener(name=name, turn=int(turn or 1), log=path, known=frozenset(known))


_listening = _listener(os.environ)


def listen(environ: Mapping[str, str]) -> None:
    """Read the variables anew, in a process that was forked after this module was imported."""
    global _listening
    _listening = _listener(environ)


def reach(name: str) -> None:
    """Say that a moment has come."""
    if _listening is not None:
        _listening.hear(name)
