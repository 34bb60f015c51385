"""The loop: what the store owes → do it → store. Safe to kill at any line.

Each turn looks at the plan's generations, shards and submissions, does the next thing for each, and writes it down
before and after; the next process goes on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

import numpy as np
import polars as pl

from semtel_batch import spool
from semtel_batch.batching import Batching
from semtel_batch.clock import Clock
from semtel_batch.conversations import askable, load_index
from semtel_batch.crashpoints import reach
from semtel_batch.cutting import Asking, cut_shards, reused_shard
from semtel_batch.embedding import Embedding, NetworkStage
from semtel_batch.errors import Waiting
from semtel_batch.generations import Ask, Next, Rows, grouped, in_order, next_generation, once_more
from semtel_batch.hedging import Hedging
from semtel_batch.intake import judged_labels
from semtel_batch.lease import hold
from semtel_batch.plans import Leg, Plan
from semtel_batch.quality.garbled import size_that_holds
from semtel_batch.records import Doubt, Endpoint, Receipt, Stage, Tier
from semtel_batch.results import ENDS, asked_only, final_labels, labels_of_failed, read_labels, unlabelled
from semtel_batch.reuse import find_answered, write_reused
from semtel_batch.rows import Generation, NewShard, PlanState, Reused, ShardRow, ShardState
from semtel_batch.store import Store
from semtel_batch.strata import covers, served_rows
from semtel_batch.transport.protocol import NoCapacity
from semtel_batch.work import OpenTransport, Tick, Watch, Work

log = logging.getLogger("semtel_batch.runner")

__all__ = ["OpenTransport", "Runner", "Tick", "Watch"]

_FIRST_POLL_S, _LAST_POLL_S = 1.0, 60.0  # Azure asks for a minute between two looks
_BUSY_POLL = 1.2  # a batch that ended is seen at most a sixth of its time later

_NO_ROWS = np.array([], dtype=np.uint32)


class Ahead(Protocol):
    """Does a run's work elsewhere, just before the run needs it; whatever it has not done, the run does itself."""

    def compose(self, work: Work, rows: Sequence[ShardRow]) -> None:
        """Write the files of shards that are about to be sent."""
        ...

    def answer(self, work: Work, rows: Sequence[ShardRow], is_over: Callable[[ShardRow], bool]) -> None:
        """Ask the requests of shards that are answered at once; leaves the answers to `spool.take_over`.

        What `is_over` is no longer asked, and left to the run.
        """
        ...


