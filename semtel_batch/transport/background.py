"""Background completion windows: every request an object at the provider, created now and fetched when it has ended.

There is no list to find lost ones in, so ids are written down as they come: a crash loses those of the last second at
most, and of what was in flight. Looks are paced: a few hundred responses at a time, and more at once only while most
of them turn out to have ended.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from semtel_batch.crashpoints import reach
from semtel_batch.errors import Incomplete
from semtel_batch.records import (
    Answer,
    BatchState,
    Endpoint,
    Event,
    Outcome,
    Pace,
    Progress,
    Receipt,
    Shard,
    Tier,
)
from semtel_batch.transport.connection import Connection
from semtel_batch.transport.lookup import Lookup
from semtel_batch.transport.protocol import Note
from semtel_batch.transport.realtime import RealtimeTransport
from semtel_batch.transport.response_ledger import ResponseLedger
from semtel_batch.transport.responses import answer_of, created, has_ended
from semtel_batch.transport.shardfile import custom_ids
from semtel_batch.transport.verdicts import Patience, can_be_asked_again

log = logging.getLogger("semtel_batch.transport")

LEDGER = "ledger"  # what a receipt says in the place of a file's id
_LOOKS = 200  # responses a look, unless at least half of them have ended
_GROUP = 500  # answers
_WINDOW_S = {Tier.TWO_HOURS: 7_200.0, Tier.EIGHT_HOURS: 28_800.0}
_GRACE_S = 3_600.0  # beyond its window; then a response is cancelled, and its request asked again


@dataclass(slots=True)
class _Outstanding:
    """What one shard still waits for, in memory; it can be made again from the ledger."""

    ids: dict[str, str]  # response → custom_id, of those that have not ended
    waiting: deque[str]  # the same responses, in the order of their next look
    n_total: int
    n_failed: int
    overdue_at: float
    is_cancelled: bool = False


class BackgroundTransport:
    """Hands requests over one by one and fetches each one's answer."""

    def __init__(
        self,
        endpoint: Endpoint,
        connection: Connection,
        *,
        now: Callable[[], float],
        tasks: int = 1,
        patience: Patience | None = None,
    ) -> None:
        self._creating = RealtimeTransport([(endpoint, connection)], tasks=tasks, patience=patience)
        self._creating.read = created
        self._lookup = Lookup(connection)
        self._endpoint, self._now = endpoint.name, now
        self._outstanding: dict[str, _Outstanding] = {}

    def submit(self, shard: Shard, receipt: Receipt, note: Note) -> Receipt:
        """Create a response for each request that has none yet; ids are durable before the next group is looked at."""
        if receipt.batch_id:
            return receipt
        ledger = ResponseLedger(shard)
        done = {entry.custom_id for entry in ledger.entries()}
        n_refused = 0
        for group in self._creating.answers(shard, Receipt(), done):
            final = [answer for answer in group if not _may_pass(answer)]
            n_refused += len(group) - len(final)
            reach("background.created")
            ledger.add(final)
            reach("background.noted")
            note(Receipt(input_file_id=LEDGER))
            done |= {answer.custom_id for answer in final}
        if len(done) < shard.n_requests:
            raise Incomplete(
                f"Endpoint '{self._endpoint}' took {len(done):,} of the {shard.n_requests:,} requests of {shard.key}; "
                "run the same command again: it goes on with the rest."
            )
        made = Receipt(input_file_id=LEDGER, batch_id=f"responses/{shard.key}")
        note(made)
        reach("background.submitted")
        return made

    def poll(self, shard: Shard, receipt: Receipt) -> Progress:
        """Look at some of what has not ended, keep what has, and say how many are left."""
        left = self._left_of(shard)
        if left.ids and self._now() > left.overdue_at and not left.is_cancelled:
            log.warning("%s: %d responses are past their window; they are cancelled", shard.key, len(left.ids))
            self.cancel(shard, receipt)
        for _ in range(0, len(left.ids), _LOOKS):
            batch = [left.waiting.popleft() for _ in range(min(_LOOKS, len(left.waiting)))]
            if self._look(shard, left, batch) * 2 < len(batch):
                break
        done = left.n_total - len(left.ids)
        return Progress(
            state=BatchState.WAITING if left.ids else BatchState.READY,
            status="cancelling" if left.is_cancelled and left.ids else "in_progress" if left.ids else "completed",
            n_completed=done - left.n_failed,
            n_failed=left.n_failed,
            n_total=left.n_total,
        )

    def answers(self, shard: Shard, receipt: Receipt, done: Collection[str]) -> Iterator[list[Answer]]:
        """What the ledger has of each request; a response that is gone, or was never created, is MISSING."""
        owed = {custom_id for custom_id in custom_ids(shard.path) if custom_id not in done}
        ledger = ResponseLedger(shard)
        group: list[Answer] = []
        for answer in _known(ledger):
            if answer.custom_id in owed:
                owed.discard(answer.custom_id)
                group.append(answer)
            if len(group) >= _GROUP:
                yield group
                group = []
        group += [Answer(custom_id=custom_id, outcome=Outcome.MISSING) for custom_id in sorted(owed)]
        if group:
            yield group

    def cancel(self, shard: Shard, receipt: Receipt) -> None:
        """Stop what is being created, and ask the provider to stop the rest; what has ended stays."""
        self._creating.cancel(shard, receipt)
        left = self._left_of(shard)
        if left.ids and not left.is_cancelled:
            self._lookup.cancel(list(left.ids))
            left.is_cancelled = True

    def paces(self) -> list[Pace]:
        self._creating.paces()  # of create calls, which say nothing of answers
        return []

    def events(self) -> list[Event]:
        return self._creating.events()

    def close(self) -> None:
        self._creating.close()
        self._lookup.close()

    def _look(self, shard: Shard, left: _Outstanding, batch: list[str]) -> int:
        """Look at these; returns how many have ended. What was not told goes to the end of the queue."""
        try:
            found = self._lookup.find(batch)
        except Incomplete:
            left.waiting.extend(batch)
            raise
        ended = {one: body for one, body in found.items() if body is None or has_ended(body)}
        ResponseLedger(shard).add_ended((left.ids[one], body) for one, body in ended.items())
        reach("background.looked")
        left.waiting.extend(one for one in batch if one not in ended)
        left.n_failed += sum(body is None or body.get("status") != "completed" for body in ended.values())
        for one in ended:
            del left.ids[one]
        return len(ended)

    def _left_of(self, shard: Shard) -> _Outstanding:
        if shard.key not in self._outstanding:
            ledger = ResponseLedger(shard)
            ended = ledger.ended_ids()
            entries = ledger.entries()
            ids = {e.response_id: e.custom_id for e in entries if e.response_id and e.custom_id not in ended}
            created_at = ledger.created_path.stat().st_mtime if ids else self._now()
            self._outstanding[shard.key] = _Outstanding(
                ids=ids,
                waiting=deque(ids),
                n_total=shard.n_requests,
                n_failed=sum(entry.refusal is not None for entry in entries),
                overdue_at=created_at + _WINDOW_S.get(shard.tier, 0.0) + _GRACE_S,
            )
        return self._outstanding[shard.key]


def _may_pass(answer: Answer) -> bool:
    """Whether a create call failed in a way that the next one may not: it is not written down, and made again."""
    return answer.outcome is not Outcome.ANSWERED and can_be_asked_again(answer)


def _known(ledger: ResponseLedger) -> Iterator[Answer]:
    for entry in ledger.entries():
        if entry.refusal is not None:
            yield replace(entry.refusal, n_tries=1)
    for custom_id, body in ledger.ended():
        yield answer_of(custom_id, body)
