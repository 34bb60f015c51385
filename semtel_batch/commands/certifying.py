"""`certify`: a sample of a finished plan's labels against the reference strategy, and what may be said of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from semtel_batch import config, strategies
from semtel_batch.clock import SystemClock
from semtel_batch.commands.session import open_session
from semtel_batch.engines.local import Wish, make_plan
from semtel_batch.errors import BadInput, Incomplete, Infeasible
from semtel_batch.measurements import Kind
from semtel_batch.plans import Objective, Plan, Sample
from semtel_batch.quality.certificate import Target, percent, zero_error_size
from semtel_batch.quality.excess import NoiseFloor
from semtel_batch.records import Strategy, Tier
from semtel_batch.rows import PlanState
from semtel_batch.running import running
from semtel_batch.session import Session
from semtel_batch.store import Store
from semtel_batch.studies import calibrate, certify
from semtel_batch.studies.labelling import labelled
from semtel_batch.wishes import columns_of


def certify_plan(options: Mapping[str, Any], plan_id: str | None, asked: Mapping[str, Any]) -> None:
    session = open_session(options)
    with session.store() as store:
        plan = store.plan(plan_id)
        if store.plan_row(plan.id).state is not PlanState.DONE:
            raise BadInput(f"Plan {plan.id} is not done; collect it first: semtel-batch collect {plan.id} --wait")
        look = len(store.certificates(plan.id)) + 1
        target = certify.target_of(asked["min_agreement"], 1 - asked["confidence"], look)
        n = asked["n"] or certify.sample_for(target, plan.data.n_conversations)
        _warn_of_too_few(session, target, n, plan.data.n_conversations)
        made = _references(session, plan, asked, Sample(seed=_seed(plan, look), n=n, skip=_skip(plan)))
        _confirm(session, store, made, asked)
        for one in made:
            with running(session, store, one) as runner:
                runner.collect(wait=True)
        reference, *again = (labelled(store, one) for one in made)
        looked = certify.Looked(labels=labelled(store, plan), reference=reference, again=again[0] if again else None)
        model = made[0].endpoints[0].priced_as
        found = certify.audit(
            plan, looked, certify.Aim(target=target, look=look, model=model), _floors(store, plan, model)
        )
        document = [certify.as_json(one) for one in found]
        store.add_certificate(plan.id, json.dumps(document), SystemClock().now())
    session.console.show_certificates(plan.id, document)


def _warn_of_too_few(session: Session, target: Target, n: int, population: int) -> None:
    """A sample that can't certify whatever it shows is still an estimate, but nobody should pay for it unawares."""
    needed = zero_error_size(target, population)
    if n < needed:
        session.console.warn(
            f"{n} conversations can't certify that {percent(1 - target.max_disagreement)} of labels equal the "
            f"reference's, even if all of them do; at least {needed} are needed, leave -n out for enough."
        )


def _seed(plan: Plan, look: int) -> int:
    return plan.data.sample.seed if plan.data.sample else certify.seed_of(plan, look)


def _skip(plan: Plan) -> int:
    """A plan over a sample is audited within it."""
    return plan.data.sample.skip if plan.data.sample else 0


def _references(session: Session, plan: Plan, asked: Mapping[str, Any], sample: Sample) -> list[Plan]:
    """The reference strategy over the sample, and with --net once more."""
    settings, tier = session.settings, Tier(asked["tier"])
    if not settings.endpoints:
        raise BadInput("No endpoint is configured; add an [[endpoint]] to semtel.toml, or set OPENAI_API_KEY.")
    first = settings.endpoints[0]
    if tier not in first.tiers:
        raise BadInput(f"Endpoint {first.name!r} doesn't offer {tier}; choose another --tier.")
    (naive,) = strategies.find(["naive"])
    wish = Wish(
        source=plan.data.source,
        classifiers=tuple(c.name for c in plan.classifiers),
        objective=Objective(),
        columns=columns_of(settings.columns, asked["columns"]),
        sample=sample,
        points=(calibrate.point(naive, Strategy(recipe="naive", tier=tier)),),
    )
    one = replace(settings, endpoints=(first,))
    made = [make_plan(one, wish, SystemClock())]
    if {c.name: c.version for c in made[0].classifiers} != {c.name: c.version for c in plan.classifiers}:
        raise BadInput(f"The classifiers of plan {plan.id} were changed since; it can't be certified by the new ones.")
    return made + ([make_plan(one, replace(wish, fresh=True), SystemClock())] if asked["net"] else [])


def _confirm(session: Session, store: Store, made: list[Plan], asked: Mapping[str, Any]) -> None:
    high = sum(one.chosen.usd_high for one in made)
    n = made[0].data.n_conversations
    if asked["budget"] and high > config.parse_usd(asked["budget"]):
        _drop(session, store, made)
        raise Infeasible(f"Auditing {n} conversations may cost ${high:.4f}; raise --budget to that, or lower -n.")
    question = f"Spend at most ${high:.4f} on asking {n} conversations once more, one by one?"
    if high and not asked["yes"] and not session.console.confirm(question):
        _drop(session, store, made)
        raise Incomplete("Nothing was spent.")


def _drop(session: Session, store: Store, made: list[Plan]) -> None:
    for one in made:
        store.drop_plan(one.id)


def _floors(store: Store, plan: Plan, model: str) -> list[NoiseFloor]:
    """The noise floors that a calibration measured of these classifiers."""
    newest: dict[str, NoiseFloor] = {}
    for one in store.evidence([c.version for c in plan.classifiers]):
        if one.kind is Kind.SELF_FLIP and one.max_tokens is None and one.reference == model:
            floor = NoiseFloor(classifier=one.classifier, n=one.n, n_flipped=one.n_different)
            newest.setdefault(one.classifier, floor)
    return list(newest.values())
