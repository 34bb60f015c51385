"""From a group of answers to a registered part: read, price, write, and only then say so in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.conversations import load_hashes, load_texts
from semtel_batch.crashpoints import reach
from semtel_batch.decisions import reader_of
from semtel_batch.embeddings import Embeddings
from semtel_batch.labels import Cleaner, Verdict
from semtel_batch.legs import encoding_of, fingerprint
from semtel_batch.measurements import Packs
from semtel_batch.network_plan import vectors_of
from semtel_batch.parts import ANSWERS, LABELS, MANIFEST, read_parts, write_part
from semtel_batch.plans import Plan
from semtel_batch.quality.garbled import tally
from semtel_batch.records import Answer, Classifier, Outcome, Shard, Stage, Usage
from semtel_batch.rows import Part, ShardRow
from semtel_batch.shardfiles import custom_id, request_number
from semtel_batch.store import Store
from semtel_batch.transport.replies import MALFORMED
from semtel_batch.transport.verdicts import can_be_asked_again
from semtel_batch.vectors import Window, pooled, split
from semtel_batch.vectors import read as read_vectors

NUMBERS_OF_A_TASK = 100_000
"""Of parts, for each task that works on a shard: one a second for more than a day."""

_FAILED = (Outcome.REFUSED, Outcome.ERRORED)
_SHORT, _MOST_KNOWN = 200, 10_000  # characters of an answer, and answers, that are remembered as read
_USAGE = tuple(field.name for field in fields(Usage))


Judged = Mapping[tuple[int, str], str]


class Register(Protocol):
    """Where parts lie and are written down: the store, or what a task elsewhere has in its place."""

    def files(self, plan_id: str) -> Path: ...

    def parts(self, plan_id: str) -> Sequence[Part]: ...

    def add_part(self, plan_id: str, part: Part) -> None: ...


@dataclass(frozen=True, slots=True)
class Lot:
    """What of a shard is taken in, where others take in the rest; parts are numbered from `first_number` on."""

    first_number: int = 0
    requests: range | None = None  # None: all


WHOLE = Lot()


class Intake:
    """Takes the answers of one shard in. What it has registered is never asked again."""

    def __init__(
        self,
        store: Register,
        plan: Plan,
        row: ShardRow,
        conversations: Path,
        judged: Judged,
        lot: Lot = WHOLE,
    ) -> None:
        shard = row.shard
        self._store, self._plan, self._shard, self._way = store, plan, shard, row.way
        members = read_parts([row.manifest], MANIFEST)
        if lot.requests is not None:
            members = members.filter(pl.col("request").is_between(lot.requests.start, lot.requests.stop, "left"))
        self._rows = members["row"].to_numpy()
        counts = np.bincount(members["request"].to_numpy(), minlength=shard.n_requests)
        self._counts: list[int] = counts.tolist()  # lists: an array takes longer to give a single number
        self._starts: list[int] = (np.cumsum(counts) - counts).tolist()
        self._read = reader_of(shard.tier)
        self._hashes = load_hashes(conversations, members["row"])
        self._cleaners = {c.name: Cleaner(c) for c in _asked(plan, shard)}
        self._known: dict[tuple[str, int], list[Verdict]] = {}
        self._versions = {name: plan.classifier(name).version for name in shard.classifiers}
        self._judged = judged
        self._first_number = lot.first_number
        self._parts = [part for part in store.parts(plan.id) if part.shard_id == shard.id]

    @property
    def n_done(self) -> int:
        return sum(part.n_requests for part in self._parts)

    def done(self) -> frozenset[str]:
        """The custom_ids whose answers are already registered."""
        requests = read_parts([part.answers for part in self._parts], ANSWERS)["request"]
        return frozenset(custom_id(self._shard, request) for request in requests)

    def take(self, answers: Sequence[Answer], at: datetime) -> Part:
        """Write a group of answers as one part and register it."""
        frames = self._answers_frame(answers), self._labels_frame(answers)
        return self._register(*frames, self._next_number(), at)

    def _next_number(self) -> int:
        own = range(self._first_number, self._first_number + NUMBERS_OF_A_TASK)
        numbers = (int(part.answers.stem.rpartition(".")[2]) for part in self._parts)
        return 1 + max((n for n in numbers if n in own), default=self._first_number)

    def finish(self, store: Store, at: datetime) -> None:
        """Merge the shard's parts into one, so that a million answers do not end in thousands of files."""
        if len(self._parts) < 2:
            return
        answers = read_parts([part.answers for part in self._parts], ANSWERS)
        labels = read_parts([part.labels for part in self._parts], LABELS)
        merged = self._write(answers, labels, 0, at)
        reach("merge.written")
        for old in store.replace_parts(self._plan.id, merged):
            reach("merge.replaced")
            if old not in (merged.answers, merged.labels):
                old.unlink(missing_ok=True)
        self._parts = [merged]

    def packs(self) -> tuple[Packs, ...]:
        """How the shard's packs were answered; a grader's, or single conversations, say nothing of packing."""
        shard = self._shard
        packed = shard.n_items > shard.n_requests * len(shard.classifiers)
        if not packed or shard.stage not in (Stage.CLASSIFY, Stage.RERUN):
            return ()
        answers = read_parts([part.answers for part in self._parts], ANSWERS)
        labels = read_parts([part.labels for part in self._parts], LABELS)
        model = self._plan.endpoint(shard.endpoint).priced_as
        return tally(answers, labels, model, self._versions.values())

    def _register(self, answers: pl.DataFrame, labels: pl.DataFrame, number: int, at: datetime) -> Part:
        part = self._write(answers, labels, number, at)
        reach("intake.part-written")
        self._store.add_part(self._plan.id, part)
        reach("intake.part-registered")
        self._parts.append(part)
        return part

    def _write(self, answers: pl.DataFrame, labels: pl.DataFrame, number: int, at: datetime) -> Part:
        folder = self._store.files(self._plan.id)
        name = f"{self._shard.key}.{number:05d}.parquet"
        write_part(folder / "answers" / name, answers, ANSWERS)
        reach("intake.answers-written")
        write_part(folder / "labels" / name, labels, LABELS)
        usage = Usage(**{column: int(answers[column].sum()) for column in _USAGE})
        return Part(
            shard_id=self._shard.id,
            answers=folder / "answers" / name,
            labels=folder / "labels" / name,
            n_requests=answers.height,
            n_items=labels.height,
            n_answered=int((labels["outcome"] == Outcome.ANSWERED.value).sum()),
            n_tries=int(answers["n_tries"].sum()),
            usage=usage,
            cost_usd=cost_of(answers, self._plan, self._shard),
            written_at=at,
        )

    def _answers_frame(self, answers: Sequence[Answer]) -> pl.DataFrame:
        columns: dict[str, list[object]] = {
            "request": [request_number(a.custom_id) for a in answers],
            "outcome": [a.outcome.value for a in answers],
            "content": [a.content for a in answers],
            "model": [a.model for a in answers],
            "status_code": [a.status_code for a in answers],
            "error_code": [a.error_code for a in answers],
            "error_message": [a.error_message for a in answers],
            "latency_s": [a.latency_s for a in answers],
            "n_tries": [a.n_tries for a in answers],
            "tier": [None if a.tier is None else a.tier.value for a in answers],
            "endpoint": [a.endpoint for a in answers],
        }
        columns |= {name: [getattr(a.usage, name) for a in answers] for name in _USAGE}
        return pl.DataFrame(columns, schema=ANSWERS)

    def _fingerprint(self, at: int, classifier: str) -> bytes:
        judged = self._judged.get((int(self._rows[at]), classifier), "") if self._judged else ""
        return fingerprint(self._hashes[at], self._versions[classifier], self._way, judged)

    def _verdicts(self, answer: Answer, n: int) -> list[Verdict]:
        """Read an answer; short ones once only, since a few answers are given to most single conversations."""
        content = answer.content
        if answer.outcome is not Outcome.ANSWERED or content is None or len(content) > _SHORT or answer.logprobs:
            return self._read(answer, n, self._cleaners)
        known = self._known.get((content, n))
        if known is None:
            known = self._read(answer, n, self._cleaners)
            if len(self._known) < _MOST_KNOWN:
                self._known[content, n] = known
        return known

    def _labels_frame(self, answers: Sequence[Answer]) -> pl.DataFrame:
        read: list[tuple[object, ...]] = []
        places: list[int] = []  # in the manifest
        for answer in answers:
            request = request_number(answer.custom_id)
            n, before = self._counts[request], self._starts[request] - 1
            last_word = n == 1 and answer.outcome in _FAILED and not can_be_asked_again(answer)
            for verdict in self._verdicts(answer, n):
                place = before + verdict.slot
                places.append(place)
                read.append(
                    (
                        verdict.classifier,
                        verdict.label,
                        verdict.outcome.value,
                        verdict.how,
                        verdict.detail or _reason(answer, verdict.outcome),
                        last_word,
                        request,
                        verdict.slot,
                        self._fingerprint(place, verdict.classifier),
                        verdict.confidence,
                    )
                )
        columns = [self._rows[places], *zip(*read, strict=True)] if read else []
        return pl.DataFrame(dict(zip(LABELS, columns, strict=False)), schema=LABELS)


