"""The whole audit: the database, then plan by plan its document, conversations, generations and ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import numpy as np

from semtel_batch import plans
from semtel_batch.audit.compressed import check_compressed
from semtel_batch.audit.files import check_files, check_folders, parts_registered_twice, stray_shards
from semtel_batch.audit.findings import Finding, Severity, Tell, broken, compare, expect_none, harmless
from semtel_batch.audit.items import Items
from semtel_batch.audit.networks import check_networks, check_readable
from semtel_batch.audit.shards import Looked, Written, check_generation, title
from semtel_batch.audit.texts import Mask, Texts, name_of, read_texts
from semtel_batch.classifiers import version_of
from semtel_batch.database import look_into
from semtel_batch.errors import SemtelError
from semtel_batch.generations import in_order
from semtel_batch.networks import FOLDER, learned_from
from semtel_batch.parts import APART
from semtel_batch.plans import Plan
from semtel_batch.purging import texts_left
from semtel_batch.records import Stage
from semtel_batch.rows import PlanRow, PlanState, Problem
from semtel_batch.store import Store
from semtel_batch.strata import faults, levels_file, masks

_OVER = (PlanState.DONE, PlanState.CANCELLED)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What was looked at, and every mismatch."""

    findings: tuple[Finding, ...]
    n_plans: int
    n_conversations: int
    n_shards: int
    n_requests: int  # that have an answer
    n_items: int  # labels and failures read from these answers
    n_files: int
    usd: Decimal

    @property
    def is_sound(self) -> bool:
        return all(finding.severity is not Severity.BROKEN for finding in self.findings)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one plan adds to an audit's figures."""

    n_conversations: int = 0
    n_shards: int = 0
    n_requests: int = 0
    n_items: int = 0
    n_files: int = 0
    usd: Decimal = Decimal(0)


def audit(store: Store, plan_ids: Collection[str] | None, now: datetime) -> Audit:
    """Look at these plans of a project, or at all of them."""
    findings: list[Finding] = []
    tell = findings.append
    raw = look_into(store.path)
    expect_none(tell, store.path.name, "damage that SQLite finds", raw.damage)
    rows = _tried(tell, store.path.name, "rows of plans", store.plan_rows)
    states = {row.id: row for row in rows or ()}
    seen: list[_Seen] = []
    for plan_id, digest, document in raw.documents:
        if plan_ids is not None and plan_id not in plan_ids:
            continue
        _check_lease(plan_id, raw.leases, now, tell)
        plan = _thawed(plan_id, digest, document, tell)
        if plan is not None and plan_id in states:
            seen.append(_check_plan(store, store.with_embedders(plan), states[plan_id], tell))
        else:
            seen.append(_Seen())
    if plan_ids is None:
        check_readable(store.folder / FOLDER, tell)
        check_folders(store.folder / "files", [plan_id for plan_id, _, _ in raw.documents], tell)
    return Audit(
        findings=tuple(sorted(findings, key=lambda f: f.severity is Severity.HARMLESS)),
        n_plans=len(seen),
        n_conversations=sum(one.n_conversations for one in seen),
        n_shards=sum(one.n_shards for one in seen),
        n_requests=sum(one.n_requests for one in seen),
        n_items=sum(one.n_items for one in seen),
        n_files=sum(one.n_files for one in seen),
        usd=sum((one.usd for one in seen), Decimal(0)),
    )


def _tried(tell: Tell, which: str, what: str, read: Callable[[], _T]) -> _T | None:
    """What the store has; None, and told, if a value in it is none of those that it can have."""
    try:
        return read()
    except (SemtelError, ValueError, ArithmeticError, TypeError) as error:
        broken(tell, which, f"{what} can't be read", "values that the store writes", error)
        return None


# -- the document ----------------------------------------------------------------------------------------------


