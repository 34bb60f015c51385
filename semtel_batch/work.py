"""What the steps of a run share: the store's view of one plan, the ways to its endpoints, and who watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch import spool
from semtel_batch.clock import Clock
from semtel_batch.compressing import Compressing
from semtel_batch.crashpoints import reach
from semtel_batch.embedding_shards import write_texts
from semtel_batch.errors import Incomplete
from semtel_batch.intake import Intake, VectorIntake, judged_labels
from semtel_batch.parts import MANIFEST, read_parts
from semtel_batch.plans import Plan
from semtel_batch.records import Answer, Endpoint, Outcome, Pace, Receipt, Stage, Tier
from semtel_batch.results import NO_LABELS, conversations_folder, given_labels
from semtel_batch.rows import ShardRow, ShardState, Submission
from semtel_batch.shardfiles import as_it_is, remove_files, write_file
from semtel_batch.store import Store
from semtel_batch.transport.protocol import Transport

_UNEXECUTED = frozenset({Outcome.CANCELLED, Outcome.EXPIRED})
_PACES_AT_ONCE = 10  # seconds' worth, written down in one transaction

OpenTransport = Callable[[Sequence[Endpoint], Tier], Transport]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """How far a run is, for whoever watches."""

    n_requests_done: int
    n_requests_total: int  # of the shards cut so far
    usd: Decimal
    n_retried: int  # tries beyond the first: 429s, 5xx and lost connections
    n_labels: int  # of the first pass
    n_unlabelled: int  # items that came back without one so far: they are asked again, or end as named failures
    n_batches_waiting: int
    doing: str


Watch = Callable[[Tick], None]


def stopped(plan_id: str) -> str:
    """What is said of a run that was told to stop."""
    return f"Plan {plan_id} was stopped; nothing is lost, go on with: semtel-batch collect {plan_id} --wait"


class Work:
    """One plan being executed. Nothing is kept here that the next process could not read from the store."""

    def __init__(self, store: Store, plan: Plan, open_transport: OpenTransport, clock: Clock, watch: Watch) -> None:
        self.store, self.plan, self.clock = store, plan, clock
        self.conversations = conversations_folder(store, plan)
        self.manifests: Path = store.files(plan.id) / "manifests"
        self.extend_lease: Callable[[], None] = lambda: None
        self._open, self._watch = open_transport, watch
        self._transports: dict[tuple[tuple[Endpoint, ...], Tier], Transport] = {}
        self._compressing = Compressing(plan, self.conversations, lambda leg: self._texts_of(leg))
        self._answering: ShardRow | None = None
        self._is_stopping = False
        self._paces: list[Pace] = []  # not yet in the store

    def stop(self) -> bool:
        """Send nothing more and let finish what is out, as it is paid for; False if no realtime request is out.

        Safe in a signal handler: it raises nothing and waits for nothing.
        """
        self._is_stopping = self._answering is not None
        if self._answering is not None:
            self.transport(self._answering).cancel(self._answering.shard, Receipt())
        return self._is_stopping

    def close(self) -> None:
        for transport in self._transports.values():
            transport.close()
        self._transports.clear()
        self._compressing.close()

    def transport(self, row: ShardRow) -> Transport:
        key = (self.plan.members(row.shard), row.shard.tier)
        if key not in self._transports:
            self._transports[key] = self._open(*key)
        return self._transports[key]

    def shards(self, *states: ShardState) -> list[ShardRow]:
        """The plan's shards in these states, oldest first; all of them if none is named."""
        return [row for row in self.store.shards(self.plan.id) if not states or row.state in states]

    def submitted(self) -> list[tuple[ShardRow, Submission]]:
        """The batch shards that a provider has or may have, each with its newest try."""
        tries = self.store.submissions(self.plan.id)
        rows = self.shards(ShardState.SUBMITTED)
        return [(row, tries[row.shard.id][-1]) for row in rows if not row.shard.tier.is_at_once]

    def compose(self, row: ShardRow) -> None:
        """Write the lines of a shard, unless they are there."""
        if row.shard.stage is Stage.EMBED:
            endpoint = self.plan.endpoint(row.shard.endpoint)
            write_texts(endpoint, row.shard, row.manifest, self.conversations)
        elif not row.shard.path.exists():
            judged = self.to_judge(row.shard.stage, row.shard.leg)
            compress = self._compressing.of(row) or as_it_is
            write_file(self.plan, row.shard, row.manifest, self.conversations, judged, compress)
            reach("shard.composed")

    def _texts_of(self, leg: int) -> npt.NDArray[np.uint32]:
        """The rows whose texts a leg will send, in the order in which it will."""
        manifests = [row.manifest for row in self.shards() if row.shard.leg == leg]
        return read_parts(manifests, MANIFEST)["row"].unique(maintain_order=True).to_numpy()

    def to_judge(self, stage: Stage, leg: int) -> pl.DataFrame:
        """The labels that stand in the grader's requests; none in any other stage's."""
        return given_labels(self.store, self.plan, leg) if stage is Stage.GRADE else NO_LABELS

    def take_in(self, row: ShardRow, receipt: Receipt, give_up: Callable[[], bool] = lambda: False) -> bool:
        """Write down a shard's answers, group by group, and end it; False if `give_up` said to leave the rest.

        Raises Incomplete if it was stopped.
        """
        return self._take_in(row, receipt, give_up, lambda group: group)

    def take_in_executed(self, row: ShardRow, receipt: Receipt) -> bool:
        """The same without the requests that were never executed; False if there are any: the shard is not ended.

        Each answer bears the tier that it was given in, as the rest of the shard is to be asked in another.
        """
        tier = row.shard.tier

        def executed(group: Sequence[Answer]) -> list[Answer]:
            return [replace(one, tier=one.tier or tier) for one in group if one.outcome not in _UNEXECUTED]

        return self._take_in(row, receipt, lambda: False, executed, may_be_left=True)

    def _take_in(
        self,
        row: ShardRow,
        receipt: Receipt,
        give_up: Callable[[], bool],
        chosen: Callable[[Sequence[Answer]], Sequence[Answer]],
        *,
        may_be_left: bool = False,
    ) -> bool:
        spool.take_over(self.store, row.shard)
        self.compose(row)  # the transport reads from it which answers are owed
        intake = self._intake(row)
        way, has_given_up = self.transport(row), may_be_left
        with self._answered(row), self._paces_kept(way):
            for group in way.answers(row.shard, receipt, intake.done()):
                self.extend_lease()  # first: another process may have written these very answers
                if taken := chosen(group):
                    intake.take(taken, self.clock.now())
                self._keep_paces(way, _PACES_AT_ONCE)
                self.tick(f"{row.shard.stage.value}: {row.shard.key}")
                if self._is_stopping:  # told before the first request was out, the transport did not hear it
                    self.stop()
                elif not has_given_up and give_up():
                    has_given_up = True
                    way.cancel(row.shard, receipt)
        is_whole = intake.n_done == row.shard.n_requests
        if is_whole:
            self._end(row, intake)
        if self._is_stopping or not (is_whole or has_given_up):
            raise Incomplete(stopped(self.plan.id))
        return is_whole

    def _end(self, row: ShardRow, intake: Intake) -> None:
        reach("shard.answered")
        intake.finish(self.store, self.clock.now())
        reach("shard.merged")
        self.store.end_shard(row.shard, self.clock.now(), intake.packs())
        reach("shard.ended")
        remove_files(row.shard)
        reach("shard.files-removed")

    def _intake(self, row: ShardRow) -> Intake:
        if row.shard.stage is Stage.EMBED:
            return VectorIntake(self.store, self.plan, row, self.conversations)
        judged = judged_labels(self.to_judge(row.shard.stage, row.shard.leg))
        return Intake(self.store, self.plan, row, self.conversations, judged)

    @contextmanager
    def _answered(self, row: ShardRow) -> Iterator[None]:
        """While a realtime shard is, `stop` has something to stop."""
        self._answering = row if row.shard.tier.is_at_once else None
        try:
            yield
        finally:
            self._answering = None

    def remove_leftovers(self) -> None:
        """Take away what crashes left of a plan whose shards have all ended: files of lines, parts without a row."""
        files = self.store.files(self.plan.id)
        spool.clear(files)
        registered = {path for part in self.store.parts(self.plan.id) for path in (part.answers, part.labels)}
        for kind in ("answers", "labels", "shards"):
            for path in (files / kind).glob("*"):
                if path not in registered:
                    path.unlink(missing_ok=True)

    @contextmanager
    def _paces_kept(self, way: Transport) -> Iterator[None]:
        try:
            yield
        finally:
            self._keep_paces(way, 1)

    def _keep_paces(self, way: Transport, at_least: int) -> None:
        self.store.add_events(self.plan.id, way.events())
        self._paces += way.paces()
        if len(self._paces) >= at_least:
            self.store.add_paces(self.plan.id, self._paces)
            self._paces = []

    def tick(self, doing: str) -> None:
        parts = self.store.parts(self.plan.id)
        shards = self.shards()
        classify = {row.shard.id: row.shard.attempt for row in shards if row.shard.stage is Stage.CLASSIFY}
        first = {shard for shard, attempt in classify.items() if not attempt}
        n_labels = sum(part.n_answered for part in parts if part.shard_id in classify)
        self._watch(
            Tick(
                n_requests_done=sum(part.n_requests for part in parts),
                n_requests_total=sum(row.shard.n_requests for row in shards),
                usd=sum((part.cost_usd for part in parts), Decimal(0)),
                n_retried=sum(part.n_tries - part.n_requests for part in parts),
                n_labels=n_labels,
                n_unlabelled=max(0, sum(part.n_items for part in parts if part.shard_id in first) - n_labels),
                n_batches_waiting=sum(
                    row.state is ShardState.SUBMITTED and not row.shard.tier.is_at_once for row in shards
                ),
                doing=doing,
            )
        )
