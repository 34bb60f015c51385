"""What every command has: where the project is, and whom it speaks to."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semtel_batch import config
from semtel_batch.config import Settings
from semtel_batch.console import Console, Options
from semtel_batch.keys import Keys
from semtel_batch.store import Store


@dataclass(frozen=True, slots=True)
class Session:
    """What every command has: where the project is, and whom it speaks to."""

    project: Path
    console: Console
    tasks: int  # processes that the user says ask the same endpoints, this one too

    @property
    def settings(self) -> Settings:
        return config.load(self.project, os.environ)

    @property
    def environ(self) -> Keys:
        """The environment, with what an endpoint's api_key_cmd prints; semtel.toml is read only if one is needed."""
        return Keys(os.environ, lambda: self.settings.key_commands)

    @contextmanager
    def store(self) -> Iterator[Store]:
        with closing(Store(self.project, create=False)) as store:
            yield store


def open_session(options: Mapping[str, Any]) -> Session:
    console = Console(Options(json=options["as_json"], quiet=options["quiet"], verbose=options["verbose"]))
    _log_to_stderr(options["verbose"])
    return Session(options["project"], console, options.get("tasks", 1))


def say_guarded(session: Session, path: Path, n: int) -> None:
    """Warn of cells in a CSV that are not as they were."""
    if n:
        session.console.warn(
            f"{n:,} cells of {path} begin like a formula and have a ' before them, so that no spreadsheet runs them; "
            "`labels --raw` leaves them as they are."
        )


def _log_to_stderr(verbose: bool) -> None:
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("semtel_batch").setLevel(logging.DEBUG if verbose else logging.WARNING)