def _thawed(plan_id: str, digest: str, document: str, tell: Tell) -> Plan | None:
    """A plan as its document says, checked against its hash and the versions of its classifiers."""
    plan = _tried(tell, plan_id, "the plan's document", lambda: plans.from_json(document))
    if plan is None:
        return None
    compare(tell, plan_id, "hash of the document", plan.hash, plans.document_hash(document))
    compare(tell, plan_id, "hash of the row", plan.hash, digest)
    compare(tell, plan_id, "id in the document", plan_id, plan.id)
    for c in (*plan.classifiers, *((plan.grader,) if plan.grader else ())):
        compare(tell, f"{plan_id}, {c.name}", "version", version_of(c.name, c.instructions, c.labels), c.version)
    uneven = faults(plan)
    expect_none(tell, plan_id, "conversations that its legs share badly", uneven)
    return plan if plan.id == plan_id and not uneven else None


def _check_lease(plan_id: str, leases: Collection[tuple[str, str, str]], now: datetime, tell: Tell) -> None:
    for name, holder, until in leases:
        if name != f"plan {plan_id}":
            continue
        ends_at = _tried(tell, name, "the lease", lambda until=until: datetime.fromisoformat(until))  # type: ignore[misc]
        if ends_at is not None and ends_at > now:
            harmless(tell, name, "it is being worked on, so figures move", "no lease", f"{holder} until {until}")
        elif ends_at is not None:
            harmless(tell, name, "a process that died; the next takes over", "no lease", f"{holder} until {until}")


# -- one plan --------------------------------------------------------------------------------------------------


def _check_plan(store: Store, plan: Plan, row: PlanRow, tell: Tell) -> _Seen:
    folder = store.files(plan.id)
    written = _tried(tell, plan.id, "rows of its execution", lambda: _written(store, plan.id))
    problems = _tried(tell, plan.id, "its problem items", lambda: store.problems(plan.id))
    if written is None or problems is None:
        return _Seen()
    if plan.id in store.purges():
        _check_purged(store, plan, tell)
        return _Seen()
    if row.state in _OVER and not folder.exists():
        harmless(tell, plan.id, "its folder was deleted: its texts and labels are gone", folder, "none")
        return _Seen()
    texts = read_texts(plan, folder / "conversations", tell)
    served = _tried(tell, plan.id, "which leg serves whom", lambda: _served(plan, texts, folder)) if texts else None
    if texts is not None and served is not None:
        looked = Looked(plan=plan, texts=texts, served=served, items=Items(plan, texts.n_rows), tell=tell)
        _check_execution(looked, row, written)
        check_networks(store, looked, written)
        check_compressed(looked, folder)
        _check_end(looked, row, problems)
    known = {folder / APART, *([levels_file(folder)] if plan.strata.levels > 1 else [])}
    n_files = check_files(folder, written, texts.n_parts if texts else 0, tell, known)
    return _Seen(
        n_conversations=texts.n_rows if texts else 0,
        n_shards=len(written.shards),
        n_requests=sum(part.n_requests for part in written.parts),
        n_items=sum(part.n_items for part in written.parts),
        n_files=n_files,
        usd=sum((part.cost_usd for part in written.parts), Decimal(0)),
    )


def _served(plan: Plan, texts: Texts, folder: Path) -> list[Mask]:
    return masks(plan, plan.legs, np.arange(texts.n_rows, dtype=np.uint32), texts.n_tokens, folder)


def _check_purged(store: Store, plan: Plan, tell: Tell) -> None:
    """Nothing can be derived again without the texts; only that none is left can be seen."""
    purge = store.purges()[plan.id]
    left = [path.name for path in texts_left(store.files(plan.id), labels_kept=purge.labels_kept)]
    expect_none(tell, plan.id, "files of a purged plan; purge it again", left)
    networks = _tried(tell, plan.id, "networks", lambda: learned_from(store.folder / FOLDER, plan.id)) or []
    names = [f"{folder.parent.name}/{folder.name}" for folder in networks]
    expect_none(tell, plan.id, "networks that learned from a purged plan; purge it again", names)
    kept = "its texts were deleted" if purge.labels_kept else "its texts and labels were deleted"
    harmless(tell, plan.id, kept, "texts to derive anew", f"purged {purge.at:%Y-%m-%d}")