class VectorIntake(Intake):
    """Takes the answers of an embedding shard in: vectors by text first, then what they cost. It has no labels."""

    def __init__(self, store: Register, plan: Plan, row: ShardRow, conversations: Path) -> None:
        super().__init__(store, plan, row, conversations, {})
        self._conversations = conversations
        endpoint = plan.endpoint(row.shard.endpoint)
        self._encoding = encoding_of(endpoint)
        self._kept = Embeddings(store.files(plan.id), vectors_of(endpoint))
        self._width: int | None = None

    def take(self, answers: Sequence[Answer], at: datetime) -> Part:
        ends = np.cumsum([self._counts[request_number(a.custom_id)] for a in answers])
        places = [p for a in answers for p in self._places(request_number(a.custom_id))]
        texts = load_texts(self._conversations, self._rows[places])["text"].to_list()
        hashes: list[bytes] = []
        vectors: list[npt.NDArray[np.float32]] = []
        noted = []
        for answer, end in zip(answers, ends.tolist(), strict=True):
            start = end - self._counts[request_number(answer.custom_id)]
            noted.append(replace(answer, content=None))
            if answer.outcome is not Outcome.ANSWERED:
                continue
            windows = list(split(texts[start:end], self._encoding))
            try:
                vectors.append(self._pooled(end - start, windows, answer.content))
                hashes += [self._hashes[place] for place in places[start:end]]
            except ValueError as problem:
                noted[-1] = replace(
                    noted[-1], outcome=Outcome.ERRORED, error_code=MALFORMED, error_message=str(problem)[:200]
                )
        if vectors:
            self._kept.keep(f"{self._shard.key}.{self._next_number():05d}", hashes, np.concatenate(vectors))
            reach("vectors.written")
        return super().take(noted, at)

    def _pooled(self, n_texts: int, windows: Sequence[Window], content: str | None) -> npt.NDArray[np.float32]:
        """A vector a text; raises ValueError where they are not as long as those that are kept."""
        made = pooled(n_texts, windows, read_vectors(content, len(windows)))
        self._width = self._width or self._kept.width() or made.shape[1]
        if made.shape[1] != self._width:
            raise ValueError(f"vectors of {made.shape[1]} numbers, and not of {self._width} as before")
        return made

    def finish(self, store: Store, at: datetime) -> None:
        self._kept.merge(self._shard.key)
        reach("vectors.merged")
        super().finish(store, at)

    def packs(self) -> tuple[Packs, ...]:
        return ()

    def _places(self, request: int) -> range:
        return range(self._starts[request], self._starts[request] + self._counts[request])

    def _labels_frame(self, answers: Sequence[Answer]) -> pl.DataFrame:
        return LABELS.to_frame()


