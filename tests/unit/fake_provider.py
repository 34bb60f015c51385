"""A provider in memory, behind the transport protocol: it executes, keeps books, and misbehaves as it is told to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import orjson
from small_job import START

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
    Usage,
)
from semtel_batch.transport.protocol import EnqueuedFull, Note
from semtel_batch.transport.shardfile import Call, calls

USAGE = Usage(prompt_tokens=100, cached_tokens=10, completion_tokens=7)


class FakeClock:
    def __init__(self) -> None:
        self.time: datetime = START
        self.naps: list[float] = []

    def now(self) -> datetime:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.time += timedelta(seconds=seconds)
        if len(self.naps) > 500:
            raise AssertionError("it waits for ever")


def labels_asked(call: Call) -> tuple[int, dict[str, list[str]]]:
    """How many conversations a request holds, and the labels that each classifier may take."""
    body = orjson.loads(call.body)
    entry = body["response_format"]["json_schema"]["schema"]["properties"]["results"]["items"]["properties"]
    n = body["messages"][1]["content"].count("<conversation id=")
    return n, {name: rule["enum"] for name, rule in entry.items() if name != "id"}


def first_labels(call: Call) -> Answer:
    """Every item gets the first label it may have: Technology, Novice, correct."""
    n, choices = labels_asked(call)
    return answered(call, [{"id": i + 1, **{name: labels[0] for name, labels in choices.items()}} for i in range(n)])


def answered(call: Call, results: list[dict[str, object]]) -> Answer:
    content = json.dumps({"results": results})
    return Answer(
        custom_id=call.custom_id, outcome=Outcome.ANSWERED, content=content, usage=USAGE, model="m", status_code=200
    )


def failed(call: Call, outcome: Outcome = Outcome.ERRORED, status: int | None = 500) -> Answer:
    return Answer(custom_id=call.custom_id, outcome=outcome, status_code=status, error_code="it_failed")


Behaviour = Callable[[Call], Answer]


@dataclass
class Batch:
    id: str
    calls: list[Call]
    looks_left: int
    answers: list[Answer] | None = None
    cancelled: bool = False


@dataclass
class FakeProvider:
    """What the provider knows survives every process of ours: batches by shard key, and who was billed for what."""

    behave: Behaviour = first_labels
    n_looks: int = 1  # how often a batch is still at work when it is looked at
    group: int = 2  # answers that come together
    refuse: Callable[[Shard], Progress | None] = lambda _shard: None  # at a look, instead of executing
    before: Callable[[str, Shard], None] = lambda _step, _shard: None
    batches: dict[str, Batch] = field(default_factory=dict)
    billed: Counter[bytes] = field(default_factory=Counter)  # by body: what was asked
    stop_after: int | None = None  # realtime: groups until somebody presses Ctrl-C
    opened: list[tuple[str, Tier]] = field(default_factory=list)
    n_open: int = 0
    n_created: int = 0

    def open(self, members: Sequence[Endpoint], tier: Tier) -> FakeTransport:
        self.opened.append((members[0].name, tier))
        self.n_open += 1
        return (FakeRealtime if tier is Tier.REALTIME else FakeBatches)(self)

    def execute(self, call: Call) -> Answer:
        answer = self.behave(call)
        if answer.outcome is Outcome.ANSWERED:
            self.billed[call.body] += 1
        return answer

    @property
    def n_billed(self) -> int:
        return self.billed.total()


class FakeTransport:
    def __init__(self, provider: FakeProvider) -> None:
        self.provider = provider

    def paces(self) -> tuple[Pace, ...]:
        return ()

    def events(self) -> tuple[Event, ...]:
        return ()

    def close(self) -> None:
        self.provider.n_open -= 1

    def submit(self, shard: Shard, receipt: Receipt, note: Note) -> Receipt:
        return receipt

    def poll(self, shard: Shard, receipt: Receipt) -> Progress:
        return Progress(state=BatchState.READY, status="realtime")

    def answers(self, shard: Shard, receipt: Receipt, done: Collection[str]) -> Iterator[list[Answer]]:
        raise NotImplementedError

    def cancel(self, shard: Shard, receipt: Receipt) -> None:
        raise NotImplementedError


class FakeRealtime(FakeTransport):
    def answers(self, shard: Shard, receipt: Receipt, done: Collection[str]) -> Iterator[list[Answer]]:
        provider, group = self.provider, []
        for call in list(calls(shard.path, without=done)):
            group.append(provider.execute(call))
            if len(group) == provider.group:
                yield group
                group = []
                if provider.stop_after is not None:
                    provider.stop_after -= 1
                    if provider.stop_after == 0:
                        return
                provider.before("answers", shard)
        if group:
            yield group

    def cancel(self, shard: Shard, receipt: Receipt) -> None:
        self.provider.stop_after = 1


class FakeBatches(FakeTransport):
    def submit(self, shard: Shard, receipt: Receipt, note: Note) -> Receipt:
        provider = self.provider
        if receipt.batch_id:
            return receipt
        provider.before("upload", shard)
        note(Receipt(input_file_id=f"file-{shard.key}"))
        provider.before("create", shard)
        if shard.key not in provider.batches:
            provider.n_created += 1
            batch = Batch(f"batch_{provider.n_created}", list(calls(shard.path)), provider.n_looks)
            provider.batches[shard.key] = batch
        provider.before("note", shard)
        made = Receipt(input_file_id=f"file-{shard.key}", batch_id=provider.batches[shard.key].id)
        note(made)
        provider.before("submitted", shard)
        return made

    def poll(self, shard: Shard, receipt: Receipt) -> Progress:
        provider = self.provider
        provider.before("poll", shard)
        batch = provider.batches[shard.key]
        assert receipt.batch_id == batch.id
        refused = provider.refuse(shard)
        if refused is not None:
            del provider.batches[shard.key]
            return refused
        if batch.cancelled:
            return Progress(state=BatchState.READY, status="cancelled")
        batch.looks_left -= 1
        if batch.looks_left >= 0:
            return Progress(state=BatchState.WAITING, status="in_progress", n_total=len(batch.calls))
        if batch.answers is None:
            batch.answers = [provider.execute(call) for call in batch.calls]
        return Progress(state=BatchState.READY, status="completed", n_completed=len(batch.calls))

    def answers(self, shard: Shard, receipt: Receipt, done: Collection[str]) -> Iterator[list[Answer]]:
        batch = self.provider.batches[shard.key]
        owed = [call for call in calls(shard.path) if call.custom_id not in done]
        found = {answer.custom_id: answer for answer in batch.answers or ()}
        rest = Outcome.CANCELLED if batch.cancelled else Outcome.MISSING
        listed = [found.get(call.custom_id) or Answer(custom_id=call.custom_id, outcome=rest) for call in owed]
        listed.reverse()  # the real one's order is not the file's either
        for start in range(0, len(listed), self.provider.group):
            self.provider.before("answers", shard)
            yield listed[start : start + self.provider.group]

    def cancel(self, shard: Shard, receipt: Receipt) -> None:
        self.provider.before("cancel", shard)
        batch = self.provider.batches.get(shard.key)
        if batch is not None and batch.answers is None:
            half = len(batch.calls) // 2
            batch.answers = [self.provider.execute(call) for call in batch.calls[:half]]
            batch.cancelled = True


def no_room(shard: Shard, *, message: str = "Enqueued token limit reached") -> Progress:
    return Progress(
        state=BatchState.REJECTED, status="failed", error_code="token_limit_exceeded", error_message=message
    )


def full(_shard: Shard) -> None:
    raise EnqueuedFull("no room at the endpoint")
