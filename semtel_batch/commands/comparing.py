"""`compare`: two runs over the same conversations, or two ways of asking that are tried on a sample."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semtel_batch import config
from semtel_batch.clock import SystemClock
from semtel_batch.commands.session import open_session
from semtel_batch.commands.sides import is_plan
from semtel_batch.commands.trials import Course, grown, sampled, trial_of
from semtel_batch.console.figures import share
from semtel_batch.errors import BadInput, Incomplete
from semtel_batch.plans import Plan
from semtel_batch.pseudonyms import under_pseudonyms
from semtel_batch.quality.distribution import Halo
from semtel_batch.session import Session
from semtel_batch.store import Store
from semtel_batch.studies.compare import Comparison, Criteria, Sides, compare, hanging_together, ranked, said
from semtel_batch.studies.gold import read_gold
from semtel_batch.studies.labelling import labelled
from semtel_batch.studies.repeats import asked_again
from semtel_batch.studies.trial import Watched, parse_waves
from semtel_batch.wishes import columns_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line says of a comparison of plans, besides its sides."""

    gold: Path | None
    criteria: Criteria


def compare_sides(options: Mapping[str, Any], sides: tuple[str, ...], wish: Mapping[str, Any]) -> None:
    """Compare two plans as they are, or ask the sides about a sample of the data."""
    session = open_session(options)
    criteria = Criteria(max_shift=wish["max_shift"])
    if wish["data"] is None and len(sides) == 2 and all(map(is_plan, sides)):
        if wish["wave"] or wish["grid"]:
            raise BadInput("Two plans have been asked already; --wave and --grid are for sides like model=NAME.")
        _compare_plans(session, sides, Asked(gold=wish["gold"], criteria=criteria))
    elif len(sides) < 2:
        raise BadInput(f"compare takes two sides, A and B; {len(sides)} was given.")
    else:
        _try(session, sides, wish, criteria)


def compare_reported(options: Mapping[str, Any], sides: tuple[str, str], html: Path | None) -> None:
    """`report --compare A B`: two plans as they are, on the screen or on a page."""
    session, asked = open_session(options), Asked(gold=None, criteria=Criteria())
    if html is None:
        _compare_plans(session, sides, asked)
        return
    from semtel_batch.page import comparison_sheet, write_sheet  # a template engine and charts

    about, found, _ = _two_plans(session, sides, asked)
    size = write_sheet(comparison_sheet(found, about, said(found), SystemClock().now()), html)
    if session.console.options.json:
        session.console.show_json({"path": str(html), "bytes": size})
    session.console.show_text(f"wrote {html} ({size:,} bytes)")


def _compare_plans(session: Session, sides: Sequence[str], asked: Asked) -> None:
    about, found, halos = _two_plans(session, sides, asked)
    session.console.show_comparison(about, found, verdict=said(found), halos=halos)


def _two_plans(
    session: Session, sides: Sequence[str], asked: Asked
) -> tuple[list[tuple[str, str]], tuple[Comparison, ...], tuple[Halo, ...]]:
    """What two plans are, and what their comparison found."""
    with session.store() as store:
        a, b = (store.plan(side) for side in sides)
        if a.id == b.id:
            raise BadInput(f"Plan {a.id} can't be compared with itself; run it again with --fresh for its noise.")
        found, halos = compared(session, store, (a, b), asked)
    return [("A", f"{a.id}: {_side(a)}"), ("B", f"{b.id}: {_side(b)}")], found, halos


def _try(session: Session, sides: tuple[str, ...], wish: Mapping[str, Any], criteria: Criteria) -> None:
    wished = {
        **wish,
        "criteria": criteria,
        "waves": parse_waves(wish["wave"]) if wish["wave"] else (),
        "seed": secrets.randbelow(2**31) if wish["seed"] is None else wish["seed"],
        "deadline_s": config.parse_duration(wish["deadline"]) if wish["deadline"] else None,
        "max_disagreement": None if wish["min_agreement"] is None else round(1 - wish["min_agreement"], 12),
    }
    course = Course(
        session,
        trial_of(session, sides, wished),
        columns_of(session.settings.columns, wish["columns"]),
        yes=wish["yes"],
    )
    found = sampled(course, wish["gold"])
    if len(found) > 1:
        session.console.show_ranking(ranked(course.trial.sides, found, course.costs()))
        return
    seen, stopped = grown(course, found[0], accept_shift=wish["accept_shift"]) if course.trial.waves else ((), None)
    about = [("A", course.trial.sides[0]), ("B", course.trial.sides[1]), ("sample", course.told()), *_audits(seen)]
    about += [("stopped", stopped)] if stopped else []
    session.console.show_comparison(about, found[0], verdict=said(found[0]))
    if stopped:
        raise Incomplete(f"The comparison {stopped}.")


def _audits(seen: Sequence[Watched]) -> list[tuple[str, str]]:
    return [
        (
            "waves",
            f"{w.classifier}: {w.seen.n_different} of {w.seen.n} audited differ, {share(w.limit)} may: {w.standing}",
        )
        for w in seen
    ]


def compared(
    session: Session, store: Store, plans: tuple[Plan, Plan], asked: Asked
) -> tuple[tuple[Comparison, ...], tuple[Halo, ...]]:
    """Compare what both plans have labelled so far, each classifier and each two of them."""
    a, b = (labelled(store, plan) for plan in plans)
    gold = read_gold(asked.gold) if asked.gold else None
    hash_ids = session.settings.hash_ids
    if gold is not None and hash_ids is not None:
        gold = under_pseudonyms(gold, a["conversation_id"], hash_ids)
    again = asked_again(store, plans[0], besides=[plans[1].id])
    sides = Sides(a=a, b=b, again=again, gold=gold)
    of = plans[1].classifiers
    return compare(sides, of, asked.criteria), hanging_together(sides, of, asked.criteria)


def _side(plan: Plan) -> str:
    """A plan in a line: what was asked of whom, and how."""
    models = dict.fromkeys(plan.endpoint(leg.endpoint).model for leg in plan.legs)
    recipes = dict.fromkeys(leg.strategy.recipe for leg in plan.legs)
    names = ", ".join(c.name for c in plan.classifiers)
    return f"{names} by {', '.join(models)}, {', '.join(recipes)}, over {plan.data.source}"
