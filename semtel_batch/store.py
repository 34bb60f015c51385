"""The only door to SQLite: plans, legs, shards, submissions, parts, problems and leases.

Every method is one transaction. Money-bearing rows are written with `synchronous=FULL`: what this room has said, it
has on the disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.exc import DBAPIError

from semtel_batch import mapping, plans, tables
from semtel_batch.crashpoints import reach
from semtel_batch.database import connect, empty_log, prepare
from semtel_batch.embedders import with_embedders
from semtel_batch.errors import BadInput, StoreError
from semtel_batch.interrupts import uninterrupted
from semtel_batch.measurements import Calibration, Measurement, Packs, calibration_from_json, calibration_to_json
from semtel_batch.network_plan import Embedder, embedder_from_json, embedder_to_json
from semtel_batch.plans import Plan
from semtel_batch.records import Event, Pace, Progress, Receipt, Shard, Stage, Tier, Usage
from semtel_batch.rows import (
    Generation,
    NewShard,
    Part,
    PlanRow,
    PlanState,
    Problem,
    Purge,
    Reused,
    ShardRow,
    ShardState,
    Submission,
)
from semtel_batch.strata import covers


def store_path(project: Path) -> Path:
    return project / "state" / "semtel.sqlite3"


def plan_folder(project: Path, plan_id: str) -> Path:
    """Where a plan's conversations, manifests, shards and parts lie."""
    return project / "state" / "files" / plan_id


