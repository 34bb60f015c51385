"""The work of a run spread over executors: shard files composed, and requests asked, ahead of the driver.

The driver alone writes the store. What executors leave lies in the plan's folder under names fixed beforehand: files of
requests, parts of answers with a note each. The run then finds it done; what is missing it does itself.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from semtel_batch import plans
from semtel_batch.engines.spark.cluster import Cluster
from semtel_batch.engines.spark.dispatch import Dispatch
from semtel_batch.engines.spark.seats import UNREACHED, Job, Round, Slice, take_part
from semtel_batch.legs import compressing
from semtel_batch.parts import JUDGED, MANIFEST, read_parts, write_part
from semtel_batch.records import Stage
from semtel_batch.results import NO_LABELS
from semtel_batch.rows import Part, ShardRow
from semtel_batch.shardfiles import write_file
from semtel_batch.spool import Inbox, driving, judged_path, slices
from semtel_batch.work import Work

log = logging.getLogger("semtel_batch.spark")

_LOOK_S = 1.0  # a lease lasts much longer
_DRAIN_S = 6.0  # a task hears of it within a second, and waits three for what is out
_MOST_SEATS = 1_000  # tasks of Spark that take slices; more would begin only to find nothing left


class SparkAhead:
    """Composes and asks on a cluster what a run is about to need; see `runner.Ahead`."""

    def __init__(self, cluster: Cluster, tasks: int = 1) -> None:
        """`tasks`: other processes beside this cluster that ask the same endpoints, and one for the cluster."""
        self._cluster, self._tasks = cluster, tasks

    def compose(self, work: Work, rows: Sequence[ShardRow]) -> None:
        """Write the files of shards, but for those that the grader reads, or that a compressor goes before."""
        plain = [row for row in rows if _is_plain(work, row) and not row.shard.path.exists()]
        if len(plain) > 1:
            self._spread(work, _compose, [_absolute(row) for row in plain], self._cluster.stop, lambda: None)

    def answer(self, work: Work, rows: Sequence[ShardRow], is_over: Callable[[ShardRow], bool]) -> None:
        """Ask the requests of shards that are answered at once; what is registered is not asked again.

        A task takes slice after slice. What flex has no room for, or not in time (`is_over`), is left to the run.
        """
        n_slices = sum(len(slices(row.shard)) for row in rows)
        if n_slices < 2:
            return
        for row in rows:
            work.compose(row)
        others = self._tasks + max(0, work.store.n_working(work.clock.now()) - 1)
        asked = _round(work, rows, others)
        with ExitStack() as driven:
            driven.enter_context(driving(work.store.files(work.plan.id)))
            if self._ask_sharing(work, rows, asked, is_over, driven.close):
                return
            n_beside = min(self._cluster.n_tasks, n_slices)
            log.warning(
                "No executor reaches the driver at %s: each of %d tasks keeps an equal share of the limits, whatever "
                "the others use. Let executors connect there (spark.semtel.driver.port fixes the port).",
                self._cluster.host,
                n_beside,
            )
            asked = replace(asked, tasks=others - 1 + n_beside)
            inbox = Inbox(work.store, [row.shard for row in rows])

            def look() -> None:
                inbox.look()
                work.tick("executors ask")

            self._spread(work, partial(take_part, asked), range(n_slices), driven.close, look)

    def _ask_sharing(
        self,
        work: Work,
        rows: Sequence[ShardRow],
        asked: Round,
        is_over: Callable[[ShardRow], bool],
        let_go: Callable[[], None],
    ) -> bool:
        """Ask with limits that move to whoever has a use for them; False if no executor reaches the driver."""
        inbox = Inbox(work.store, [row.shard for row in rows])
        endpoints = [
            {member.name: member.concurrency for member in work.plan.members(way[0].shard)} for way in _ways(work, rows)
        ]
        cluster, n_seats = self._cluster, min(len(asked.slices), _MOST_SEATS)
        of_slices = [one.way for one in asked.slices]
        with Dispatch(cluster.host, cluster.port, endpoints, of_slices, cluster.n_tasks) as dispatch:

            def look() -> None:
                inbox.look()
                for way, own in enumerate(_ways(work, rows)):
                    if all(map(is_over, own)):
                        dispatch.close(way)
                work.tick(f"executors ask, {dispatch.n_seats} at work")

            def stop() -> None:
                dispatch.close()
                let_go()

            task = partial(take_part, replace(asked, address=dispatch.address))
            said = self._spread(work, task, range(n_seats), stop, look)
            for problem in dispatch.problems:
                log.warning("An executor stopped asking, and this process goes on with what it left: %s", problem)
        return set(said) != {UNREACHED}

    def _spread(
        self,
        work: Work,
        task: Callable[[Job, Any], str],
        units: Sequence[Any],
        let_go: Callable[[], None],
        look: Callable[[], None],
    ) -> list[str]:
        """Have the cluster work while this thread looks and keeps the lease. Stops it if this one is stopped."""
        with ThreadPoolExecutor(1, "semtel-spark") as waiting:
            done = waiting.submit(self._cluster.each, partial(task, _job(work)), units, work.store.folder.resolve())
            try:
                while wait([done], _LOOK_S).not_done:
                    work.extend_lease()
                    look()
            except BaseException:
                let_go()  # tasks then send nothing more, and let finish what is out, as it is paid for
                if wait([done], _DRAIN_S).not_done:
                    self._cluster.stop()
                raise
            return done.result()


def _ways(work: Work, rows: Sequence[ShardRow]) -> list[list[ShardRow]]:
    """Shards by the endpoints and the tier that they are asked of."""
    ways: dict[object, list[ShardRow]] = {}
    for row in rows:
        ways.setdefault((work.plan.members(row.shard), row.shard.tier), []).append(row)
    return list(ways.values())


def _round(work: Work, rows: Sequence[ShardRow], tasks: int) -> Round:
    parts = work.store.parts(work.plan.id)
    labels = functools.cache(lambda leg: work.to_judge(Stage.GRADE, leg))  # nothing is answered meanwhile
    asked: list[Slice] = []
    for way, own in enumerate(_ways(work, rows)):
        for row in own:
            registered = tuple(_found(part) for part in parts if part.shard_id == row.shard.id)
            is_grade = row.shard.stage is Stage.GRADE
            judged = _judged(work, row, labels(row.shard.leg)) if is_grade else None
            asked += (Slice(_absolute(row), number, way, registered, judged) for number in slices(row.shard))
    return Round(tuple(asked), tasks)


def _judged(work: Work, row: ShardRow, labels: pl.DataFrame) -> Path:
    """Where executors find the labels of a leg that a shard of the grader's is to judge."""
    path = judged_path(work.store.files(work.plan.id).resolve(), row.shard)
    write_part(path, labels.join(read_parts([row.manifest], MANIFEST).select("row"), on="row", how="semi"), JUDGED)
    return path


def _is_plain(work: Work, row: ShardRow) -> bool:
    stage = row.shard.stage
    return stage is not Stage.GRADE and compressing(work.plan.legs[row.shard.leg].strategy, stage) is None


def _job(work: Work) -> Job:
    project = work.store.project.resolve()
    folder = work.store.files(work.plan.id).resolve()
    return Job(plans.to_json(work.plan), project, folder, work.conversations.resolve())


def _absolute(row: ShardRow) -> ShardRow:
    """Executors work in folders of their own."""
    return replace(row, shard=replace(row.shard, path=row.shard.path.resolve()), manifest=row.manifest.resolve())


def _found(part: Part) -> Part:
    return replace(part, answers=part.answers.resolve(), labels=part.labels.resolve())


def _compose(job: Job, row: ShardRow) -> str:
    """In an executor: write a shard's file."""
    write_file(plans.from_json(job.plan), row.shard, row.manifest, job.conversations, NO_LABELS)
    return ""
