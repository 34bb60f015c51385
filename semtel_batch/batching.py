"""The batch share of a run: hand shards over as the queue has room, look at them, take in what ended.

An intent is written before anything is sent; what a crash left between the intent and the batch's id is handed over
again, and the transport adopts what the provider already has.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from semtel_batch.conversations import load_index
from semtel_batch.crashpoints import reach
from semtel_batch.cutting import Asking, split_shard
from semtel_batch.errors import EndpointError, Incomplete
from semtel_batch.generations import Ask
from semtel_batch.lease import LeaseLost
from semtel_batch.parts import MANIFEST, read_parts
from semtel_batch.planner.timing import Load, realtime_s
from semtel_batch.queueing import Decision, Move, decide, smallest_limit
from semtel_batch.records import BatchState, Endpoint, Progress, Receipt, Tier, Usage
from semtel_batch.rows import Generation, ShardRow, ShardState
from semtel_batch.transport.protocol import EnqueuedFull
from semtel_batch.work import Work

log = logging.getLogger("semtel_batch.batching")

NO_ROOM = "token_limit_exceeded"
"""The provider's code for a full queue: nothing was executed, nothing billed, and it can be sent again."""

_HEDGED = frozenset({Tier.BATCH, Tier.TWO_HOURS, Tier.EIGHT_HOURS, Tier.FLEX})
_CANCELLING = "cancelling"  # the provider's word
_CANCEL_MARGIN = timedelta(minutes=15)  # a provider takes up to ten minutes to cancel a batch


