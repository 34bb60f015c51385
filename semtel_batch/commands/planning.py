"""`plan`, and the first half of `run`."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from semtel_batch import config
from semtel_batch.clock import SystemClock
from semtel_batch.commands.session import Session, open_session
from semtel_batch.config import Settings
from semtel_batch.conversations import Columns
from semtel_batch.engines.local import Wish, make_plan, try_out
from semtel_batch.errors import BadConfig, Infeasible
from semtel_batch.plans import Objective, Plan, Sample

_NO_LIMIT = "none"  # as a value of --what-if


def plan(options: Mapping[str, Any], wish: Mapping[str, Any], explain: bool, what_if: Sequence[str] = ()) -> None:
    session = open_session(options)
    if what_if:
        settings = session.settings
        asked = _wish(settings, wish)
        variants = [pair for text in what_if for pair in _variants(asked.objective, text)]
        found = try_out(settings, asked, SystemClock(), variants)
        session.console.show_variants(found)
        if all(one.plan is None for one in found):
            raise Infeasible(f"No plan keeps any of {', '.join(one.asked for one in found)}; the reasons stand above.")
        return
    session.console.show_plan(planned(session, wish), explain=explain)


def _variants(objective: Objective, text: str) -> list[tuple[str, Objective]]:
    """The objectives that a text such as "deadline=6h,12h" asks for, each with what it was asked by."""
    name, _, values = text.partition("=")
    listed = [value.strip() for value in values.split(",") if value.strip()]
    if name not in _LIMITS or not listed:
        raise BadConfig(
            f"--what-if {text!r} is not LIMIT=VALUES with LIMIT one of {', '.join(_LIMITS)}; "
            "write, say, deadline=6h,12h,24h or deadline=none."
        )
    field, read = _LIMITS[name]
    return [
        (f"{name}={value}", replace(objective, **{field: None if value == _NO_LIMIT else read(value)}))
        for value in listed
    ]


def _agreement(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise BadConfig(f"{text!r} is not an agreement; write a share from 0 to 1, such as 0.95.")
    return share


_LIMITS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "deadline": ("deadline_s", config.parse_duration),
    "budget": ("budget_usd", config.parse_usd),
    "min-agreement": ("min_agreement", _agreement),
}


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
        columns=columns_of(settings.columns, options["columns"]),
        sample=_sample(options["sample"], options["seed"]),
    )


def _sample(n: int | None, seed: int | None) -> Sample | None:
    if n is None:
        if seed is not None:
            raise BadConfig("--seed is of --sample; say how many conversations to draw with --sample N.")
        return None
    return Sample(seed=secrets.randbelow(2**31) if seed is None else seed, n=n)


def columns_of(columns: Columns, renamed: tuple[str, ...]) -> Columns:
    known = {field.name for field in fields(Columns)}
    for pair in renamed:
        name, _, yours = pair.partition("=")
        if name not in known or not yours:
            raise BadConfig(f"--column {pair!r} is not NAME=YOURS with NAME one of {', '.join(sorted(known))}.")
        columns = replace(columns, **{name: yours})
    return columns
