"""`compare`: two runs over the same conversations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semtel_batch.commands.session import Session, open_session
from semtel_batch.errors import BadInput
from semtel_batch.plans import Plan
from semtel_batch.pseudonyms import under_pseudonyms
from semtel_batch.store import Store
from semtel_batch.studies.compare import Comparison, Criteria, Sides, compare, overall
from semtel_batch.studies.gold import read_gold
from semtel_batch.studies.labelling import labelled
from semtel_batch.studies.repeats import asked_again


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line says of a comparison, besides its sides."""

    gold: Path | None
    criteria: Criteria


def compare_plans(options: Mapping[str, Any], sides: tuple[str, ...], gold: Path | None, max_shift: float) -> None:
    session = open_session(options)
    asked = Asked(gold=gold, criteria=Criteria(max_shift=max_shift))
    if len(sides) != 2:
        raise BadInput(f"compare takes two plans, A and B; {len(sides)} were given.")
    with session.store() as store:
        a, b = (store.plan(side) for side in sides)
        if a.id == b.id:
            raise BadInput(f"Plan {a.id} can't be compared with itself; run it again with --fresh for its noise.")
        found = compared(session, store, (a, b), asked)
    about = [("A", f"{a.id}: {_side(a)}"), ("B", f"{b.id}: {_side(b)}")]
    session.console.show_comparison("Compared", found, about, verdict=overall(found).value)


def compared(session: Session, store: Store, plans: tuple[Plan, Plan], asked: Asked) -> tuple[Comparison, ...]:
    """Compare what both plans have labelled so far."""
    a, b = (labelled(store, plan) for plan in plans)
    gold = read_gold(asked.gold) if asked.gold else None
    hash_ids = session.settings.hash_ids
    if gold is not None and hash_ids is not None:
        gold = under_pseudonyms(gold, a["conversation_id"], hash_ids)
    again = asked_again(store, plans[0], besides=[plans[1].id])
    return compare(Sides(a=a, b=b, again=again, gold=gold), plans[1].classifiers, asked.criteria)


def _side(plan: Plan) -> str:
    """A plan in a line: what was asked of whom, and how."""
    models = dict.fromkeys(plan.endpoint(leg.endpoint).model for leg in plan.legs)
    recipes = dict.fromkeys(leg.strategy.recipe for leg in plan.legs)
    names = ", ".join(c.name for c in plan.classifiers)
    return f"{names} by {', '.join(models)}, {', '.join(recipes)}, over {plan.data.source}"