class Store:
    """A project's memory. `state/semtel.sqlite3` holds the rows, `state/files/` the parts."""

    def __init__(self, project: Path, *, create: bool = True) -> None:
        self.project = project
        self.path = store_path(project)
        self.folder = self.path.parent
        if not create and not self.path.exists():
            raise BadInput(f"There is no store in {project}; plan something first, or name the project with --project.")
        prepare(self.folder, self.path)
        self._engine = connect(self.path)

    def close(self) -> None:
        self._engine.dispose()

    def files(self, plan_id: str) -> Path:
        """The folder of a plan's parts."""
        return plan_folder(self.project, plan_id)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with uninterrupted(), self._engine.begin() as connection:
                yield connection
                reach("store.not-committed")
        except DBAPIError as error:
            raise StoreError(
                f"{self.path} refused a write or read ({error.orig}); nothing was lost: mend it and run again."
            ) from error

    # -- plans -------------------------------------------------------------------------------------------------

    def add_plan(self, plan: Plan) -> None:
        """Keep a frozen plan. Raises StoreError if its legs leave a conversation out or ask one twice."""
        covers(plan)
        with self._transaction() as t:
            t.execute(
                insert(tables.plans).values(
                    id=plan.id,
                    created_at=plan.created_at.isoformat(),
                    hash=plan.hash,
                    document=plans.to_json(plan),
                    state=PlanState.PLANNED,
                )
            )

    def plan(self, prefix: str | None = None, *, purged: bool = False) -> Plan:
        """The plan of this id or unique prefix; the newest one when none is given.

        One whose texts and labels were deleted is refused unless `purged` ones may be given too.
        """
        query = select(tables.plans.c.id, tables.plans.c.document).order_by(tables.plans.c.created_at.desc())
        if prefix:
            query = query.where(tables.plans.c.id.startswith(prefix, autoescape=True))
        else:  # a study's plans are nobody's newest
            query = query.where(tables.plans.c.document.not_like('%"study":true%'))
        with self._transaction() as t:
            found = t.execute(query.limit(2 if prefix else 1)).all()
        if not found:
            which = f"No plan begins with {prefix!r}" if prefix else "There is no plan yet"
            raise BadInput(f"{which} in {self.path}; see: semtel-batch status, or make one: semtel-batch plan DATA")
        if len(found) > 1:
            raise BadInput(f"More than one plan begins with {prefix!r}; give more of its id, see: semtel-batch status")
        gone = None if purged else self.purges().get(found[0].id)
        if gone is not None and not gone.labels_kept:
            raise BadInput(
                f"Texts and labels of plan {gone.plan_id} were deleted on {gone.at:%Y-%m-%d} (semtel-batch purge); "
                "name another, see: semtel-batch status"
            )
        return self.with_embedders(_unchanged(found[0].id, found[0].document))

    def with_embedders(self, plan: Plan) -> Plan:
        """The plan that also knows who embedded its conversations after it was frozen."""
        query = select(tables.embedders.c.document).where(tables.embedders.c.plan_id == plan.id)
        with self._transaction() as t:
            return with_embedders(plan, map(embedder_from_json, t.execute(query).scalars()))

    def add_embedder(self, plan_id: str, embedder: Embedder) -> None:
        """Write down who embeds a plan's conversations; the first word on a name stays."""
        values = {"plan_id": plan_id, "name": embedder.endpoint.name, "document": embedder_to_json(embedder)}
        with self._transaction() as t:
            t.execute(insert(tables.embedders).prefix_with("OR IGNORE").values(**values))

    def study_plans(self) -> list[Plan]:
        """The plans that calibrations and audits made, oldest first."""
        c = tables.plans.c
        query = select(c.id, c.document).where(c.document.like('%"study":true%')).order_by(c.created_at)
        with self._transaction() as t:
            return [_unchanged(row.id, row.document) for row in t.execute(query)]

    def plan_rows(self) -> list[PlanRow]:
        c = tables.plans.c
        query = select(c.id, c.created_at, c.state, c.started_at, c.ended_at).order_by(c.created_at.desc())
        with self._transaction() as t:
            rows = t.execute(query).all()
        return [mapping.plan_row(row) for row in rows]

    def plan_row(self, plan_id: str) -> PlanRow:
        return next(row for row in self.plan_rows() if row.id == plan_id)

    def start_plan(self, plan_id: str, at: datetime) -> None:
        """Mark a plan as running; the first start is kept, so that the deadline runs from it."""
        with self._transaction() as t:
            t.execute(
                update(tables.plans)
                .where(tables.plans.c.id == plan_id)
                .values(
                    state=PlanState.RUNNING,
                    started_at=func.coalesce(tables.plans.c.started_at, at.isoformat()),
                    ended_at=None,
                )
            )

    def end_plan(self, plan_id: str, state: PlanState, at: datetime) -> None:
        with self._transaction() as t:
            query = update(tables.plans).where(tables.plans.c.id == plan_id)
            t.execute(query.values(state=state, ended_at=at.isoformat()))

    def purges(self) -> dict[str, Purge]:
        """Whose texts were deleted, by plan."""
        with self._transaction() as t:
            return {row.plan_id: mapping.purge(row) for row in t.execute(select(tables.purges)).all()}

    def purge(self, plan_id: str, at: datetime, *, labels_kept: bool) -> None:
        """Write down that a plan's texts are deleted, and forget what was said of them; what was paid stays."""
        mine = select(tables.shards.c.id).where(tables.shards.c.plan_id == plan_id)
        with self._transaction() as t:
            t.exec_driver_sql("PRAGMA secure_delete = ON")  # what is forgotten is overwritten
            t.execute(tables.purges.delete().where(tables.purges.c.plan_id == plan_id))
            t.execute(insert(tables.purges).values(plan_id=plan_id, at=at.isoformat(), labels_kept=labels_kept))
            t.execute(update(tables.problems).where(tables.problems.c.plan_id == plan_id).values(detail=None))
            t.execute(
                update(tables.submissions).where(tables.submissions.c.shard_id.in_(mine)).values(error_message=None)
            )
        empty_log(self.path)

    # -- studies -----------------------------------------------------------------------------------------------

    def study(self, key: str) -> str | None:
        """What a study was to do and has done so far, as it was kept; None if there is none of this key."""
        with self._transaction() as t:
            return t.execute(select(tables.studies.c.document).where(tables.studies.c.key == key)).scalar()

    def keep_study(self, key: str, document: str, at: datetime) -> None:
        """Write a study down, over what was kept of it; when it began stays."""
        with self._transaction() as t:
            found = t.execute(update(tables.studies).where(tables.studies.c.key == key).values(document=document))
            if not found.rowcount:
                t.execute(insert(tables.studies).values(key=key, created_at=at.isoformat(), document=document))

    # -- generations and shards --------------------------------------------------------------------------------

    def generations(self, plan_id: str) -> list[Generation]:
        query = select(tables.legs).where(tables.legs.c.plan_id == plan_id)
        with self._transaction() as t:
            rows = t.execute(query).all()
        return [
            Generation(leg=r.leg, stage=Stage(r.stage), attempt=r.attempt, ended=r.ended_at is not None) for r in rows
        ]

    def cut(
        self,
        plan_id: str,
        generation: Generation,
        shards: Sequence[NewShard],
        at: datetime,
        reused: Sequence[Reused] = (),
    ) -> None:
        """Record a generation with all its shards, at once: a crash before it leaves nothing to be sent.

        `reused` are items of it that an earlier run answered; their labels count from here on.
        """
        with self._transaction() as t:
            t.execute(
                insert(tables.legs).values(
                    plan_id=plan_id,
                    leg=generation.leg,
                    stage=generation.stage,
                    attempt=generation.attempt,
                    ended_at=None if shards else at.isoformat(),
                )
            )
            for shard in shards:
                t.execute(
                    insert(tables.shards).values(**mapping.shard_values(plan_id, generation, shard, self.folder, at))
                )
            for one in reused:
                values = mapping.shard_values(plan_id, generation, one.shard, self.folder, at)
                values |= {"state": ShardState.ENDED, "ended_at": at.isoformat()}
                made = t.execute(insert(tables.shards).values(**values))
                part = Part(
                    shard_id=made.lastrowid,
                    answers=one.answers,
                    labels=one.labels,
                    n_requests=0,
                    n_items=one.shard.n_items,
                    n_answered=one.shard.n_items,
                    n_tries=0,
                    usage=Usage(),
                    cost_usd=Decimal(0),
                    written_at=at,
                )
                t.execute(insert(tables.parts).values(**mapping.part_values(plan_id, part, self.folder)))

    def shards(self, plan_id: str) -> list[ShardRow]:
        query = select(tables.shards).where(tables.shards.c.plan_id == plan_id).order_by(tables.shards.c.id)
        with self._transaction() as t:
            rows = t.execute(query).all()
        return [mapping.shard_row(r, self.folder) for r in rows]

    def split_shard(self, shard: Shard, pieces: Sequence[NewShard], at: datetime) -> None:
        """Put smaller shards in the place of one of which nothing was executed, in the same generation.

        The old one stays, ended and empty: what the provider said of it tells how much fits.
        """
        generation = Generation(leg=shard.leg, stage=shard.stage, attempt=shard.attempt)
        with self._transaction() as t:
            for piece in pieces:
                t.execute(
                    insert(tables.shards).values(
                        **mapping.shard_values(shard.plan_id, generation, piece, self.folder, at)
                    )
                )
            nothing = {"n_requests": 0, "n_items": 0, "prompt_tokens": 0, "max_completion_tokens": 0}
            ended = {"state": ShardState.ENDED, "ended_at": at.isoformat()}
            t.execute(update(tables.shards).where(tables.shards.c.id == shard.id).values(**nothing, **ended))

    def move_shard(self, shard: Shard, tier: Tier, *, has_stopped: bool = False) -> None:
        """Let a shard, or what is left of one that answers at once or whose batch stopped, be asked in another tier."""
        c, is_left = tables.shards.c, shard.tier.is_at_once or has_stopped
        states = [ShardState.CUT, ShardState.SUBMITTED] if is_left else [ShardState.CUT]
        with self._transaction() as t:
            t.execute(update(tables.shards).where(c.id == shard.id, c.state.in_(states)).values(tier=tier))

    def end_shard(self, shard: Shard, at: datetime, packs: Sequence[Packs] = ()) -> None:
        """All answers of a shard are written down; its generation ends with its last shard.

        `packs`: how many conversations its requests held, and what came of them.
        """
        s, legs = tables.shards.c, tables.legs.c
        siblings = (s.plan_id == shard.plan_id, s.leg == shard.leg, s.stage == shard.stage, s.attempt == shard.attempt)
        with self._transaction() as t:
            t.execute(
                update(tables.shards).where(s.id == shard.id).values(state=ShardState.ENDED, ended_at=at.isoformat())
            )
            t.execute(
                update(tables.submissions)
                .where(tables.submissions.c.shard_id == shard.id, tables.submissions.c.state != "rejected")
                .values(state="ended", ended_at=at.isoformat())
            )
            t.execute(tables.packs.delete().where(tables.packs.c.shard_id == shard.id))
            if packs:
                t.execute(insert(tables.packs), [mapping.packs_values(shard, one, at) for one in packs])
            still_open = select(func.count()).select_from(tables.shards).where(*siblings, s.state != ShardState.ENDED)
            if t.execute(still_open).scalar_one() == 0:
                t.execute(
                    update(tables.legs)
                    .where(
                        legs.plan_id == shard.plan_id,
                        legs.leg == shard.leg,
                        legs.stage == shard.stage,
                        legs.attempt == shard.attempt,
                    )
                    .values(ended_at=at.isoformat())
                )

    def packs(self, since: datetime, leg: tuple[str, int] | None = None) -> list[Packs]:
        """How packs were answered since then, by any plan or by a plan's leg: one record a model, set and size."""
        c, s = tables.packs.c, tables.shards.c
        kinds = (c.model, c.classifiers, c.size)
        query = select(*kinds, func.sum(c.n).label("n"), func.sum(c.n_broken).label("n_broken")).group_by(*kinds)
        if leg is not None:
            query = query.join(tables.shards, s.id == c.shard_id).where(s.plan_id == leg[0], s.leg == leg[1])
        with self._transaction() as t:
            return [mapping.packs(row) for row in t.execute(query.where(c.counted_at >= since.isoformat())).all()]

    # -- submissions -------------------------------------------------------------------------------------------

    def intend(self, shard: Shard, at: datetime) -> Submission:
        """Write down that a shard is about to be sent, before anything is; an open intent is taken up again."""
        with self._transaction() as t:
            last = _last_submission(t, shard.id)
            if last is not None and last.state != "rejected":
                return last
            t.execute(
                insert(tables.submissions).values(
                    shard_id=shard.id,
                    number=last.number + 1 if last else 1,
                    state="intended",
                    n_completed=0,
                    n_failed=0,
                    n_total=shard.n_requests,
                    intended_at=at.isoformat(),
                )
            )
            t.execute(update(tables.shards).where(tables.shards.c.id == shard.id).values(state=ShardState.SUBMITTED))
            made = _last_submission(t, shard.id)
        assert made is not None
        return made

    def note(self, shard: Shard, receipt: Receipt, at: datetime) -> None:
        """Keep the ids that a provider gave us, the moment it gave them."""
        values: dict[str, Any] = {"input_file_id": receipt.input_file_id, "batch_id": receipt.batch_id}
        if receipt.batch_id:
            values |= {"state": "submitted", "submitted_at": at.isoformat()}
        self._update_submission(shard, values)

    def observe(self, shard: Shard, progress: Progress, at: datetime) -> None:
        self._update_submission(
            shard,
            {
                "status": progress.status,
                "n_completed": progress.n_completed,
                "n_failed": progress.n_failed,
                "polled_at": at.isoformat(),
            },
        )

    def reject(self, shard: Shard, progress: Progress, at: datetime) -> None:
        """The provider executed nothing of it: the shard can be sent again, under a new number."""
        self._update_submission(
            shard,
            {
                "state": "rejected",
                "status": progress.status,
                "error_code": progress.error_code,
                "error_message": progress.error_message,
                "ended_at": at.isoformat(),
            },
            shard_state=ShardState.CUT,
        )

    def _update_submission(
        self, shard: Shard, values: dict[str, Any], *, shard_state: ShardState | None = None
    ) -> None:
        c = tables.submissions.c
        newest = select(func.max(c.number)).where(c.shard_id == shard.id).scalar_subquery()
        with self._transaction() as t:
            t.execute(update(tables.submissions).where(c.shard_id == shard.id, c.number == newest).values(**values))
            if shard_state is not None:
                t.execute(update(tables.shards).where(tables.shards.c.id == shard.id).values(state=shard_state))

    def submissions(self, plan_id: str) -> dict[int, list[Submission]]:
        """All tries of a plan's shards, oldest first, by shard id."""
        query = (
            select(tables.submissions)
            .join(tables.shards, tables.shards.c.id == tables.submissions.c.shard_id)
            .where(tables.shards.c.plan_id == plan_id)
            .order_by(tables.submissions.c.shard_id, tables.submissions.c.number)
        )
        with self._transaction() as t:
            rows = t.execute(query).all()
        found: dict[int, list[Submission]] = {}
        for row in rows:
            found.setdefault(row.shard_id, []).append(mapping.submission(row))
        return found

    # -- parts and problems ------------------------------------------------------------------------------------

    def add_part(self, plan_id: str, part: Part) -> None:
        """Register a part that is already on the disk; from here on its answers are never asked again."""
        with self._transaction() as t:
            t.execute(insert(tables.parts).values(**mapping.part_values(plan_id, part, self.folder)))

    def replace_parts(self, plan_id: str, part: Part) -> list[Path]:
        """Put one merged part in the place of a shard's parts; returns the files that may now be deleted."""
        where = tables.parts.c.shard_id == part.shard_id
        with self._transaction() as t:
            old = t.execute(select(tables.parts.c.answers, tables.parts.c.labels).where(where)).all()
            t.execute(tables.parts.delete().where(where))
            t.execute(insert(tables.parts).values(**mapping.part_values(plan_id, part, self.folder)))
        return [self.folder / path for row in old for path in row]

    def parts(self, plan_id: str) -> list[Part]:
        query = select(tables.parts).where(tables.parts.c.plan_id == plan_id).order_by(tables.parts.c.id)
        with self._transaction() as t:
            rows = t.execute(query).all()
        return [mapping.part(row, self.folder) for row in rows]

    def ways(self) -> frozenset[str]:
        """The ways in which the store's plans were asked something."""
        with self._transaction() as t:
            return frozenset(t.execute(select(tables.shards.c.way).distinct()).scalars())

    def label_parts(self, way: str) -> list[Path]:
        """The label parts of every plan that hold what was asked in this way."""
        without_labels = select(tables.purges.c.plan_id).where(tables.purges.c.labels_kept == 0)
        query = (
            select(tables.parts.c.labels)
            .join(tables.shards, tables.shards.c.id == tables.parts.c.shard_id)
            .where(tables.shards.c.way == way, tables.shards.c.plan_id.not_in(without_labels))
            .order_by(tables.parts.c.id)
        )
        with self._transaction() as t:
            return [self.folder / path for path in t.execute(query).scalars()]

    def set_problems(self, plan_id: str, problems: Sequence[Problem]) -> None:
        """Replace a plan's problem items with these."""
        with self._transaction() as t:
            t.execute(tables.problems.delete().where(tables.problems.c.plan_id == plan_id))
            for start in range(0, len(problems), 5_000):
                t.execute(
                    insert(tables.problems),
                    [
                        {
                            "plan_id": plan_id,
                            "row": p.row,
                            "classifier": p.classifier,
                            "outcome": p.outcome,
                            "detail": p.detail,
                            "attempts": p.attempts,
                        }
                        for p in problems[start : start + 5_000]
                    ],
                )

    def problems(self, plan_id: str) -> list[Problem]:
        query = select(tables.problems).where(tables.problems.c.plan_id == plan_id)
        with self._transaction() as t:
            rows = t.execute(query).all()
        return [mapping.problem(row) for row in rows]

    # -- paces -------------------------------------------------------------------------------------------------

    def add_paces(self, plan_id: str, paces: Sequence[Pace]) -> None:
        """Keep what realtime endpoints were seen to do."""
        if paces:
            with self._transaction() as t:
                t.execute(insert(tables.paces), [mapping.pace_values(plan_id, pace) for pace in paces])

    def paces(self, plan_id: str) -> list[Pace]:
        query = select(tables.paces).where(tables.paces.c.plan_id == plan_id).order_by(tables.paces.c.id)
        with self._transaction() as t:
            rows = t.execute(query).all()
        return [mapping.pace(row) for row in rows]

    def add_events(self, plan_id: str, events: Sequence[Event]) -> None:
        """Keep which realtime endpoints were stopped, rested or taken up again, and why."""
        if events:
            with self._transaction() as t:
                t.execute(insert(tables.events), [mapping.event_values(plan_id, event) for event in events])

    def events(self, plan_id: str) -> list[Event]:
        query = select(tables.events).where(tables.events.c.plan_id == plan_id).order_by(tables.events.c.id)
        with self._transaction() as t:
            rows = t.execute(query).all()
        return [mapping.event(row) for row in rows]

    # -- measurements ------------------------------------------------------------------------------------------

    def put_calibration(self, one: Calibration) -> None:
        """Write a calibration down, or what became of it."""
        c = tables.calibrations.c
        ended_at = one.ended_at.isoformat() if one.ended_at else None
        values = {"created_at": one.created_at.isoformat(), "ended_at": ended_at, "document": calibration_to_json(one)}
        with self._transaction() as t:
            if not t.execute(update(tables.calibrations).where(c.id == one.id).values(**values)).rowcount:
                t.execute(insert(tables.calibrations).values(id=one.id, **values))

    def calibrations(self) -> list[Calibration]:
        """All of them, newest first."""
        query = select(tables.calibrations.c.document).order_by(tables.calibrations.c.created_at.desc())
        with self._transaction() as t:
            return [calibration_from_json(document) for document in t.execute(query).scalars()]

    def set_evidence(self, calibration_id: str, measured: Sequence[Measurement]) -> None:
        """Replace what a calibration has measured by this."""
        with self._transaction() as t:
            t.execute(tables.evidence.delete().where(tables.evidence.c.calibration_id == calibration_id))
            if measured:
                t.execute(insert(tables.evidence), [mapping.measurement_values(one) for one in measured])

    def evidence(self, versions: Sequence[str]) -> list[Measurement]:
        """What was measured of these classifiers' versions, newest first."""
        c = tables.evidence.c
        query = select(tables.evidence).where(c.version.in_(versions)).order_by(c.measured_at.desc(), c.id)
        with self._transaction() as t:
            return [mapping.measurement(row) for row in t.execute(query).all()]

    def add_certificate(self, plan_id: str, document: str, at: datetime) -> None:
        """Keep what was certified of a plan's labels, or what could not be."""
        values = {"plan_id": plan_id, "made_at": at.isoformat(), "document": document}
        with self._transaction() as t:
            t.execute(insert(tables.certificates).values(**values))

    def certificates(self, plan_id: str) -> list[str]:
        """The documents of a plan's certificates, oldest first."""
        c = tables.certificates.c
        with self._transaction() as t:
            return list(t.execute(select(c.document).where(c.plan_id == plan_id).order_by(c.id)).scalars())

    def drop_plan(self, plan_id: str) -> None:
        """Forget a plan that was never started."""
        c = tables.plans.c
        with self._transaction() as t:
            t.execute(tables.plans.delete().where(c.id == plan_id, c.state == PlanState.PLANNED))

    # -- leases ------------------------------------------------------------------------------------------------

    def take_lease(self, name: str, holder: str, at: datetime, until: datetime) -> bool:
        """Take or extend a lease; False while somebody else's has not run out."""
        with self._transaction() as t:
            row = t.execute(select(tables.leases).where(tables.leases.c.name == name)).first()
            if row is not None and row.holder != holder and datetime.fromisoformat(row.until) > at:
                return False
            t.execute(tables.leases.delete().where(tables.leases.c.name == name))
            t.execute(insert(tables.leases).values(name=name, holder=holder, until=until.isoformat()))
            return True

    def n_working(self, at: datetime) -> int:
        """How many processes work on plans of this store."""
        until = tables.leases.c.until
        with self._transaction() as t:
            return sum(datetime.fromisoformat(text) > at for text in t.execute(select(until)).scalars())

    def lease_holder(self, name: str) -> str | None:
        with self._transaction() as t:
            return t.execute(select(tables.leases.c.holder).where(tables.leases.c.name == name)).scalar()

    def shorten_lease(self, name: str, until: datetime) -> None:
        """Let a lease run until then at most."""
        c = tables.leases.c
        with self._transaction() as t:
            t.execute(
                update(tables.leases).where(c.name == name, c.until > until.isoformat()).values(until=until.isoformat())
            )

    def end_lease(self, name: str, holder: str) -> None:
        c = tables.leases.c
        with self._transaction() as t:
            t.execute(tables.leases.delete().where(c.name == name, c.holder == holder))


def _last_submission(t: Connection, shard_id: int) -> Submission | None:
    c = tables.submissions.c
    row = t.execute(select(tables.submissions).where(c.shard_id == shard_id).order_by(c.number.desc()).limit(1)).first()
    return mapping.submission(row) if row is not None else None


def _unchanged(plan_id: str, document: str) -> Plan:
    """A plan as it was frozen: its hash tells."""
    try:
        plan = plans.from_json(document)
        sound = plans.document_hash(document) == plan.hash
    except ValueError:
        sound = False
    if not sound:
        raise StoreError(
            f"Plan {plan_id} was changed after it was frozen; restore state/ from a backup, or plan again."
        )
    return plan
