"""The work of a run spread over executors: shard files composed, and realtime requests asked, ahead of the driver.

The driver alone writes the store. What executors leave lies in the plan's folder under names fixed beforehand: files of
requests, parts of answers with a note each. The run then finds it done; what is missing it does itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from semtel_batch import config, plans
from semtel_batch.clock import SystemClock
from semtel_batch.engines.spark.cluster import Cluster
from semtel_batch.intake import NUMBERS_OF_A_TASK, Intake
from semtel_batch.keys import Keys
from semtel_batch.legs import compressing
from semtel_batch.records import Receipt, Shard, Stage, Tier
from semtel_batch.results import NO_LABELS
from semtel_batch.rows import Part, ShardRow
from semtel_batch.shardfiles import custom_id, write_file
from semtel_batch.spool import SLICE_REQUESTS, Spool, driving, slices
from semtel_batch.transport.endpoints import open_transport
from semtel_batch.work import Work

_LOOK_S = 2.0  # a lease lasts much longer
_DRAIN_S = 6.0  # a task hears of it within a second, and waits three for what is out


@dataclass(frozen=True, slots=True)
class _Job:
    """What every task of a plan is told. No key is in it: executors look into their own environment."""

    plan: str  # as JSON
    project: Path
    folder: Path  # the plan's
    conversations: Path


@dataclass(frozen=True, slots=True)
class _Slice:
    row: ShardRow
    number: int
    registered: tuple[Part, ...]
    tasks: int


class SparkAhead:
    """Composes and asks on a cluster what a run is about to need; see `runner.Ahead`."""

    def __init__(self, cluster: Cluster, tasks: int = 1) -> None:
        """`tasks`: other processes beside this cluster that ask the same endpoints, and one for the cluster."""
        self._cluster, self._tasks = cluster, tasks

    def compose(self, work: Work, rows: Sequence[ShardRow]) -> None:
        """Write the files of shards, but for those that the grader reads, or that a compressor goes before."""
        plain = [row for row in rows if _is_plain(work, row) and not row.shard.path.exists()]
        if len(plain) > 1:
            self._spread(work, _compose, [_absolute(row) for row in plain], self._cluster.stop)

    def answer(self, work: Work, rows: Sequence[ShardRow]) -> None:
        """Ask the realtime requests of shards, each slice in one task; what is registered is not asked again."""
        asked = [row for row in rows if row.shard.tier is Tier.REALTIME and row.shard.stage is not Stage.GRADE]
        open_slices = [(row, number) for row in asked for number in slices(row.shard)]
        if len(open_slices) < 2:
            return
        parts = work.store.parts(work.plan.id)
        tasks = self._tasks - 1 + min(self._cluster.n_tasks, len(open_slices))
        units = [
            _Slice(
                _absolute(row), number, tuple(_found(part) for part in parts if part.shard_id == row.shard.id), tasks
            )
            for row, number in open_slices
        ]
        for row in asked:
            work.compose(row)
        with ExitStack() as driven:
            driven.enter_context(driving(work.store.files(work.plan.id)))
            self._spread(work, _answer, units, let_go=driven.close)

    def _spread(
        self, work: Work, task: Callable[[_Job, Any], str], units: Sequence[Any], let_go: Callable[[], None]
    ) -> None:
        """Have the cluster work while this thread keeps the plan's lease; stop it if this thread is stopped."""
        with ThreadPoolExecutor(1, "semtel-spark") as waiting:
            done = waiting.submit(self._cluster.each, partial(task, _job(work)), units, work.store.folder.resolve())
            try:
                while wait([done], _LOOK_S).not_done:
                    work.extend_lease()
            except BaseException:
                let_go()  # tasks then send nothing more, and let finish what is out, as it is paid for
                if wait([done], _DRAIN_S).not_done:
                    self._cluster.stop()
                raise
            done.result()


def _is_plain(work: Work, row: ShardRow) -> bool:
    stage = row.shard.stage
    return stage is not Stage.GRADE and compressing(work.plan.legs[row.shard.leg].strategy, stage) is None


def _job(work: Work) -> _Job:
    project = work.store.project.resolve()
    folder = work.store.files(work.plan.id).resolve()
    return _Job(plans.to_json(work.plan), project, folder, work.conversations.resolve())


def _absolute(row: ShardRow) -> ShardRow:
    """Executors work in folders of their own."""
    return replace(row, shard=replace(row.shard, path=row.shard.path.resolve()), manifest=row.manifest.resolve())


def _found(part: Part) -> Part:
    return replace(part, answers=part.answers.resolve(), labels=part.labels.resolve())


# ── in executors ────────────────────────────────────────────────────────────────────────────────────────────────────


def _compose(job: _Job, row: ShardRow) -> str:
    write_file(plans.from_json(job.plan), row.shard, row.manifest, job.conversations, NO_LABELS)
    return ""


def _answer(job: _Job, asked: _Slice) -> str:
    plan, shard, clock = plans.from_json(job.plan), asked.row.shard, SystemClock()
    spool = Spool(job.folder, shard, asked.number, asked.registered)
    environ = Keys(os.environ, lambda: config.load(job.project, os.environ).key_commands)
    with spool.held():
        if not spool.is_wanted:
            return ""
        first_number = (asked.number + 1) * NUMBERS_OF_A_TASK  # below are the driver's own
        intake = Intake(spool, plan, asked.row, job.conversations, {}, first_number)
        done = intake.done() | _beside(shard, asked.number)
        if len(done) >= shard.n_requests:
            return ""
        way = open_transport(plan.members(shard), shard.tier, environ, tasks=asked.tasks)
        try:
            for group in way.answers(shard, Receipt(), done):
                intake.take(group, clock.now())
                if not spool.is_wanted:
                    way.cancel(shard, Receipt())
        finally:
            way.close()
    return ""


def _beside(shard: Shard, number: int) -> frozenset[str]:
    """The requests of a shard's other slices."""
    mine = range(number * SLICE_REQUESTS, (number + 1) * SLICE_REQUESTS)
    return frozenset(custom_id(shard, request) for request in range(shard.n_requests) if request not in mine)