def cost_of(answers: pl.DataFrame, plan: Plan, shard: Shard) -> Decimal:
    """What answers of a shard cost, each by whoever gave it and in the tier that it was billed in.

    `answers` is in columns of ANSWERS. Raises StopIteration for an endpoint that the plan has no price of.
    """
    tier, endpoint = pl.col("tier").fill_null(shard.tier.value), pl.col("endpoint").fill_null(shard.endpoint)
    usd = Decimal(0)
    longest = pl.col("prompt_tokens").max().alias("longest")
    for row in answers.group_by(tier, endpoint).agg(pl.col(_USAGE).cast(pl.Int64).sum(), longest).iter_rows(named=True):
        price = plan.price_as(shard, row["tier"], row["endpoint"])
        usage = Usage(**{name: row[name] for name in _USAGE})
        if price.long_over is None or row["longest"] <= price.long_over:
            usd += price.cost_usd(usage)
            continue
        mine = answers.filter(tier == row["tier"], endpoint == row["endpoint"])
        long = _usage(mine.filter(pl.col("prompt_tokens") > price.long_over))
        short = _usage(mine.filter(pl.col("prompt_tokens") <= price.long_over))
        usd += price.cost_usd(short) + price.cost_usd(long, is_long=True)
    return usd


def _usage(answers: pl.DataFrame) -> Usage:
    return Usage(**{name: int(answers[name].cast(pl.Int64).sum()) for name in _USAGE})


def judged_labels(labels: pl.DataFrame) -> Judged:
    """The labels that a grader is given to judge, by item. `labels` has row, classifier and label."""
    return {(row, name): label for row, name, label in labels.select("row", "classifier", "label").iter_rows()}


def _reason(answer: Answer, outcome: Outcome) -> str | None:
    if outcome is Outcome.ANSWERED:
        return None
    said = answer.error_message or ""
    return f"{answer.error_code}: {said[:200]}" if answer.error_code else said[:200] or None


def _asked(plan: Plan, shard: Shard) -> list[Classifier]:
    """The classifiers as their answers are read: in the grader's requests, each answers with a judgement."""
    asked = [plan.classifier(name) for name in shard.classifiers]
    if shard.stage is not Stage.GRADE or plan.grader is None:
        return asked
    return [replace(c, labels=plan.grader.labels) for c in asked]
