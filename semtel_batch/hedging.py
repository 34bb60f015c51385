"""A run's deadline: what waits in batches is taken back while realtime can still answer it (planning facts, A.6).

`planner.hedge` decides which shards, here it is done. A batch is cancelled, what it answered is kept, and the rest of
its requests, as they were packed, is asked in realtime as soon as the provider says that it has stopped.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from semtel_batch.crashpoints import reach
from semtel_batch.planner.hedge import CANCEL_S, LOOK_S, Out, Realtime, take_back
from semtel_batch.planner.timing import Load, realtime_s
from semtel_batch.records import BatchState, Progress, Tier, Usage
from semtel_batch.rows import ShardRow, ShardState, Submission
from semtel_batch.work import Work

log = logging.getLogger("semtel_batch.hedging")

TAKEN_BACK = "taken back"
"""The status of a batch that was cancelled for the deadline's sake, until the provider says that it has stopped."""

_HEDGED = frozenset({Tier.BATCH, Tier.TWO_HOURS, Tier.EIGHT_HOURS, Tier.FLEX})
_NEAR = timedelta(minutes=15)  # before a deadline: what is begun from then on is asked in realtime


class Hedging:
    """Moves to realtime what the deadline of one plan can't wait for any longer."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def step(self, started_at: datetime) -> bool:
        """Take back what realtime must begin with now, lest the deadline be missed. True if anything was.

        Only as much as keeps realtime busy until the next look: what comes home meanwhile is had at the batch's price.
        """
        deadline_s = self._work.plan.objective.deadline_s
        if deadline_s is None:
            return False
        now, open_rows = self._work.clock.now(), self._work.shards(ShardState.CUT, ShardState.SUBMITTED)
        sent = {row.shard.key: submission for row, submission in self._work.submitted() if submission.receipt.batch_id}
        out = {row.shard.key: row for row in open_rows if self._is_out(row, sent.get(row.shard.key))}
        if not out:
            return False
        n_done: Counter[int] = Counter()
        for part in self._work.store.parts(self._work.plan.id):
            n_done[part.shard_id] += part.n_requests
        owed = [row for row in open_rows if self._is_owed(row, sent.get(row.shard.key))]
        owed_s = sum(self._left_s(row, n_done[row.shard.id]) for row in owed)
        chunks = [Out(key=key, tokens=self._seconds(row), age_s=_age_s(sent.get(key), now)) for key, row in out.items()]
        left_s = (started_at + timedelta(seconds=deadline_s) - now).total_seconds()
        # Amounts are seconds of realtime, so a minute has sixty. A shard that is asked at once is not looked up from.
        pace = Realtime(tokens_per_minute=60.0, backlog_tokens=owed_s, usable=1.0)
        look_s = max(LOOK_S, *(chunk.tokens for chunk in chunks))
        wanted = [out[key] for key in take_back(chunks, pace, left_s, tick_s=look_s + CANCEL_S)]
        taken = self._affordable(wanted, open_rows)
        if taken:
            log.warning("the deadline is near: of %d batches that wait %d are moved to realtime", len(out), len(taken))
        for row in taken:
            self._take_back(row, sent.get(row.shard.key))
        return bool(taken)

    def move_to_realtime(self, row: ShardRow) -> None:
        """Ask what is left of a shard in realtime: it is written anew, and its answers so far stay."""
        row.shard.path.unlink(missing_ok=True)
        self._work.store.move_shard(row.shard, Tier.REALTIME)
        reach("hedge.shard-moved")

    def is_late(self, started_at: datetime, rows: Sequence[ShardRow] = ()) -> bool:
        """Whether only realtime can still answer these shards before the deadline."""
        deadline_s = self._work.plan.objective.deadline_s
        if deadline_s is None:
            return False
        needed = timedelta(seconds=sum(self._seconds(row) for row in rows))
        return self._work.clock.now() >= started_at + timedelta(seconds=deadline_s) - needed - _NEAR

    def can_switch(self, row: ShardRow) -> bool:
        """Whether a shard may be asked in realtime: it is offered, has a price, and the budget bears it."""
        open_rows = self._work.shards(ShardState.CUT, ShardState.SUBMITTED)
        return self._has_realtime(row) and bool(self._affordable([row], open_rows))

    # -- one shard ---------------------------------------------------------------------------------------------

    def _is_out(self, row: ShardRow, submission: Submission | None) -> bool:
        """Whether a shard waits, and could be taken back."""
        if not self._has_realtime(row) or row.shard.tier not in _HEDGED:
            return False
        if row.state is ShardState.CUT:
            return True
        return submission is not None and submission.status != TAKEN_BACK

    def _is_owed(self, row: ShardRow, submission: Submission | None) -> bool:
        """Whether realtime has a shard to answer: it is asked there, or was taken back."""
        return row.shard.tier is Tier.REALTIME or (submission is not None and submission.status == TAKEN_BACK)

    def _take_back(self, row: ShardRow, submission: Submission | None) -> None:
        if row.state is ShardState.CUT or submission is None:
            self.move_to_realtime(row)
            return
        self._work.transport(row).cancel(row.shard, submission.receipt)
        told = Progress(
            state=BatchState.WAITING,
            status=TAKEN_BACK,
            n_completed=submission.n_completed,
            n_failed=submission.n_failed,
        )
        self._work.store.observe(row.shard, told, self._work.clock.now())  # so that it is told once

    def _seconds(self, row: ShardRow) -> float:
        own, *beside = self._work.plan.realtime_members(row.shard)
        return realtime_s(own, _load(row), beside)

    def _left_s(self, row: ShardRow, n_done: int) -> float:
        """What is left of a shard of which so many requests are done."""
        return self._seconds(row) * (1 - n_done / max(1, row.shard.n_requests))

    def _has_realtime(self, row: ShardRow) -> bool:
        return self._work.plan.has_realtime(row.shard.endpoint)

    def _affordable(self, rows: Sequence[ShardRow], open_rows: Sequence[ShardRow]) -> list[ShardRow]:
        """As many of these, from the first on, as the budget bears in realtime beside all else that is still open."""
        plan, budget = self._work.plan, self._work.plan.objective.budget_usd
        if budget is None or not rows:
            return list(rows)
        share = self._expected_share()
        sent = {row.shard.id: submission for row, submission in self._work.submitted()}
        spent = sum((part.cost_usd for part in self._work.store.parts(plan.id)), Decimal(0))
        for row in open_rows:
            spent += self._usd(row) if self._is_owed(row, sent.get(row.shard.id)) else self._waiting_usd(row, share)
        found = []
        for row in rows:
            spent += self._usd(row) - self._waiting_usd(row, share)
            if spent > budget:
                break
            found.append(row)
        return found

    def _usd(self, row: ShardRow) -> Decimal:
        """What a shard costs in realtime at most."""
        usage = Usage(prompt_tokens=row.shard.prompt_tokens, completion_tokens=row.shard.max_completion_tokens)
        return self._work.plan.price(row.shard.endpoint, Tier.REALTIME).cost_usd(usage)

    def _waiting_usd(self, row: ShardRow, share: float) -> Decimal:
        """What a shard costs where it waits, if its answers are this share of what they may be at most."""
        usage = Usage(
            prompt_tokens=row.shard.prompt_tokens, completion_tokens=round(share * row.shard.max_completion_tokens)
        )
        return self._work.plan.price(row.shard.endpoint, row.shard.tier).cost_usd(usage)

    def _expected_share(self) -> float:
        """How long answers are by the plan, of what they may be at most; 1 where the plan doesn't say."""
        expected = self._work.plan.chosen.usage.completion_tokens
        most = sum(row.shard.max_completion_tokens for row in self._work.shards())
        return expected / most if 0 < expected < most else 1.0


def _age_s(submission: Submission | None, now: datetime) -> float:
    if submission is None:
        return 0.0
    return max(0.0, (now - (submission.submitted_at or submission.intended_at)).total_seconds())


def _load(row: ShardRow) -> Load:
    return Load(
        tier=Tier.REALTIME,
        n_requests=row.shard.n_requests,
        prompt_tokens=row.shard.prompt_tokens,
        cap_tokens=row.shard.max_completion_tokens,
        completion_tokens=row.shard.max_completion_tokens,
    )
