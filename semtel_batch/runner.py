"""The loop: what the store owes → do it → store. Safe to kill at any line.

Nothing is kept in memory that the next process could not read from the store: each turn of the loop looks at the
plan's generations, shards and submissions, does the next thing for each, and writes it down before and after.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import orjson
import polars as pl

from semtel_batch.clock import Clock
from semtel_batch.conversations import load_index
from semtel_batch.errors import EndpointError, Incomplete
from semtel_batch.generations import Next, Rows, in_order, next_generation, once_more
from semtel_batch.intake import Intake
from semtel_batch.lease import hold
from semtel_batch.plans import Leg, Plan
from semtel_batch.records import BatchState, Endpoint, Outcome, Progress, Receipt, Stage, Tier
from semtel_batch.results import conversations_folder, final_labels, latest, read_labels, unanswered
from semtel_batch.rows import NewShard, PlanState, ShardRow, ShardState
from semtel_batch.shardfiles import Asking, cut_shards, write_file
from semtel_batch.store import Store
from semtel_batch.transcripts import blocks
from semtel_batch.transport.protocol import EnqueuedFull, Transport

log = logging.getLogger("semtel_batch.runner")

EMPTY_BLOCK_BYTES = len(orjson.dumps(blocks(pl.Series([""]))[0])) - 2
_NONE = np.array([], dtype=np.uint32)
_NO_LABELS = pl.Schema({"row": pl.UInt32, "classifier": pl.String, "label": pl.String}).to_frame()

OpenTransport = Callable[[Endpoint, Tier], Transport]

NO_ROOM = "token_limit_exceeded"
"""The provider's code for a full queue: nothing was executed, the shard waits until something of ours has ended."""

_FIRST_POLL_S, _LAST_POLL_S = 1.0, 60.0  # Azure asks for a minute between two looks
_BUSY_POLL = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """How far a run is, for whoever watches."""

    n_requests_done: int
    n_requests_total: int  # of the shards cut so far
    usd: Decimal
    n_retried: int  # tries beyond the first: 429s, 5xx and lost connections
    n_batches_waiting: int
    doing: str


Watch = Callable[[Tick], None]


