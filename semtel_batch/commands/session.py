"""What the command line says about a session: output, messages, what to run at the end."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semtel_batch.console import Console, Options
from semtel_batch.errors import BadInput
from semtel_batch.logs import JsonLines
from semtel_batch.session import Session


def open_session(options: Mapping[str, Any]) -> Session:
    as_lines = options.get("log_json", False)
    console = Console(
        Options(json=options["as_json"], quiet=options["quiet"], verbose=options["verbose"], log_json=as_lines)
    )
    _log_to_stderr(verbose=options["verbose"], as_lines=as_lines)
    return Session(options["project"], console, options.get("tasks", 1), _arguments(options.get("on_done")))


def _arguments(command: str | None) -> tuple[str, ...]:
    """A command's program and arguments, as a shell would split them; none is run."""
    if command is None:
        return ()
    try:
        found = tuple(shlex.split(command))
    except ValueError as error:
        raise BadInput(f"--on-done {command!r} can't be split into arguments ({error}); close its quotes.") from error
    if not found:
        raise BadInput("--on-done is empty; give a program and its arguments.")
    return found


def say_guarded(session: Session, path: Path, n: int) -> None:
    """Warn of cells in a CSV that are not as they were."""
    if n:
        session.console.warn(
            f"{n:,} cells of {path} begin like a formula and have a ' before them, so that no spreadsheet runs them; "
            "`labels --raw` leaves them as they are."
        )


def _log_to_stderr(*, verbose: bool, as_lines: bool) -> None:
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    if as_lines:
        logging.captureWarnings(True)
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonLines())
    logging.getLogger("semtel_batch").setLevel(logging.DEBUG if verbose else logging.WARNING)