class Runner:
    """Executes one plan. `submit` starts what can be started; `collect` goes on until nothing is owed or all waits."""

    def __init__(
        self,
        store: Store,
        plan: Plan,
        open_transport: OpenTransport,
        clock: Clock,
        watch: Watch,
        ahead: Ahead | None = None,
    ) -> None:
        self._ahead = ahead
        self._asked_ahead: set[int] = set()
        self._store, self._plan, self._clock = store, plan, clock
        self._work = Work(store, plan, open_transport, clock, watch)
        self._batching = Batching(self._work)
        self._hedging = Hedging(self._work)
        self._networks = NetworkStage(self._work, plan.network) if plan.network else None
        self._finished_legs: set[int] = set()
        self._looked_at: datetime | None = None

    def submit(self) -> None:
        """Send what the plan says: upload batches, run the realtime share to its end.

        Raises Waiting when answers are still to be collected.
        """
        with self._working(PlanState.RUNNING):
            while self._advance():
                if self._at_once():  # batches end while realtime goes on, and make room in the queue for others
                    self._look_at_batches()
            self._settle_or_owe()

    def collect(self, *, wait: bool) -> None:
        """Take in what has ended, ask again what is owed, and send it; with `wait`, until nothing is owed.

        Of a cancelled plan, only what was answered before is taken in. Raises Waiting when work is owed and `wait` is
        off.
        """
        cancelled = self._store.plan_row(self._plan.id).state is PlanState.CANCELLED
        pause = _FIRST_POLL_S
        with self._working(None if cancelled else PlanState.RUNNING):
            while not self._finished(cancelled):
                moved = self._batching.poll(cancelled=True) if cancelled else self._advance() | self._look_at_batches()
                if moved:
                    pause = _FIRST_POLL_S
                elif wait:
                    pause = self._paused(pause)
                else:
                    break
            self._settle_or_owe(cancelled)

    def embed(self, endpoint: Endpoint, tier: Tier) -> None:
        """Give every conversation a vector, and wait for it; nothing else is asked. Raises what ends all work."""
        with self._working(None):
            first = sum(g.stage is Stage.EMBED and g.ended for g in self._store.generations(self._plan.id))
            embedding = Embedding(self._work, endpoint, tier, first=first)
            pause = _FIRST_POLL_S
            while not embedding.is_done:
                moved = embedding.cut() | self._batching.send() | self._run_at_once() | self._batching.poll()
                pause = _FIRST_POLL_S if moved else self._paused(pause)

    def stop(self) -> bool:
        """Have a running `submit` or `collect` end soon, with all that was paid for; False if it need not be asked.

        For signal handlers. Where it gives False, the loop may be broken off anywhere.
        """
        return self._work.stop()

    def cancel(self) -> None:
        """Stop what can be stopped and end the plan; what was answered before stays to be collected."""
        with self._working(PlanState.CANCELLED):
            self._batching.cancel()
            self._batching.poll(cancelled=True)
            self._settle(PlanState.CANCELLED)

    def retry(self) -> int:
        """Ask every item that ended without a label once more, alone; returns how many. `collect` does the rest."""
        with self._working(None):
            items = final_labels(self._store, self._plan).filter(pl.col("label").is_null())
            asked = self._askable()
            items = items.filter(pl.col("row").is_in(asked["row"].implode()))
            if items.height:
                self._store.start_plan(self._plan.id, self._clock.now())
            history = self._store.generations(self._plan.id)
            for leg in self._plan.legs:
                if self._networks is not None and not in_order(history, leg.number):
                    continue  # never begun: `collect` does, and the networks come first
                rows = pl.Series(self._served(leg, asked))
                mine = items.filter(pl.col("classifier").is_in(leg.classifiers) & pl.col("row").is_in(rows.implode()))
                if mine.height and all(g.ended for g in in_order(history, leg.number)):
                    self._cut_generation(leg, once_more(leg, in_order(history, leg.number), mine))
            return items.height

    # -- the steps ---------------------------------------------------------------------------------------------

    def _paused(self, pause: float) -> float:
        """Wait for so many seconds; returns how many the next time."""
        self._work.tick(f"waiting for the provider, looking again in {pause:.0f} s")
        self._clock.sleep(pause)
        self._work.extend_lease()
        return min(pause * _BUSY_POLL, _LAST_POLL_S)

    def _advance(self) -> bool:
        """Everything that does not need an answer from a batch. True if anything was done."""
        cut = self._cut()
        if cut and self._ahead is not None:
            self._ahead.compose(self._work, self._of_legs(self._work.shards(ShardState.CUT)))
            self._work.extend_lease()
        hedged = self._hedging.step(self._started_at)
        sent = self._batching.send()
        return self._run_at_once() or sent or cut or hedged

    def _cut(self) -> bool:
        """Cut every generation whose turn it is. True if there was one."""
        if self._networks is not None and not self._networks.is_done:
            cut = self._networks.advance()
            if not self._networks.is_done:
                return cut
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
        if leg.strategy.doubt is not Doubt.NONE:
            labels = asked_only(
                self._store, self._plan, read_labels(self._store, self._plan, leg=leg.number, columns=ENDS)
            )
        else:
            labels = labels_of_failed(self._store, self._plan, leg.number)
        rows = _NO_ROWS if history else self._served(leg, self._askable())
        fits = self._pack_size(leg) if history else None
        found = next_generation(leg, history, labels, rows, self._plan.max_attempts, fits)
        if found is None:
            self._finished_legs.add(leg.number)
        return found

    def _left_by_networks(self, asking: Asking, reused: list[Reused]) -> list[Ask]:
        """What is left of an ask when the networks' labels are taken; those are added to `reused`."""
        tier, generation = self._plan.network, asking.generation
        is_first = generation.stage is Stage.CLASSIFY and generation.attempt == 0
        if self._networks is None or tier is None or not is_first:
            return [asking.ask]
        return self._taken(asking, self._networks.find(asking.ask.classifiers, asking.ask.rows), reused, tier.way)

    def _taken(self, asking: Asking, found: pl.DataFrame, reused: list[Reused], way: str | None = None) -> list[Ask]:
        """Write down labels that need no request; returns what is left to ask."""
        ask = asking.ask
        if not found.height:
            return [ask]
        shard = reused_shard(asking, f"reused{len(reused)}", found.height, self._work.manifests, way)
        reused.append(write_reused(found, shard, self._store.files(self._plan.id)))
        items = pl.DataFrame({"row": ask.rows}).join(pl.DataFrame({"classifier": ask.classifiers}), how="cross")
        return grouped(items.join(found, on=["row", "classifier"], how="anti"), asking.leg, ask.per_request)

    def _pack_size(self, leg: Leg) -> int:
        """Conversations that a request of a leg bears, by what this run has seen of it."""
        seen = self._store.packs(self._started_at, (self._plan.id, leg.number))
        return size_that_holds(seen, leg.strategy.conversations_per_request)

    def _askable(self) -> pl.DataFrame:
        """Unique conversations with something to classify; an empty one ends as a named failure, unpaid."""
        return askable(load_index(self._work.conversations, ["row", "first_row", "n_bytes", "n_tokens"]))

    def _served(self, leg: Leg, asked: pl.DataFrame) -> Rows:
        return served_rows(self._plan, leg, asked, self._store.files(self._plan.id))

    def _cut_generation(self, leg: Leg, found: Next) -> None:
        index = load_index(self._work.conversations, ["row", "n_tokens", "n_bytes"])
        tier = self._tier(leg, found.generation)
        shards: list[NewShard] = []
        reused: list[Reused] = []
        for first in found.asks:
            asking = Asking(plan=self._plan, leg=leg, generation=found.generation, ask=first, tier=tier)
            for ask in self._to_ask(asking, reused):
                shards += cut_shards(replace(asking, ask=ask), index, len(shards), self._work.manifests)
        reach("generation.not-cut")
        self._work.extend_lease()
        self._store.cut(self._plan.id, found.generation, shards, self._clock.now(), reused)
        reach("generation.cut")

    def _to_ask(self, asking: Asking, reused: list[Reused]) -> Iterator[Ask]:
        """What costs something of an ask. An earlier run's own answers go before what a network says."""
        for ask in self._not_answered_before(asking, reused):
            for left in self._left_by_networks(replace(asking, ask=ask), reused):
                if left.classifiers == asking.ask.classifiers:
                    yield left
                else:  # fewer classifiers in a prompt are another way of asking
                    yield from self._not_answered_before(replace(asking, ask=left), reused)

    def _not_answered_before(self, asking: Asking, reused: list[Reused]) -> list[Ask]:
        """What is left of an ask when earlier runs' answers are taken; those are added to `reused`."""
        generation, ask = asking.generation, asking.ask
        if self._plan.fresh or generation.attempt > 0:
            return [ask]
        judged = judged_labels(self._work.to_judge(generation.stage, generation.leg))
        classifiers = [self._plan.classifier(name) for name in ask.classifiers]
        found = find_answered(self._store, asking.way, classifiers, ask.rows, self._work.conversations, judged)
        return self._taken(asking, found, reused)

    def _tier(self, leg: Leg, generation: Generation) -> Tier:
        """First asks and the grader go where the plan says; what is asked again, where it says for that.

        Near the deadline all that is left goes to realtime.
        """
        again = generation.attempt > 0 or generation.stage is Stage.RECLASSIFY
        tier = self._plan.again_tier(leg, generation.stage) if again else leg.strategy.tier
        can_move = self._plan.has_realtime(self._plan.asked_of(leg, generation.stage).name)
        if tier not in (Tier.REALTIME, Tier.DECISIONS) and can_move and self._hedging.is_late(self._started_at):
            return Tier.REALTIME
        return tier

    def _of_legs(self, rows: Sequence[ShardRow]) -> list[ShardRow]:
        """Without the embedding shards, which this process asks itself."""
        return [row for row in rows if row.shard.stage is not Stage.EMBED]

    def _at_once(self) -> list[ShardRow]:
        """The open shards that are answered at once."""
        return [row for row in self._work.shards(ShardState.CUT, ShardState.SUBMITTED) if row.shard.tier.is_at_once]

    def _run_at_once(self) -> bool:
        """Run the oldest shard that is answered at once to its end; batches get their turn before the next one.

        True if there was one.
        """
        if self._ahead is not None:
            self._ask_ahead(self._ahead)
        for row in self._at_once()[:1]:
            self._work.extend_lease()
            self._store.intend(row.shard, self._clock.now())
            reach("realtime.intended")
            self._run_one(row)
            return True
        return False

    def _look_at_batches(self) -> bool:
        """Poll; between shards that are answered at once no more often than when only waiting. True if one ended."""
        now = self._clock.now()
        soon = self._looked_at is not None and now < self._looked_at + timedelta(seconds=_LAST_POLL_S)
        if soon and self._at_once():
            return False
        self._looked_at = now
        return self._batching.poll()

    def _ask_ahead(self, ahead: Ahead) -> None:
        """Have every shard that is answered at once asked elsewhere, each once in this run."""
        rows = [row for row in self._of_legs(self._at_once()) if row.shard.id not in self._asked_ahead]
        if not rows:
            return
        self._asked_ahead |= {row.shard.id for row in rows}
        for row in rows:
            spool.take_over(self._store, row.shard)  # what an earlier driver's tasks have left
            self._store.intend(row.shard, self._clock.now())
        self._work.extend_lease()
        self._work.tick(f"{len(rows)} shards are asked by executors")
        ahead.answer(self._work, rows, self._is_flex_over)
        self._work.extend_lease()

    def _run_one(self, row: ShardRow) -> None:
        """Run a shard; what flex has no room for, or not before the deadline, moves to realtime if that is allowed."""
        if row.shard.tier is not Tier.FLEX:
            self._work.take_in(row, Receipt())
            return
        try:
            is_whole = self._work.take_in(row, Receipt(), partial(self._is_flex_over, row))
        except NoCapacity:
            if not self._hedging.can_switch(row):
                raise
            is_whole = False
        if not is_whole:
            log.warning("%s: what flex has not answered is asked in realtime", row.shard.key)
            self._hedging.move_to_realtime(row)

    def _is_flex_over(self, row: ShardRow) -> bool:
        if row.shard.tier is not Tier.FLEX:
            return False
        return self._hedging.is_late(self._started_at, [row]) and self._hedging.can_switch(row)

    # -- the end -----------------------------------------------------------------------------------------------

    def _finished(self, cancelled: bool = False) -> bool:
        if cancelled:  # an intent without a batch is nothing to wait for
            return not any(submission.receipt.batch_id for _, submission in self._work.submitted())
        pending = any(self._next(leg) is not None for leg in self._plan.legs)
        return not pending and all(row.state is ShardState.ENDED for row in self._work.shards())

    def _settle_or_owe(self, cancelled: bool = False) -> None:
        if self._finished(cancelled):
            self._settle(PlanState.CANCELLED if cancelled else PlanState.DONE)
            return
        raise Waiting(f"Plan {self._plan.id} still waits for answers; run: semtel-batch collect {self._plan.id}")

    def _settle(self, state: PlanState) -> None:
        self._store.set_problems(self._plan.id, unlabelled(self._store, self._plan))
        reach("plan.problems-written")
        if state is PlanState.DONE:
            self._work.remove_leftovers()
        self._store.end_plan(self._plan.id, state, self._clock.now())
        reach("plan.ended")
        self._work.tick("done")

    @contextmanager
    def _working(self, state: PlanState | None) -> Iterator[None]:
        """Hold the plan's lease while working, and let go of connections at the end."""
        with hold(self._store, f"plan {self._plan.id}", self._clock) as self._work.extend_lease:
            if state is PlanState.RUNNING:
                covers(self._plan)
                self._store.start_plan(self._plan.id, self._clock.now())
                reach("plan.started")
            self._started_at = self._store.plan_row(self._plan.id).started_at or self._clock.now()
            try:
                yield
            finally:
                self._work.close()
