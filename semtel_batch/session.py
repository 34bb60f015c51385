"""A project being worked on: where it is, and whom it speaks to. The command line and Python have it in common."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from semtel_batch import config
from semtel_batch.config import Settings
from semtel_batch.console import Console
from semtel_batch.keys import Keys
from semtel_batch.store import Store


@dataclass(frozen=True, slots=True)
class Session:
    """Where a project is, and how to speak to its user and its endpoints."""

    project: Path
    console: Console
    tasks: int  # processes that the user says ask the same endpoints, this one too
    on_done: tuple[str, ...] = ()  # the program and arguments to run when a plan is over

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
