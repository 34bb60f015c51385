"""Where keys come from: the environment, or a command that prints one (`api_key_cmd`).

A command comes from semtel.toml only, never from a plan: a store that was copied from elsewhere must not be able to
say what is run here. Plans hold the words `api_key_cmd of 'NAME'` in the place of a variable's name.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping

from semtel_batch.errors import BadConfig, KeyMissing

PATIENCE_S = 60.0  # a password manager may want a finger on its sensor
_PREFIX = "api_key_cmd of "

Commands = Mapping[str, tuple[str, ...]]
"""The program and its arguments by endpoint."""


def printed_by(endpoint: str) -> str:
    """What stands in the place of a variable's name for an endpoint whose key a command prints."""
    return f"{_PREFIX}'{endpoint}'"


class Keys(Mapping[str, str]):
    """The environment, in which what an endpoint's command prints is a variable too. Each command runs once."""

    def __init__(self, environ: Mapping[str, str], commands: Callable[[], Commands]) -> None:
        self._environ, self._commands = environ, commands
        self._printed: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        if not name.startswith(_PREFIX):
            return self._environ[name]
        if name not in self._printed:
            endpoint = name.removeprefix(_PREFIX).strip("'")
            command = self._commands().get(endpoint)
            if command is None:
                raise BadConfig(
                    f"Endpoint '{endpoint}' takes its key from api_key_cmd, and semtel.toml has none for it; "
                    "add it again, or plan again."
                )
            self._printed[name] = _run(endpoint, command)
        return self._printed[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)


def _run(endpoint: str, command: tuple[str, ...], patience_s: float = PATIENCE_S) -> str:
    """What a command prints, without a shell. Neither its output nor its arguments are ever shown: they may be keys."""
    what = f"api_key_cmd of endpoint '{endpoint}'"
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=patience_s, check=False, shell=False
        )
    except subprocess.TimeoutExpired:
        raise KeyMissing(f"{what} printed no key within {patience_s:.0f} s; run it by hand to see why.") from None
    except (OSError, ValueError):
        raise KeyMissing(
            f"{what} can't be run; give a program that is on the PATH, or its whole path, and each argument by itself."
        ) from None
    key = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode or not key:
        ended = f"ended with exit code {done.returncode}" if done.returncode else "printed nothing"
        raise KeyMissing(f"{what} {ended}; run it by hand to see why (its output is never shown here).")
    return key
