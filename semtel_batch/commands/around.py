"""`init`, `doctor` and `sandbox`: what stands around a job."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semtel_batch import config
from semtel_batch.clock import SystemClock
from semtel_batch.commands.session import open_session
from semtel_batch.errors import BadConfig, BadInput
from semtel_batch.project import find_data, make_project


def init(options: Mapping[str, Any], folder: Path | None) -> None:
    session = open_session(options)
    place = folder or session.project
    written = make_project(place, os.environ)
    for path in written:
        session.console.say(f"wrote {path}")
    if session.console.options.json:
        session.console.show_json({"written": [str(path) for path in written]})
    for line in _what_next(place, os.environ):
        session.console.show_text(line)


def _what_next(place: Path, environ: Mapping[str, str]) -> list[str]:
    """The first steps in this project, with what is known of keys and data."""
    program = "semtel-batch" if place == Path() else f"semtel-batch --project {place}"
    names = [name for name in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY") if environ.get(name)]
    if not names:
        return [f"Next: name your endpoint in {place / config.FILE}, export its key, and run:", f"  {program} doctor"]
    data = find_data(place) or find_data(Path())
    first = f"  {program} run {data or 'DATA'} --sample 20"
    return [f"{names[0]} is set. Next:", f"  {program} doctor", first]


def sandbox(options: Mapping[str, Any], port: int, settings: Path | None) -> None:
    from semtel_batch.sandbox.server import run as serve  # a web server that no other command needs

    session = open_session(options)

    def announce(base_url: str) -> None:
        if session.console.options.json:
            session.console.show_json({"base_url": base_url})
        session.console.show_text(base_url)

    try:
        serve(port, settings, announce)
    except ImportError as error:
        raise BadInput(
            f"The sandbox needs more packages ({error.name}); run: pip install 'semtel-batch[sandbox]'"
        ) from error
    except OSError as error:
        raise BadInput(
            f"The sandbox can't listen on port {port} ({error.strerror}); choose another with --port."
        ) from error
    except ValueError as error:  # the sandbox imports nothing of ours, so not our errors either
        raise BadInput(f"The sandbox's settings can't be used: {error}; see --config.") from error


def doctor(options: Mapping[str, Any], offline: bool) -> None:
    from semtel_batch import checkup  # imports what every other command needs of the rest

    session = open_session(options)
    findings = checkup.examine(session.project, session.environ, SystemClock().now(), offline=offline)
    session.console.show_findings(findings)
    if any(finding.is_fatal for finding in findings):
        raise BadConfig("Something above must be mended before a plan can run.")