class Runner:
    """Executes one plan. `submit` starts what can be started; `collect` goes on until nothing is owed or all waits."""

    def __init__(self, store: Store, plan: Plan, open_transport: OpenTransport, clock: Clock, watch: Watch) -> None:
        self._store, self._plan, self._clock, self._watch = store, plan, clock, watch
        self._open = open_transport
        self._transports: dict[tuple[str, Tier], Transport] = {}
        self._folder = store.files(plan.id)
        self._conversations = conversations_folder(store, plan)
        self._finished_legs: set[int] = set()
        self._extend: Callable[[], None] = lambda: None

    def submit(self) -> None:
        """Send what the plan says: upload batches, run the realtime share to its end.

        Raises Incomplete when answers are still to be collected.
        """
        with self._working(PlanState.RUNNING):
            while self._advance():
                pass
            self._settle_or_owe()

    def collect(self, *, wait: bool) -> None:
        """Take in what has ended, ask again what is owed, and send it; with `wait`, until nothing is owed.

        Of a cancelled plan, only what was answered before is taken in. Raises Incomplete when work is owed and `wait`
        is off.
        """
        cancelled = self._store.plan_row(self._plan.id).state is PlanState.CANCELLED
        pause = _FIRST_POLL_S
        with self._working(None if cancelled else PlanState.RUNNING):
            while not self._finished(cancelled):
                moved = self._poll() if cancelled else self._advance() | self._poll()
                if moved:
                    pause = _FIRST_POLL_S
                elif wait:
                    self._tick(f"waiting for the provider, looking again in {pause:.0f} s")
                    self._clock.sleep(pause)
                    pause = min(pause * _BUSY_POLL, _LAST_POLL_S)
                    self._extend()
                else:
                    break
            self._settle_or_owe(cancelled)

    def cancel(self) -> None:
        """Stop what can be stopped and end the plan; what was answered before stays to be collected."""
        with self._working(PlanState.CANCELLED):
            for row, receipt in self._submitted():
                self._transport(row).cancel(row.shard, receipt)
            self._poll()
            self._settle(PlanState.CANCELLED)

    def retry(self) -> int:
        """Ask every item that ended without a label once more, alone; returns how many. `collect` does the rest."""
        with self._working(PlanState.RUNNING):
            items = final_labels(self._store, self._plan).filter(pl.col("label").is_null())
            items = items.filter(pl.col("row").is_in(self._askable()))
            history = self._store.generations(self._plan.id)
            for leg in self._plan.legs:
                mine = items.filter(pl.col("classifier").is_in(leg.classifiers))
                if mine.height and all(g.ended for g in in_order(history, leg.number)):
                    self._cut_generation(leg, once_more(leg, in_order(history, leg.number), mine))
            return items.height

    # -- the steps ---------------------------------------------------------------------------------------------

    def _advance(self) -> bool:
        """Everything that does not need an answer from a batch. True if anything was done."""
        cut = self._cut()
        sent = self._send()
        return self._run_realtime() or sent or cut

    def _cut(self) -> bool:
        """Cut every generation whose turn it is. True if there was one."""
        cut = False
        for leg in self._plan.legs:
            while (found := self._next(leg)) is not None:
                self._cut_generation(leg, found)
                cut = True
                if found.asks:
                    break
        return cut

    def _next(self, leg: Leg) -> Next | None:
        history = in_order(self._store.generations(self._plan.id), leg.number)
        if leg.number in self._finished_legs or (history and not history[-1].ended):
            return None
        labels = read_labels(self._store, self._plan, leg=leg.number)
        found = next_generation(leg, history, labels, _NONE if history else self._askable(), self._plan.max_attempts)
        if found is None:
            self._finished_legs.add(leg.number)
        return found

    def _askable(self) -> Rows:
        """Unique conversations with something to classify; an empty one ends as a named failure, unpaid."""
        index = load_index(self._conversations)
        worth = index.filter((pl.col("row") == pl.col("first_row")) & (pl.col("n_bytes") > EMPTY_BLOCK_BYTES))
        return worth["row"].sort().to_numpy()

    def _cut_generation(self, leg: Leg, found: Next) -> None:
        index = load_index(self._conversations)
        tier = leg.strategy.tier if found.generation.attempt == 0 else self._plan.retry_tier
        if found.generation.stage is Stage.RECLASSIFY:
            tier = self._plan.retry_tier
        shards: list[NewShard] = []
        for ask in found.asks:
            asking = Asking(
                plan=self._plan,
                leg=leg,
                generation=found.generation,
                ask=ask,
                tier=tier,
                conversations=self._conversations,
            )
            shards += cut_shards(asking, index, len(shards), self._folder / "manifests")
        self._store.cut(self._plan.id, found.generation, shards, self._clock.now())

    def _send(self) -> bool:
        """Hand over every batch shard there is room for. True if one was sent."""
        sent = False
        for row in self._shards(ShardState.CUT):
            if row.shard.tier is Tier.REALTIME or not self._has_room(row):
                continue
            self._compose(row)
            submission = self._store.intend(row.shard, self._clock.now())
            self._tick(f"sending {row.shard.key}")
            sent |= self._hand_over(row, submission.receipt)
        for row, receipt in self._submitted():
            if not receipt.batch_id:  # a crash or a doubt lay between the intent and the batch's id
                self._compose(row)
                sent |= self._hand_over(row, receipt)
        return sent

    def _hand_over(self, row: ShardRow, receipt: Receipt) -> bool:
        try:
            self._transport(row).submit(
                row.shard, receipt, lambda got: self._store.note(row.shard, got, self._clock.now())
            )
        except EnqueuedFull as full:
            refused = Progress(state=BatchState.REJECTED, status="refused", error_code=NO_ROOM, error_message=str(full))
            self._refuse(row, refused)
            return False
        except Incomplete as trouble:
            log.warning("%s: %s", row.shard.key, trouble)
            return False
        self._tick(f"sent {row.shard.key}")
        return True

    def _has_room(self, row: ShardRow) -> bool:
        """Whether the endpoint's enqueued tokens allow one more shard, and no other was just turned away."""
        waiting = [other for other, _ in self._submitted() if other.shard.endpoint == row.shard.endpoint]
        tries = self._store.submissions(self._plan.id).get(row.shard.id, [])
        if tries and tries[-1].error_code == NO_ROOM and waiting:
            return False
        limit = self._plan.endpoint(row.shard.endpoint).enqueued_tokens
        used = sum(other.shard.prompt_tokens for other in waiting)
        return limit is None or not waiting or used + row.shard.prompt_tokens <= limit

    def _run_realtime(self) -> bool:
        """Run every realtime shard to its end. True if there was one."""
        ran = False
        for row in self._shards(ShardState.CUT) + self._shards(ShardState.SUBMITTED):
            if row.shard.tier is Tier.REALTIME:
                self._compose(row)
                self._store.intend(row.shard, self._clock.now())
                self._take_in(row, Receipt())
                ran = True
        return ran

    def _poll(self) -> bool:
        """Look at every submitted batch and take in those that ended. True if one did."""
        moved = False
        for row, receipt in self._submitted():
            if not receipt.batch_id:
                continue
            try:
                moved |= self._look_at(row, receipt)
            except Incomplete as trouble:  # may pass; the next look goes on from here
                log.warning("%s: %s", row.shard.key, trouble)
        return moved

    def _look_at(self, row: ShardRow, receipt: Receipt) -> bool:
        progress = self._transport(row).poll(row.shard, receipt)
        self._store.observe(row.shard, progress, self._clock.now())
        if progress.state is BatchState.READY:
            self._take_in(row, receipt)
        elif progress.state is BatchState.REJECTED:
            self._refuse(row, progress)
        return progress.state is not BatchState.WAITING

    def _refuse(self, row: ShardRow, progress: Progress) -> None:
        """A batch of which nothing was executed: waits for room, or stops the run if waiting can't mend it."""
        self._store.reject(row.shard, progress, self._clock.now())
        if progress.error_code != NO_ROOM:
            endpoint = self._plan.endpoint(row.shard.endpoint)
            raise EndpointError(
                f"Endpoint {endpoint.name!r} rejected batch {row.shard.key} as a whole ({progress.error_code}: "
                f"{progress.error_message}); nothing was billed. Mend the cause and run: semtel-batch submit "
                f"{self._plan.id}, or plan again with another endpoint."
            )
        log.info("%s: no room at the endpoint for now", row.shard.key)

    def _take_in(self, row: ShardRow, receipt: Receipt) -> None:
        """Write down a shard's answers, group by group, and end it."""
        intake = Intake(self._store, self._plan, row.shard, row.manifest, self._conversations)
        for group in self._transport(row).answers(row.shard, receipt, intake.done()):
            intake.take(group, self._clock.now())
            self._tick(f"{row.shard.stage.value}: {row.shard.key}")
            self._extend()
        if intake.n_done < row.shard.n_requests:  # the transport was told to stop
            raise Incomplete(f"Plan {self._plan.id} was stopped; go on with: semtel-batch collect {self._plan.id}")
        intake.finish(self._clock.now())
        self._store.end_shard(row.shard, self._clock.now())
        row.shard.path.unlink(missing_ok=True)

    def _compose(self, row: ShardRow) -> None:
        labels = _NO_LABELS
        if row.shard.stage is Stage.GRADE:
            leg = read_labels(self._store, self._plan, leg=row.shard.leg)
            given = leg.filter(
                (pl.col("stage") == Stage.CLASSIFY.value) & (pl.col("outcome") == Outcome.ANSWERED.value)
            )
            labels = latest(given)
        write_file(self._plan, row.shard, row.manifest, self._conversations, labels)

    # -- the end -----------------------------------------------------------------------------------------------

    def _finished(self, cancelled: bool = False) -> bool:
        if cancelled:
            return not self._submitted()
        pending = any(self._next(leg) is not None for leg in self._plan.legs)
        return not pending and all(row.state is ShardState.ENDED for row in self._all_shards())

    def _settle_or_owe(self, cancelled: bool = False) -> None:
        if self._finished(cancelled):
            self._settle(PlanState.CANCELLED if cancelled else PlanState.DONE)
            return
        raise Incomplete(f"Plan {self._plan.id} still waits for answers; run: semtel-batch collect {self._plan.id}")

    def _settle(self, state: PlanState) -> None:
        items = final_labels(self._store, self._plan)
        self._store.set_problems(self._plan.id, unanswered(items))
        self._store.end_plan(self._plan.id, state, self._clock.now())
        self._tick("done")

    # -- what the store says -----------------------------------------------------------------------------------

    def _all_shards(self) -> list[ShardRow]:
        return self._store.shards(self._plan.id)

    def _shards(self, state: ShardState) -> list[ShardRow]:
        return [row for row in self._all_shards() if row.state is state]

    def _submitted(self) -> list[tuple[ShardRow, Receipt]]:
        tries = self._store.submissions(self._plan.id)
        return [
            (row, tries[row.shard.id][-1].receipt)
            for row in self._shards(ShardState.SUBMITTED)
            if row.shard.tier is not Tier.REALTIME
        ]

    def _transport(self, row: ShardRow) -> Transport:
        key = (row.shard.endpoint, row.shard.tier)
        if key not in self._transports:
            self._transports[key] = self._open(self._plan.endpoint(row.shard.endpoint), row.shard.tier)
        return self._transports[key]

    @contextmanager
    def _working(self, state: PlanState | None) -> Iterator[None]:
        """Hold the plan's lease while working, and let go of connections at the end."""
        with hold(self._store, f"plan {self._plan.id}", self._clock) as self._extend:
            if state is PlanState.RUNNING:
                self._store.start_plan(self._plan.id, self._clock.now())
            try:
                yield
            finally:
                for transport in self._transports.values():
                    transport.close()
                self._transports.clear()

    def _tick(self, doing: str) -> None:
        parts = self._store.parts(self._plan.id)
        shards = self._all_shards()
        self._watch(
            Tick(
                n_requests_done=sum(part.n_requests for part in parts),
                n_requests_total=sum(row.shard.n_requests for row in shards),
                usd=sum((part.cost_usd for part in parts), Decimal(0)),
                n_retried=sum(part.n_tries - part.n_requests for part in parts),
                n_batches_waiting=sum(
                    row.state is ShardState.SUBMITTED and row.shard.tier is not Tier.REALTIME for row in shards
                ),
                doing=doing,
            )
        )
