"""The second half of `calibrate --min-agreement`: measured ways tried on fresh conversations, until one fails.

What is tried, and on how many, follows from the explored part and the budget alone: a pilot that was broken off is
taken up where it stood by the same command.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from semtel_batch import strategies
from semtel_batch.commands.arms import audited, drop_arms, set_apart
from semtel_batch.commands.pilot_plans import Trials
from semtel_batch.commands.walking import NotWorth, walked
from semtel_batch.conversations import load_index
from semtel_batch.engines.local import Wish
from semtel_batch.measurements import Calibration, Pilot, Role
from semtel_batch.planner.promise import target_of
from semtel_batch.plans import Plan
from semtel_batch.records import Strategy
from semtel_batch.session import Session
from semtel_batch.store import Store, plan_folder
from semtel_batch.studies import calibrate as study
from semtel_batch.studies import piloting
from semtel_batch.studies.labelling import labelled


def certified(session: Session, store: Store, wish: Wish, found: Calibration, findings: study.Findings) -> Calibration:
    """Try mixes of ways on fresh conversations, safest first, and write down how far they hold.

    Where nothing can be mixed, the measured ways are tried as they are.
    """
    trials = Trials(
        session=session,
        store=store,
        wish=wish,
        calibration=found,
        usd=(found.budget_usd or Decimal(0)) - findings.spent_usd,
        reference_usd_per_1000=findings.reference_usd_per_1000,
    )
    pilot = _begun(store, found)
    tried = walked(trials, pilot)
    if isinstance(tried, NotWorth):
        tried = replace(pilot, stopped=str(tried))
    elif isinstance(tried, str):
        session.console.say(f"ways are tried one by one: {tried}")
        tried = _one_by_one(trials, pilot, tried, findings)
    return replace(trials.calibration, pilot=tried)


def _one_by_one(trials: Trials, pilot: Pilot, why: str, findings: study.Findings) -> Pilot:
    """Try single ways, where no mixes could be."""
    store, found = trials.store, trials.calibration
    target = target_of(pilot)
    room = piloting.Room(
        usd=trials.usd,
        n_fresh=pilot.population,
        n_verify=found.n_verify,
        reference_usd_per_1000=findings.reference_usd_per_1000,
    )
    path = piloting.lay(findings.measured, findings.reference_usd_per_1000, target.max_disagreement)
    layout = piloting.lay_out(path, room, target)
    if layout.problem:
        return replace(pilot, stopped=f"{layout.problem} ({why})")
    naive = Strategy(recipe="naive", tier=found.tier)
    reference = trials.found(Role.VERIFY_REFERENCE, naive, pilot.reference)
    if reference is None:
        arm, reference = trials.made(Role.VERIFY_REFERENCE, strategies.find(["naive"])[0], naive, layout.n)
        trials.keep(arm)
    reference = trials.ran(reference)
    pilot = replace(pilot, reference_plan_id=reference.id)
    for one in layout.path:
        plan = _planned(trials, one, layout.n, room, reference)
        if plan is None:
            pilot = replace(
                pilot, stopped=f"trying {one.strategy.recipe} may cost more than what is left of the budget"
            )
            break
        trials.ran(plan)
        labels = audited(store, plan, labelled(store, plan))
        counts = piloting.count(labelled(store, reference), labels, plan)
        pilot = piloting.with_step(pilot, one, plan.id, counts)
        if not pilot.steps[-1].is_certified:
            break
    return pilot


def _begun(store: Store, found: Calibration) -> Pilot:
    first = store.plan(found.arms[0].plan_id)
    return Pilot(
        min_agreement=found.min_agreement or 0.0,
        delta=piloting.level(piloting.n_before(store.calibrations(), found)),
        reference=first.endpoints[0].priced_as,
        reference_plan_id=None,
        population=found.n_population - found.n_explore,
        n_data=found.n_population,
        classifiers=tuple(classifier.name for classifier in first.classifiers),
    )


def _planned(trials: Trials, one: study.Measured, n: int, room: piloting.Room, reference: Plan) -> Plan | None:
    """The plan that tries a way: one fresh conversation a request; None where the budget doesn't bear it."""
    plan = trials.found(Role.VERIFY, one.strategy, one.model)
    if plan is not None:
        return plan
    settings = trials.session.settings
    recipes = strategies.find(trials.wish.recipes, settings.strategies)
    recipe = next(recipe for recipe in recipes if recipe.name == one.strategy.recipe)
    k = one.strategy.conversations_per_request
    n_audited = piloting.n_of(one, room.n_fresh, n)
    arm, plan = trials.made(Role.VERIFY, recipe, one.strategy, n_audited * k)
    if plan.chosen.usd_high > trials.left_usd():
        drop_arms(trials.session, [arm])
        return None
    if k > 1:
        folder = plan_folder(trials.session.project, reference.id)
        fresh = load_index(folder / "conversations", ["conversation_id"])["conversation_id"]
        set_apart(trials.session, plan, fresh, n_audited)
    trials.keep(arm)
    return plan
