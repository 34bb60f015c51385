"""Delete what a plan holds of its conversations: here, and at the providers it was sent to. What was paid stays.

First the providers' files, then the store's word that the texts are gone, then the files: whatever breaks off in
between, the same call again does the rest.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from semtel_batch.clock import Clock
from semtel_batch.config import Retention
from semtel_batch.errors import BadInput, StoreError
from semtel_batch.lease import hold
from semtel_batch.networks import FOLDER, learned_from, remove
from semtel_batch.parts import ANSWERS, LABELS, read_parts, write_part
from semtel_batch.plans import Plan
from semtel_batch.records import Receipt, Tier
from semtel_batch.rows import PlanRow, PlanState, Purge
from semtel_batch.store import Store
from semtel_batch.transport.removal import remove_files

_FIGURES = ("index.parquet", "strata.parquet")  # which conversation is which row, and what serves it
_OF_LABELS = ("answers", "labels")  # folders that stay with the labels, without what was said in words
_WORDS = ("content", "error_message", "detail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """What was deleted."""

    plan_id: str
    n_remote: int  # files at providers
    n_files: int
    n_bytes: int
    labels_kept: bool
    n_networks: int = 0  # that had learned from it


def purge(store: Store, plan: Plan, clock: Clock, *, keep_labels: bool, environ: Mapping[str, str] | None) -> Purged:
    """Delete a plan's texts, answers and embeddings, what learned from them, and its labels unless they are to stay.

    `environ` holds the keys of the endpoints whose files are deleted too; without it, they are left to expire.
    """
    if store.plan_row(plan.id).state is PlanState.RUNNING:
        raise BadInput(
            f"Plan {plan.id} is running; let it end (semtel-batch collect {plan.id} --wait), or stop it "
            f"(semtel-batch cancel {plan.id}), and purge it then."
        )
    before = store.purges().get(plan.id)
    kept = keep_labels and (before is None or before.labels_kept)
    with hold(store, f"plan {plan.id}", clock) as still_ours:
        n_remote = 0 if environ is None else _purge_remote(store, plan, environ)
        still_ours()
        store.purge(plan.id, clock.now(), labels_kept=kept)
        sizes = [path.stat().st_size for path in texts_left(store.files(plan.id), labels_kept=kept)]
        _delete(store, plan, labels_kept=kept)
        networks = learned_from(store.folder / FOLDER, plan.id)
        remove(networks)
    return Purged(
        plan_id=plan.id,
        n_remote=n_remote,
        n_files=len(sizes),
        n_bytes=sum(sizes),
        labels_kept=kept,
        n_networks=len(networks),
    )


def expired(
    rows: Sequence[PlanRow], purges: Mapping[str, Purge], retention: Retention, now: datetime
) -> Iterator[tuple[str, bool]]:
    """The plans whose time is over, and whether their labels stay. A plan that was never run counts from its making."""
    for row in rows:
        if row.state is PlanState.RUNNING:
            continue
        age = now - (row.ended_at or row.created_at)
        over = [
            limit is not None and age > timedelta(seconds=limit) for limit in (retention.texts_s, retention.labels_s)
        ]
        done = purges.get(row.id)
        if over[1] and (done is None or done.labels_kept):
            yield row.id, False
        elif over[0] and done is None:
            yield row.id, True


def texts_left(folder: Path, *, labels_kept: bool) -> list[Path]:
    """The files of a plan's folder that hold conversations, or anything once the labels need not stay."""
    return [p for p in sorted(folder.rglob("*")) if p.is_file() and not (labels_kept and _stays(p.relative_to(folder)))]


def _stays(path: Path) -> bool:
    return path.parts[0] in _OF_LABELS or path.name in _FIGURES


def _purge_remote(store: Store, plan: Plan, environ: Mapping[str, str]) -> int:
    """Delete what batches left at their endpoints. The other tiers leave nothing that could be named afterwards."""
    receipts: dict[str, list[Receipt]] = {}
    tries = store.submissions(plan.id)
    for row in store.shards(plan.id):
        if row.shard.tier is Tier.BATCH:
            mine = receipts.setdefault(row.shard.endpoint, [])
            mine += [one.receipt for one in tries.get(row.shard.id, ())]
    return sum(remove_files(plan.endpoint(name), found, plan.id, environ) for name, found in receipts.items() if found)


def _delete(store: Store, plan: Plan, *, labels_kept: bool) -> None:
    folder = store.files(plan.id)
    try:
        if not labels_kept:
            if folder.exists():
                shutil.rmtree(folder)
            return
        for path in texts_left(folder, labels_kept=True):
            path.unlink()
    except OSError as error:
        raise StoreError(f"{error.filename} can't be deleted ({error.strerror}); mend it and purge again.") from error
    for part in store.parts(plan.id):
        _silence(part.answers, ANSWERS)
        _silence(part.labels, LABELS)


def _silence(path: Path, schema: pl.Schema) -> None:
    """Write a part again without what was said in words: figures and labels stay."""
    words = [name for name in _WORDS if name in schema]
    frame = read_parts([path], schema)
    if any(frame[name].null_count() < frame.height for name in words):
        write_part(path, frame.with_columns(pl.lit(None, pl.String).alias(name) for name in words), schema)
