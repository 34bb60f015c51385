"""Commands in processes that were forked from one with everything imported: a killed process costs 0.1 s, not 1.5.

What runs is the command line itself, `cli.main` with its arguments, in a process of its own with its own folder,
environment and files for what it says; only the interpreter's start and the imports are shared.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import mkdtemp

import pytest
from command_line import Project, Result, check_manners, environment

from semtel_batch import cli, crashpoints, interrupts
from semtel_batch.transport import batch, batch_api, workers
from semtel_batch.transport.verdicts import Patience

GROUP = 7
"""Answers written down at once: few, so that a small run has every step of a large one, parts to merge for instance."""

CALL_S = 1.0
"""After so long a call without an answer is in doubt."""

_PATIENCE_S = 60
_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["warm_up"])
_NUMBERS = count(1)


@dataclass(frozen=True)
class Command:
    """A command that was started."""

    process: ForkServerProcess
    said: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def has_begun(self) -> bool:
        """Whether the command itself runs, and not what comes before it."""
        return self.said.with_suffix(".begun").exists()

    @property
    def is_running(self) -> bool:
        return self.process.is_alive()

    def ended(self, within_s: float = _PATIENCE_S) -> Result:
        """Wait for its end; a negative exit code is the signal that killed it."""
        self.process.join(within_s)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise TimeoutError(f"{self.process.name} ran longer than {within_s} s: {self._read('.err')}")
        return Result(self.process.exitcode, self._read(".out"), self._read(".err"))

    def _read(self, ending: str) -> str:
        return self.said.with_suffix(ending).read_text(encoding="utf-8")


def start(
    project: Project, *arguments: str, environ: Mapping[str, str] | None = None, max_file_bytes: int = -1
) -> Command:
    """Start a command in a project. No file of its may grow beyond `max_file_bytes`, as if the disk were full."""
    said = Path(mkdtemp(prefix="said-", dir=project.folder.parent)) / f"{next(_NUMBERS)}"
    seen = environment(project.folder, {**project.environ, **(environ or {})})
    _start_server()
    process = _FORKING.Process(
        target=_run, args=(project.folder, arguments, seen, said, max_file_bytes), name=" ".join(arguments)
    )
    process.start()
    return Command(process, said)


def _start_server() -> None:
    with pytest.MonkeyPatch.context() as patch:  # the server does not take on sys.path
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
        forkserver.ensure_running()


def run(project: Project, *arguments: str, environ: Mapping[str, str] | None = None) -> Result:
    """Run a command to its end, which may be a crash point."""
    result = start(project, *arguments, environ=environ).ended()
    return result if result.exit_code < 0 else check_manners(result)


def _run(folder: Path, arguments: tuple[str, ...], environ: Mapping[str, str], said: Path, max_file_bytes: int) -> None:
    """In the new process: take on folder, environment and files, and be the command."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    for descriptor, ending in ((1, ".out"), (2, ".err")):
        file = os.open(said.with_suffix(ending), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, descriptor)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    _hurry()
    crashpoints.listen(environ)
    sys.argv = ["semtel-batch", *arguments]
    for number in interrupts.SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # until the command itself hears them
    said.with_suffix(".begun").touch()
    cli.main(prog_name="semtel-batch")


def _hurry() -> None:
    """Small groups and short waits, so that a small run has every step of a large one and takes no time."""
    batch._GROUP_SIZE = workers.GROUP_SIZE = GROUP
    batch_api._CALL_S = batch_api._TRANSFER_S = CALL_S
    quick = Patience(n_tries=5, n_rate_limited=5, longest_wait_s=60.0, base_s=0.01, looks_s=(0.02, 0.1))
    Patience.with_objects = lambda: quick  # type: ignore[method-assign]
