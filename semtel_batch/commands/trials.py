"""`compare … --data`: asks both sides about a small sample, says what it shows, and lets the new one grow in waves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from semtel_batch.clock import SystemClock
from semtel_batch.commands.sides import crossed, find_side, is_plan
from semtel_batch.console.figures import share
from semtel_batch.conversations import Columns
from semtel_batch.engines.local import Wish, make_plan
from semtel_batch.errors import BadInput, Incomplete
from semtel_batch.plans import Objective, Plan
from semtel_batch.pseudonyms import under_pseudonyms
from semtel_batch.rows import PlanState
from semtel_batch.running import running
from semtel_batch.session import Session
from semtel_batch.status import plan_status
from semtel_batch.store import Store
from semtel_batch.studies.compare import Comparison, Sides, compare
from semtel_batch.studies.gold import read_gold
from semtel_batch.studies.labelling import labelled
from semtel_batch.studies.trial import (
    Ask,
    Trial,
    Watched,
    asks,
    audited,
    from_json,
    key_of,
    stop_rule,
    to_json,
    watched,
    why_stop,
)


class Course:
    """One trial under way: what it plans, pays for and knows. Every step is in the store before the next is taken."""

    def __init__(self, session: Session, trial: Trial, columns: Columns, *, yes: bool) -> None:
        self.session, self.trial = session, trial
        self._columns, self._yes = columns, yes
        self._clock = SystemClock()
        self._key = key_of(trial)
        with closing(Store(session.project)) as store:
            kept = store.study(self._key)
            if kept is not None:
                self.trial = from_json(kept)
                session.console.say(f"This comparison was begun before, with seed {self.trial.seed}; it goes on.")
            there = store if any(is_plan(side) for side in trial.sides) else None
            self.sides = tuple(find_side(there, session.settings, side) for side in trial.sides)

    def carry_out(self, due: Sequence[Ask], what: str) -> None:
        """Plan what is due and not planned yet, say what all of it costs, ask, and run what has not ended.

        Raises Incomplete if the user says no; the plans are kept.
        """
        for ask in due:
            if self.trial.plan_of(ask.wave, ask.side, again=ask.again) is None:
                plan = make_plan(self.sides[ask.side].settings, self._wish(ask), self._clock)
                self.keep(self.trial.with_plan(ask, plan.id))
        with self.session.store() as store:
            plans = [self.plan(store, ask.wave, ask.side, again=ask.again) for ask in due]
            owed = [plan for plan in plans if store.plan_row(plan.id).state is not PlanState.DONE]
            self._confirm(owed, what)
            for plan in owed:
                with running(self.session, store, plan) as runner:
                    runner.collect(wait=True)

    def _wish(self, ask: Ask) -> Wish:
        return Wish(
            source=self.trial.source,
            classifiers=self.trial.classifiers,
            objective=Objective(deadline_s=self.trial.deadline_s if ask.wave else None),
            recipes=self.trial.recipes or (() if ask.wave else ("naive",)),
            fresh=ask.again,
            columns=self._columns,
            sample=ask.sample,
        )

    def _confirm(self, owed: Sequence[Plan], what: str) -> None:
        if not owed:
            return
        usd, high = (sum((amount for amount in of), Decimal(0)) for of in zip(*map(_prices, owed), strict=True))
        n = sum(plan.data.n_conversations for plan in owed)
        question = f"{what}: {len(owed)} runs, {n:,} conversations, about ${usd:.4f} (at most ${high:.4f}). Spend it?"
        self.session.console.say(question.removesuffix(" Spend it?"))
        if not self._yes and not self.session.console.confirm(question):
            raise Incomplete(f"Nothing was spent on {what}; run the same command again to go on.")

    def plan(self, store: Store, wave: int, side: int, *, again: bool = False) -> Plan:
        plan_id = self.trial.plan_of(wave, side, again=again)
        if plan_id is None:
            raise BadInput("This comparison has not come so far; run it again.")
        return store.plan(plan_id)

    def costs(self) -> list[float]:
        """What the sample cost each side, in US dollars; what earlier runs had answered cost nothing."""
        with self.session.store() as store:
            plans = [self.plan(store, 0, side) for side in range(len(self.sides))]
            return [float(plan_status(store, store.plan_row(plan.id)).usd) for plan in plans]

    def told(self) -> str:
        """The sample in a line."""
        with self.session.store() as store:
            data = self.plan(store, 0, 0).data
        return (
            f"{data.n_conversations:,} conversations drawn at random from {data.n_population or 0:,} of "
            f"{self.trial.source}, seed {self.trial.seed}"
        )

    def keep(self, trial: Trial) -> None:
        self.trial = trial
        with closing(Store(self.session.project)) as store:
            store.keep_study(self._key, to_json(trial), self._clock.now())


def _prices(plan: Plan) -> tuple[Decimal, Decimal]:
    return plan.chosen.usd, plan.chosen.usd_high


def sampled(course: Course, gold: Path | None) -> list[tuple[Comparison, ...]]:
    """Ask all sides about the sample and compare each further one with A."""
    course.carry_out(asks(course.trial, 0), f"Sample of {course.trial.n_sample:,}")
    truth = read_gold(gold) if gold else None
    with course.session.store() as store:
        first = course.plan(store, 0, 0)
        a = labelled(store, first)
        hash_ids = course.session.settings.hash_ids
        if truth is not None and hash_ids is not None:
            truth = under_pseudonyms(truth, a["conversation_id"], hash_ids)
        others = [course.plan(store, 0, side) for side in range(1, len(course.sides))]
        again = labelled(store, course.plan(store, 0, 0, again=True)) if course.trial.noise else None
        return [
            compare(
                Sides(a=a, b=labelled(store, plan), again=again, gold=truth), plan.classifiers, course.trial.criteria
            )
            for plan in others
        ]


def grown(course: Course, found: Sequence[Comparison], *, accept_shift: bool) -> tuple[tuple[Watched, ...], str | None]:
    """Let B grow wave by wave while the stop rule allows; gives what the audits say, and why it stopped if it did."""
    course.keep(stop_rule(course.trial, found))
    with course.session.store() as store:
        population = course.plan(store, 0, 0).data.n_population or 0
    counts: list[Any] = []
    seen: tuple[Watched, ...] = ()
    for number, part in enumerate(course.trial.waves, 1):
        if why := why_stop(found, seen, accept_shift=accept_shift):
            return seen, f"stopped before the wave to {share(part)}: {why}"
        due = asks(course.trial, number, population)
        if not due:
            continue
        course.carry_out(due, f"Wave to {share(part)} of {population:,}")
        with course.session.store() as store:
            a, b = (labelled(store, course.plan(store, number, side)) for side in (0, 1))
        counts.append(audited(a, b))
        seen = watched(course.trial, counts)
        for w in seen:
            course.session.console.say(
                f"{w.classifier}: {w.seen.n_different} of {w.seen.n} audited differ, {share(w.limit)} may: {w.standing}"
            )
    why = why_stop((), seen, accept_shift=True)
    return seen, f"the last wave is in, but {why}" if why else None


def trial_of(session: Session, sides: tuple[str, ...], wished: Mapping[str, Any]) -> Trial:
    """Freeze what the command line says. Raises BadInput where it contradicts itself."""
    named = crossed(sides) if wished["grid"] else sides
    if wished["waves"] and len(named) != 2:
        raise BadInput("--wave lets one side grow against another: give two sides, A and B.")
    trial = Trial(
        sides=named,
        source=wished["data"] or _source(session, named),
        classifiers=tuple(wished["classifiers"]) or session.settings.defaults.classifiers,
        recipes=tuple(wished["recipes"]),
        n_sample=wished["n_sample"],
        criteria=wished["criteria"],
        waves=wished["waves"],
        max_disagreement=wished["max_disagreement"],
        deadline_s=wished["deadline_s"],
        noise=wished["noise"],
        seed=wished["seed"],
    )
    return replace(trial, criteria=replace(trial.criteria, seed=trial.seed))


def _source(session: Session, sides: Sequence[str]) -> str:
    plans = [side for side in sides if is_plan(side)]
    if not plans:
        raise BadInput("Which conversations are the sides asked about? Give --data FILE.")
    with session.store() as store:
        return store.plan(plans[0]).data.source
