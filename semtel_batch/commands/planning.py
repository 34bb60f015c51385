"""`plan`, and the first half of `run`."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from semtel_batch import config
from semtel_batch.clock import SystemClock
from semtel_batch.commands.session import Session, open_session
from semtel_batch.config import Settings
from semtel_batch.conversations import Columns
from semtel_batch.engines.local import Wish, make_plan
from semtel_batch.errors import BadConfig
from semtel_batch.plans import Objective, Plan, Sample


def plan(options: Mapping[str, Any], wish: Mapping[str, Any], explain: bool) -> None:
    session = open_session(options)
    session.console.show_plan(planned(session, wish), explain=explain)


def planned(session: Session, wish: Mapping[str, Any]) -> Plan:
    settings = session.settings
    return make_plan(settings, _wish(settings, wish), SystemClock())


def _wish(settings: Settings, options: Mapping[str, Any]) -> Wish:
    """Options of the command line, the project's defaults where they are left out."""
    defaults = settings.defaults
    agreement = options["min_agreement"]
    return Wish(
        source=options["data"],
        classifiers=tuple(options["classifiers"]),
        objective=Objective(
            deadline_s=config.parse_duration(options["deadline"]) if options["deadline"] else defaults.deadline_s,
            budget_usd=config.parse_usd(options["budget"]) if options["budget"] else defaults.budget_usd,
            min_agreement=defaults.min_agreement if agreement is None else agreement,
        ),
        recipes=tuple(options["recipes"]),
        assume=options["assume"],
        fresh=options["fresh"],
        columns=_columns(settings.columns, options["columns"]),
        sample=_sample(options["sample"], options["seed"]),
    )


def _sample(n: int | None, seed: int | None) -> Sample | None:
    if n is None:
        if seed is not None:
            raise BadConfig("--seed is of --sample; say how many conversations to draw with --sample N.")
        return None
    return Sample(seed=secrets.randbelow(2**31) if seed is None else seed, n=n)


def _columns(columns: Columns, renamed: tuple[str, ...]) -> Columns:
    known = {field.name for field in fields(Columns)}
    for pair in renamed:
        name, _, yours = pair.partition("=")
        if name not in known or not yours:
            raise BadConfig(f"--column {pair!r} is not NAME=YOURS with NAME one of {', '.join(sorted(known))}.")
        columns = replace(columns, **{name: yours})
    return columns