class Batching:
    """Sends, polls and takes in the batch shards of one plan."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def send(self) -> bool:
        """Hand over every shard there is room for, and all that a crash left half-way. True if one was handed over."""
        sent = False
        for row, submission in self._work.submitted():
            if not submission.receipt.batch_id:
                sent |= self._hand_over(row, submission.receipt)
        for row in self._work.shards(ShardState.CUT):
            if not row.shard.tier.is_at_once:
                sent |= self._send_or_split(row)
        return sent

    def poll(self, *, cancelled: bool = False) -> bool:
        """Look at every batch and take in those that ended. True if one did.

        Of a `cancelled` plan it does not matter why a batch was rejected.
        """
        moved = False
        for row, submission in self._work.submitted():
            if submission.receipt.batch_id:
                try:
                    moved |= self._look_at(row, submission.receipt)
                except LeaseLost:
                    raise
                except Incomplete as trouble:  # may pass; the next look goes on from here
                    log.warning("%s: %s", row.shard.key, trouble)
                except EndpointError as refusal:
                    if not cancelled:
                        raise
                    log.warning("%s: %s", row.shard.key, refusal)
        return moved

    def cancel(self) -> None:
        """Ask the provider to stop every batch."""
        for row, submission in self._work.submitted():
            self._work.transport(row).cancel(row.shard, submission.receipt)

    def hedge(self, started_at: datetime) -> bool:
        """Where the deadline would be missed by waiting on, move what is outstanding to realtime. True if it did.

        Batches are cancelled: what they answered is kept, the rest is asked again (planning facts, A.6).
        """
        open_rows = self._work.shards(ShardState.CUT, ShardState.SUBMITTED)
        realtime = [row for row in open_rows if row.shard.tier is Tier.REALTIME]  # have to be run before it, too
        sent = self._work.submitted()
        waiting = [(r, s) for r, s in sent if s.receipt.batch_id and s.status != _CANCELLING and self._has_realtime(r)]
        unsent = [
            r for r in open_rows if r.state is ShardState.CUT and r.shard.tier in _HEDGED and self._has_realtime(r)
        ]
        rows = [row for row, _ in waiting] + unsent
        if not rows or not self.is_late(started_at, rows + realtime) or not self._is_affordable(rows):
            return False
        log.warning("the deadline is near: %d batches that have not ended are moved to realtime", len(rows))
        for row, submission in waiting:
            self._work.transport(row).cancel(row.shard, submission.receipt)
            told = Progress(
                state=BatchState.WAITING,
                status=_CANCELLING,
                n_completed=submission.n_completed,
                n_failed=submission.n_failed,
            )
            self._work.store.observe(row.shard, told, self._work.clock.now())  # so that it is told once
        for row in unsent:
            self.move_to_realtime(row)
        return True

    def move_to_realtime(self, row: ShardRow) -> None:
        """Ask what is left of a shard in realtime: it is written anew, and its answers so far stay."""
        row.shard.path.unlink(missing_ok=True)
        self._work.store.move_shard(row.shard, Tier.REALTIME)
        reach("hedge.shard-moved")

    def is_late(self, started_at: datetime, rows: Sequence[ShardRow] = ()) -> bool:
        """Whether only realtime can still answer these shards, and what they leave open, before the deadline."""
        deadline_s = self._work.plan.objective.deadline_s
        if deadline_s is None:
            return False
        needed_s = 0.0
        for row in rows:
            own, *beside = self._work.plan.realtime_members(row.shard)
            needed_s += realtime_s(own, _load(row), beside)
        due = started_at + timedelta(seconds=deadline_s)
        return self._work.clock.now() >= due - timedelta(seconds=needed_s) - _CANCEL_MARGIN

    # -- one shard ---------------------------------------------------------------------------------------------

    def _send_or_split(self, row: ShardRow) -> bool:
        # A window has no queue of its own: the limits of realtime are kept where its requests are sent.
        decision = Decision(move=Move.SEND) if row.shard.tier.is_window else self._decide(row)
        if decision.move is Move.SPLIT:
            self._split(row, decision.max_tokens)
        if decision.move is Move.GIVE_UP:
            raise EndpointError(
                f"The batch queue of endpoint '{row.shard.endpoint}' has had no room for shard {row.shard.key} "
                f"({row.shard.prompt_tokens:,} tokens) although none of this plan's batches is in it; wait for others "
                f"to end or raise its limit, then run: semtel-batch collect {self._work.plan.id} --wait"
            )
        if decision.move is not Move.SEND:
            return decision.move is Move.SPLIT
        self._work.extend_lease()
        submission = self._work.store.intend(row.shard, self._work.clock.now())
        reach("batch.intended")
        return self._hand_over(row, submission.receipt)

    def _decide(self, row: ShardRow) -> Decision:
        sent = [r for r, _ in self._work.submitted() if not r.shard.tier.is_window]
        queue = [r for r in sent if r.shard.endpoint == row.shard.endpoint]
        here = {r.shard.id for r in self._work.shards() if r.shard.endpoint == row.shard.endpoint}
        submissions = self._work.store.submissions(self._work.plan.id)
        tries = [t for shard_id, group in submissions.items() if shard_id in here for t in group]
        refused = [t for t in tries if t.error_code == NO_ROOM]
        endpoint = self._endpoint(row)
        limit = smallest_limit(endpoint.enqueued_tokens, (t.error_message or "" for t in refused))
        refused_at = [t.ended_at or t.intended_at for t in refused if t.shard_id == row.shard.id]
        return decide(
            row.shard.prompt_tokens,
            [r.shard.prompt_tokens for r in queue],
            limit,
            refused_at,
            self._work.clock.now(),
            can_split=row.shard.n_requests > 1,
        )

    def _split(self, row: ShardRow, max_tokens: int) -> None:
        """Put smaller shards in the place of one that is too large for the queue."""
        work, shard = self._work, row.shard
        rows = read_parts([row.manifest], MANIFEST)["row"].to_numpy().astype(np.uint32)
        asking = Asking(
            plan=work.plan,
            leg=work.plan.legs[shard.leg],
            generation=Generation(leg=shard.leg, stage=shard.stage, attempt=shard.attempt),
            ask=Ask(classifiers=shard.classifiers, rows=rows, per_request=1),
            tier=shard.tier,
        )
        limits = replace(asking.limits, max_tokens=max_tokens)
        pieces = split_shard(asking, load_index(work.conversations), shard, row.manifest, limits)
        reach("split.manifests-written")
        work.store.split_shard(shard, pieces, work.clock.now())
        reach("split.registered")
        shard.path.unlink(missing_ok=True)
        log.info("%s: too large for the queue, cut into %d", shard.key, len(pieces))

    def _hand_over(self, row: ShardRow, receipt: Receipt) -> bool:
        work = self._work
        work.compose(row)
        work.tick(f"sending {row.shard.key}")

        def note(got: Receipt) -> None:
            work.extend_lease()  # an upload takes its time: whoever took over meanwhile pays for the batch, not we
            work.store.note(row.shard, got, work.clock.now())

        try:
            work.transport(row).submit(row.shard, receipt, note)
        except LeaseLost:
            raise
        except EnqueuedFull as full:
            self._refuse(
                row, Progress(state=BatchState.REJECTED, status="refused", error_code=NO_ROOM, error_message=str(full))
            )
            return False
        except Incomplete as trouble:
            log.warning("%s: %s", row.shard.key, trouble)
            return False
        work.tick(f"sent {row.shard.key}")
        return True

    def _look_at(self, row: ShardRow, receipt: Receipt) -> bool:
        progress = self._work.transport(row).poll(row.shard, receipt)
        reach("batch.polled")
        self._work.store.observe(row.shard, progress, self._work.clock.now())
        reach("batch.observed")
        if progress.state is BatchState.READY:
            self._work.take_in(row, receipt)
        elif progress.state is BatchState.REJECTED:
            self._refuse(row, progress)
        return progress.state is not BatchState.WAITING

    def _refuse(self, row: ShardRow, progress: Progress) -> None:
        """A batch of which nothing was executed: waits for room, or stops the run if waiting can't mend it."""
        reach("batch.refused")
        self._work.store.reject(row.shard, progress, self._work.clock.now())
        reach("batch.rejected")
        if progress.error_code != NO_ROOM:
            raise EndpointError(
                f"Endpoint '{row.shard.endpoint}' rejected batch {row.shard.key} as a whole ({progress.error_code}: "
                f"{progress.error_message}); nothing was billed. Mend the cause and run: semtel-batch submit "
                f"{self._work.plan.id}, or plan again with another endpoint."
            )
        log.info("%s: no room at the endpoint for now", row.shard.key)

    def can_switch(self, row: ShardRow) -> bool:
        """Whether a shard may be asked in realtime: it is offered, has a price, and the budget bears it."""
        return self._has_realtime(row) and self._is_affordable([row])

    def _has_realtime(self, row: ShardRow) -> bool:
        """Whether the shard's endpoint offers realtime, and it has a price."""
        endpoint, prices = self._endpoint(row), self._work.plan.prices
        priced = any(name == endpoint.name and price.tier is Tier.REALTIME for name, price in prices)
        return Tier.REALTIME in endpoint.tiers and priced

    def _is_affordable(self, rows: Sequence[ShardRow]) -> bool:
        """Whether the budget bears asking these in realtime."""
        plan, spent = self._work.plan, sum(part.cost_usd for part in self._work.store.parts(self._work.plan.id))
        for row in rows:
            usage = Usage(prompt_tokens=row.shard.prompt_tokens, completion_tokens=row.shard.max_completion_tokens)
            spent += plan.price(row.shard.endpoint, Tier.REALTIME).cost_usd(usage)
        return plan.objective.budget_usd is None or spent <= plan.objective.budget_usd

    def _endpoint(self, row: ShardRow) -> Endpoint:
        return self._work.plan.endpoint(row.shard.endpoint)


def _load(row: ShardRow) -> Load:
    return Load(
        tier=Tier.REALTIME,
        n_requests=row.shard.n_requests,
        prompt_tokens=row.shard.prompt_tokens,
        cap_tokens=row.shard.max_completion_tokens,
        completion_tokens=row.shard.max_completion_tokens,
    )