def _written(store: Store, plan_id: str) -> Written:
    return Written(
        generations=store.generations(plan_id),
        shards=store.shards(plan_id),
        submissions=store.submissions(plan_id),
        parts=store.parts(plan_id),
    )


def _check_execution(looked: Looked, row: PlanRow, written: Written) -> None:
    plan, tell = looked.plan, looked.tell
    expect_none(tell, plan.id, "shards of no generation", stray_shards(written.shards, written))
    expect_none(tell, plan.id, "parts that are registered twice", parts_registered_twice(written))
    ids = {r.shard.id for r in written.shards}
    strangers = [name_of(part.answers) for part in written.parts if part.shard_id not in ids]
    expect_none(tell, plan.id, "parts of another plan's shards", strangers)
    batches = Counter(t.receipt.batch_id for tries in written.submissions.values() for t in tries)
    expect_none(tell, plan.id, "batches of two submissions", [b for b, n in batches.items() if b and n > 1])
    strange = [g for g in written.generations if g.leg >= len(plan.legs)]
    expect_none(tell, plan.id, "generations of no leg", [title(plan, g) for g in strange])
    for leg in plan.legs:
        history = in_order(written.generations, leg.number)
        for stage in Stage:
            attempts = [g.attempt for g in history if g.stage is stage]
            compare(tell, f"{plan.id}, leg {leg.number}, {stage}", "attempts", list(range(len(attempts))), attempts)
        if row.state is PlanState.DONE:
            still_open = [title(plan, g) for g in history if not g.ended]
            expect_none(tell, plan.id, "generations that a done plan still owes", still_open)
            compare(tell, f"{plan.id}, leg {leg.number}", "was asked, as the plan is done", True, bool(history))
        for generation in history:
            check_generation(looked, generation, written)
    if row.state is PlanState.PLANNED:
        cut = [g for g in written.generations if g.stage is not Stage.EMBED]
        compare(tell, plan.id, "generations of a plan that was not started", 0, len(cut))


def _check_end(looked: Looked, row: PlanRow, problems: list[Problem]) -> None:
    """Labels and named failures are all items of a plan that is over."""
    if row.state not in _OVER:
        return
    plan, items = looked.plan, looked.items
    told = {(p.row, p.classifier): p for p in problems}
    for c in plan.classifiers:
        labelled, named = items.labelled(c.name), np.zeros(items.n_rows, dtype=np.bool_)
        mine = [p for p in told.values() if p.classifier == c.name]
        beyond = [f"row {p.row}" for p in mine if p.row >= items.n_rows or not looked.texts.unique[p.row]]
        _say(looked, row, f"{plan.id}, {c.name}", "failures of conversations that are none", beyond)
        named[[p.row for p in mine if p.row < items.n_rows]] = True
        lost = np.flatnonzero(looked.texts.unique & ~labelled & ~named).tolist()
        _say(looked, row, f"{plan.id}, {c.name}", "items with neither a label nor a named failure", lost)
        both = np.flatnonzero(labelled & named).tolist()
        _say(looked, row, f"{plan.id}, {c.name}", "items with a label and a failure", both)
        tries = items.tries[c.name]
        wrong = [f"row {p.row}" for p in mine if p.row < items.n_rows and tries[p.row] != p.attempts]
        _say(looked, row, f"{plan.id}, {c.name}", "failures after another number of attempts", wrong)
    strange = sorted({p.classifier for p in problems} - {c.name for c in plan.classifiers})
    expect_none(looked.tell, plan.id, "failures of classifiers that the plan has not", strange)


def _say(looked: Looked, row: PlanRow, which: str, what: str, found: Sequence[object]) -> None:
    """Tell of items; of a cancelled plan, what was taken in last may not be settled yet."""
    if found and row.state is PlanState.CANCELLED:
        harmless(looked.tell, which, what, "none", f"{len(found)}; collect settles them")
    else:
        expect_none(looked.tell, which, what, found)
