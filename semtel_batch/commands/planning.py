"""`plan`, and the first half of `run`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from semtel_batch import config
from semtel_batch.clock import SystemClock
from semtel_batch.commands.session import open_session
from semtel_batch.engines.local import make_plan, try_out
from semtel_batch.errors import BadConfig, Infeasible
from semtel_batch.planner.sweep import SEARCHES, Sought
from semtel_batch.plans import Objective, Plan
from semtel_batch.session import Session
from semtel_batch.spread import Engine, opened_engine
from semtel_batch.wishes import wish_of

_NO_LIMIT = "none"  # as a value of --what-if


def plan(options: Mapping[str, Any], wish: Mapping[str, Any], explain: bool, what_if: Sequence[str] = ()) -> None:
    session = open_session(options)
    with opened_engine(wish, session.project) as engine:
        _plan(session, wish, engine, explain, what_if)


def _plan(session: Session, wish: Mapping[str, Any], engine: Engine, explain: bool, what_if: Sequence[str]) -> None:
    if what_if:
        settings = session.settings
        asked = wish_of(settings, wish)
        variants = [pair for text in what_if for pair in _variants(asked.objective, text)]
        found = try_out(settings, asked, SystemClock(), variants, engine.reader)
        session.console.show_variants(found)
        if all(one.plan is None for one in found):
            raise Infeasible(f"No plan keeps any of {', '.join(one.asked for one in found)}; the reasons stand above.")
        return
    made = planned(session, wish, engine)
    session.console.show_plan(made, explain=explain)


def _variants(objective: Objective, text: str) -> list[tuple[str, Objective | Sought]]:
    """The objectives that a text such as "deadline=6h,earliest" asks for, each with what it was asked by."""
    name, _, values = text.partition("=")
    listed = [value.strip() for value in values.split(",") if value.strip()]
    if name not in _LIMITS or not listed:
        raise BadConfig(
            f"--what-if {text!r} is not LIMIT=VALUES with LIMIT one of {', '.join(_LIMITS)}; "
            "write, say, deadline=6h,12h,24h or deadline=none."
        )
    return [(f"{name}={value}", _variant(objective, name, value)) for value in listed]


def _variant(objective: Objective, name: str, value: str) -> Objective | Sought:
    field, read = _LIMITS[name]
    if value in SEARCHES[name]:
        return Sought(limit=name, word=value, objective=objective)
    return replace(objective, **{field: None if value == _NO_LIMIT else read(value)})


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


def planned(session: Session, wish: Mapping[str, Any], engine: Engine) -> Plan:
    settings = session.settings
    return make_plan(settings, wish_of(settings, wish), SystemClock(), engine.reader)
