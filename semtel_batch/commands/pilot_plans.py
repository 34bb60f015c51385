"""The plans of a pilot: made once each, written down before they are run, and found again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import polars as pl

from semtel_batch import strategies
from semtel_batch.commands.arms import drop_arms, make_arm, run_arms, set_apart
from semtel_batch.conversations import load_index
from semtel_batch.crashpoints import reach
from semtel_batch.engines.local import Wish
from semtel_batch.measurements import Arm, Calibration, Role
from semtel_batch.planner.bench import Way
from semtel_batch.plans import Plan, Sample
from semtel_batch.records import Endpoint, Strategy
from semtel_batch.session import Session
from semtel_batch.store import Store, plan_folder
from semtel_batch.strategies import Recipe, bare
from semtel_batch.studies import calibrate as study
from semtel_batch.studies.labelling import labelled

_VERIFYING = (Role.VERIFY_REFERENCE, Role.VERIFY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a plan of a pilot asks of whom: a way, of a sample, some of which stand apart."""

    role: Role
    strategy: Strategy
    sample: Sample
    way: Way | None = None  # None: the reference
    turn: int | None = None
    ids: Sequence[str] = ()  # that are audited, each in a request of its own; empty: all
    n_apart: int = 0  # of them at most
    fresh: bool = False  # ask anew what was answered before


@dataclass(slots=True, kw_only=True)
class Trials:
    """A pilot's plans, and what there is to pay them."""

    session: Session
    store: Store
    wish: Wish
    calibration: Calibration  # as it is written down
    usd: Decimal  # what was left for the pilot when it began
    reference_usd_per_1000: Decimal

    # -- single ways ---------------------------------------------------------------------------------------------

    def found(self, role: Role, strategy: Strategy, model: str) -> Plan | None:
        """The plan of this role that asks in a way, if it was made."""
        for arm in self.calibration.arms:
            if arm.role is role and bare(arm.strategy) == bare(strategy):
                plan = self.store.plan(arm.plan_id)
                if plan.models_of(plan.legs[0]) == model:
                    return plan
        return None

    def made(self, role: Role, recipe: Recipe, strategy: Strategy, n: int) -> tuple[Arm, Plan]:
        """Plan a way over the first `n` fresh conversations; packs anew, for some stood together in those of E."""
        sample = Sample(seed=self.calibration.seed, n=n, skip=self.calibration.n_explore)
        points, fresh = (study.point(recipe, strategy),), strategy.conversations_per_request > 1
        wish = replace(self.wish, recipes=(), sample=sample, points=points, fresh=fresh)
        return make_arm(self.session, wish, self.endpoint(role, strategy), role)

    def endpoint(self, role: Role, strategy: Strategy) -> Endpoint:
        """Where the way was measured; the reference is asked at the first endpoint."""
        explored_ = self.calibration.arms if role is Role.VERIFY else ()
        own = (arm.endpoint for arm in explored_ if arm.role is Role.ARM and arm.strategy == strategy)
        name = next(own, self.session.settings.endpoints[0].name)
        return next(one for one in self.session.settings.endpoints if one.name == name)

    # -- mixes ---------------------------------------------------------------------------------------------------

    def asked(self, one: Asked) -> Plan | None:
        """Make a plan, or find it again, and run it to its end; None where the budget doesn't bear it."""
        plan = self._again(one)
        if plan is None:
            recipe = strategies.find(["naive"])[0] if one.way is None else one.way.recipe
            points = (study.point(recipe, one.strategy),)
            wish = replace(self.wish, recipes=(), sample=one.sample, points=points, fresh=one.fresh)
            endpoint = self.session.settings.endpoints[0] if one.way is None else one.way.endpoint
            arm, plan = make_arm(self.session, wish, endpoint, one.role)
            if plan.chosen.usd_high > self.left_usd():
                drop_arms(self.session, [arm])
                return None
            if one.ids and one.strategy.conversations_per_request > 1:
                set_apart(self.session, plan, pl.Series(one.ids), one.n_apart or len(one.ids))
            self.keep(replace(arm, turn=one.turn))
            reach("pilot.turn-kept")
        return self.ran(plan)

    def _again(self, one: Asked) -> Plan | None:
        for arm in self.calibration.arms:
            if (arm.role, arm.turn, arm.strategy.recipe) == (one.role, one.turn, one.strategy.recipe):
                plan = self.store.plan(arm.plan_id)
                if bare(arm.strategy) == bare(one.strategy) and plan.data.sample == one.sample:
                    return plan
        return None

    # -- both ----------------------------------------------------------------------------------------------------

    def keep(self, arm: Arm) -> None:
        self.calibration = replace(self.calibration, arms=(*self.calibration.arms, arm))
        self.store.put_calibration(self.calibration)

    def ran(self, plan: Plan) -> Plan:
        run_arms(self.session, self.store, [arm for arm in self.calibration.arms if arm.plan_id == plan.id])
        return plan

    def committed_usd(self) -> Decimal:
        """Upper estimate of what was begun."""
        begun = (arm.plan_id for arm in self.calibration.arms if arm.role in _VERIFYING or arm.turn is not None)
        return sum((self.store.plan(plan_id).chosen.usd_high for plan_id in begun), Decimal(0))

    def left_usd(self) -> Decimal:
        return self.usd - self.committed_usd()

    def explored_plan(self) -> Plan:
        """The reference's plan over the conversations that ways were compared on."""
        return self.store.plan(next(arm.plan_id for arm in self.calibration.arms if arm.role is Role.REFERENCE))

    def explored_reference(self) -> pl.DataFrame:
        return labelled(self.store, self.explored_plan())

    def explored_ids(self) -> pl.Series:
        folder = plan_folder(self.session.project, self.explored_plan().id)
        return load_index(folder / "conversations", ["conversation_id"])["conversation_id"]

    @property
    def n_around(self) -> int:
        """How far into the random order the conversations reach that filled up the packs of what was compared."""
        samples = (self.store.plan(arm.plan_id).data.sample for arm in explored(self.calibration))
        return max((one.skip + one.n for one in samples if one is not None), default=0)


def explored(calibration: Calibration) -> tuple[Arm, ...]:
    """The plans that ways are compared by."""
    return tuple(arm for arm in calibration.arms if arm.role not in _VERIFYING)
