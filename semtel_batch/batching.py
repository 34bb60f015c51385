"""The batch share of a run: hand shards over as the queue has room, look at them, take in what ended.

An intent is written before anything is sent; what a crash left between the intent and the batch's id is handed over
again, and the transport adopts what the provider already has.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from semtel_batch.conversations import load_index
from semtel_batch.crashpoints import reach
from semtel_batch.cutting import Asking, split_shard
from semtel_batch.embedding_shards import Wanted, cut_smaller
from semtel_batch.errors import EndpointError, Incomplete
from semtel_batch.generations import Ask
from semtel_batch.hedging import TAKEN_BACK
from semtel_batch.lease import LeaseLost
from semtel_batch.parts import MANIFEST, read_parts
from semtel_batch.queueing import Decision, Move, decide, smallest_limit
from semtel_batch.records import BatchState, Endpoint, Progress, Receipt, Stage, Tier
from semtel_batch.rows import Generation, NewShard, ShardRow, ShardState, Submission
from semtel_batch.shardfiles import remove_files
from semtel_batch.transport.protocol import EnqueuedFull
from semtel_batch.work import Work

log = logging.getLogger("semtel_batch.batching")

NO_ROOM = "token_limit_exceeded"
"""The provider's code for a full queue: nothing was executed, nothing billed, and it can be sent again."""


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
                    moved |= self._look_at(row, submission, may_take_back=not cancelled)
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
        pieces = self._smaller(row, max_tokens)
        reach("split.manifests-written")
        work.store.split_shard(shard, pieces, work.clock.now())
        reach("split.registered")
        shard.path.unlink(missing_ok=True)
        log.info("%s: too large for the queue, cut into %d", shard.key, len(pieces))

    def _smaller(self, row: ShardRow, max_tokens: int) -> list[NewShard]:
        work, shard = self._work, row.shard
        index = load_index(work.conversations)
        generation = Generation(leg=shard.leg, stage=shard.stage, attempt=shard.attempt)
        if shard.stage is Stage.EMBED:
            wanted = Wanted(
                plan_id=shard.plan_id,
                generation=generation,
                endpoint=self._endpoint(row),
                tier=shard.tier,
                folder=row.manifest.parent,
            )
            return cut_smaller(wanted, shard, row.manifest, index, max_tokens)
        rows = read_parts([row.manifest], MANIFEST)["row"].to_numpy().astype(np.uint32)
        asking = Asking(
            plan=work.plan,
            leg=work.plan.legs[shard.leg],
            generation=generation,
            ask=Ask(classifiers=shard.classifiers, rows=rows, per_request=1),
            tier=shard.tier,
        )
        limits = replace(asking.limits, max_tokens=max_tokens)
        return split_shard(asking, index, shard, row.manifest, limits)

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

    def _look_at(self, row: ShardRow, submission: Submission, *, may_take_back: bool) -> bool:
        progress = self._work.transport(row).poll(row.shard, submission.receipt)
        reach("batch.polled")
        is_taken_back = submission.status == TAKEN_BACK and may_take_back
        told = replace(progress, status=TAKEN_BACK) if is_taken_back else progress
        self._work.store.observe(row.shard, told, self._work.clock.now())
        reach("batch.observed")
        if progress.state is BatchState.READY and is_taken_back:
            self._take_back(row, submission.receipt)
        elif progress.state is BatchState.READY:
            self._work.take_in(row, submission.receipt)
        elif progress.state is BatchState.REJECTED:
            self._refuse(row, progress)
        return progress.state is not BatchState.WAITING

    def _take_back(self, row: ShardRow, receipt: Receipt) -> None:
        """Keep what a cancelled batch has answered, and let the rest of its requests be asked in realtime."""
        if not self._work.take_in_executed(row, receipt):
            remove_files(row.shard)
            self._work.store.move_shard(row.shard, Tier.REALTIME, has_stopped=True)
            reach("hedge.shard-moved")

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

    def _endpoint(self, row: ShardRow) -> Endpoint:
        return self._work.plan.endpoint(row.shard.endpoint)
