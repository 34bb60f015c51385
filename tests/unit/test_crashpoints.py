"""Crash points: named, counted, logged, deadly when they are told to be, and nothing otherwise."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from semtel_batch.crashpoints import reach
for name in "a b a b c".split():
    reach(name)
    print(name, flush=True)
"""


def reached(at: str, log: Path | None = None) -> tuple[list[str], int]:
    """What a process that comes by five moments says before it dies, and how it ended."""
    environ = {"SEMTEL_CRASH_AT": at, "SEMTEL_CRASH_LOG": str(log or "")}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True)
    return done.stdout.split(), done.returncode


@pytest.mark.parametrize(
    ("at", "said"), [("a", ""), ("b", "a"), ("a:2", "a b"), ("c:1", "a b a b"), ("*:4", "a b a"), ("*:1", "")]
)
def test_it_dies_where_it_was_told_to(at: str, said: str) -> None:
    assert reached(at) == (said.split(), -signal.SIGKILL)


@pytest.mark.parametrize("at", ["", "a:3", "d", "*:6"])
def test_it_lives_where_nothing_is_reached(at: str) -> None:
    assert reached(at) == (["a", "b", "a", "b", "c"], 0)


def test_it_dies_once_at_each_new_moment(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert [len(reached("new", log)[0]) for _ in range(4)] == [0, 1, 4, 5]
    assert log.read_text().split() == ["a", "a", "b", "a", "b", "a", "b", "c", "a", "b", "a", "b", "c"]
