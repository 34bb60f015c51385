"""Generations and shards: who was asked what, in which slot, how often, and what was sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.audit.answers import Asked, asked_of, check_part
from semtel_batch.audit.findings import Tell, broken, compare, expect_none, harmless
from semtel_batch.audit.items import Counts, Items
from semtel_batch.audit.texts import Mask, Texts, name_of, read_frame
from semtel_batch.embedding_shards import way_of_embedding
from semtel_batch.embeddings import Embeddings
from semtel_batch.errors import SemtelError
from semtel_batch.legs import generation_key, pack_sizes, way_of_asking, wording
from semtel_batch.network_plan import is_of_networks
from semtel_batch.parts import ANSWERS, MANIFEST, read_parts
from semtel_batch.plans import Plan
from semtel_batch.records import Outcome, Stage
from semtel_batch.rows import Generation, Part, ShardRow, ShardState, Submission
from semtel_batch.transport.shardfile import custom_ids

_OPEN = ("intended", "submitted")
_STATES = (*_OPEN, "ended", "rejected")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What the store has of a plan's execution."""

    generations: list[Generation]
    shards: list[ShardRow]
    submissions: dict[int, list[Submission]]
    parts: list[Part]

    def of(self, generation: Generation) -> list[ShardRow]:
        """A generation's shards, oldest first."""
        key = (generation.leg, generation.stage, generation.attempt)
        return [r for r in self.shards if (r.shard.leg, r.shard.stage, r.shard.attempt) == key]

    def parts_of(self, row: ShardRow) -> list[Part]:
        return [part for part in self.parts if part.shard_id == row.shard.id]


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A plan with its conversations, and its items as far as its parts were read."""

    plan: Plan
    texts: Texts
    served: Sequence[Mask]  # of each leg: its conversations
    items: Items
    tell: Tell


def check_generation(looked: Looked, generation: Generation, written: Written) -> None:
    """Check a generation with its shards and parts; generations come in the order in which they were asked."""
    plan, items, tell = looked.plan, looked.items, looked.tell
    which = title(plan, generation)
    shards, leg = written.of(generation), plan.legs[generation.leg]
    n_open = sum(row.state is not ShardState.ENDED for row in shards)
    compare(tell, which, "ended, as all its shards have", n_open == 0, generation.ended)
    asked = items.no_counts()
    before = {name: items.answered(generation.stage, name) > 0 for name in leg.classifiers}
    for row in shards:
        check_submissions(row, written.submissions.get(row.shard.id, []), tell)
        _check_shard(looked, generation, row, written.parts_of(row), asked)
    for name in leg.classifiers:
        _check_asked(looked, generation, name, asked[name], before[name])


def check_embedding(looked: Looked, generation: Generation, written: Written, kept: Embeddings) -> None:
    """Check the embedding shards of a generation: what was paid for them, and that their vectors are there."""
    plan, tell = looked.plan, looked.tell
    shards = written.of(generation)
    n_open = sum(row.state is not ShardState.ENDED for row in shards)
    compare(tell, title(plan, generation), "ended, as all its shards have", n_open == 0, generation.ended)
    for row in shards:
        check_submissions(row, written.submissions.get(row.shard.id, []), tell)
        prefix = f"{plan.id}-{generation_key(generation)}-"
        compare(tell, row.shard.key, "begins its name as its generation does", prefix, row.shard.key[: len(prefix)])
        compare(tell, row.shard.key, "way of asking", way_of_embedding(plan.endpoint(row.shard.endpoint)), row.way)
        members = _members(row, looked)
        if members is None:
            continue
        parts = written.parts_of(row)
        _check_parts(asked_of((plan, looked.texts, looked.items), row, row.way, members), parts, {}, tell)
        answers = read_parts([part.answers for part in parts], ANSWERS)
        answered = answers.filter(pl.col("outcome") == Outcome.ANSWERED.value).select("request")
        lost = kept.missing(members.join(answered, on="request", how="semi")["row"].to_numpy())
        expect_none(tell, row.shard.key, "conversations whose embeddings were paid for and are gone", lost.tolist())


def title(plan: Plan, generation: Generation) -> str:
    return f"{plan.id}, leg {generation.leg}, {generation.stage} {generation.attempt}"


def _check_asked(
    looked: Looked, generation: Generation, name: str, asked: Counts, before: npt.NDArray[np.bool_]
) -> None:
    """Everybody is asked once in a generation, all of them in the first, and later only who has no answer yet."""
    texts, items, tell = looked.texts, looked.items, looked.tell
    which, some = f"{title(looked.plan, generation)}, {name}", asked > 0
    expect_none(tell, which, "conversations asked twice in one generation", _rows(asked > 1))
    expect_none(tell, which, "conversations asked that are empty or repeat another", _rows(some & ~texts.asked))
    expect_none(tell, which, "conversations asked again that were answered", _rows(some & before))
    mine = looked.served[generation.leg]
    expect_none(tell, which, "conversations asked that another leg serves", _rows(some & ~mine))
    if generation.stage is Stage.CLASSIFY and generation.attempt == 0:
        expect_none(tell, which, "conversations that nobody asked", _rows(~some & texts.asked & mine))
    escalates = generation.stage is Stage.RECLASSIFY and looked.plan.legs[generation.leg].strategy.escalate is not None
    if generation.stage is not Stage.CLASSIFY and not escalates:
        unlabelled = items.answered(Stage.CLASSIFY, name) == 0
        expect_none(tell, which, "conversations asked without a label to judge", _rows(some & unlabelled))
    twice = items.answered(generation.stage, name) > 1
    expect_none(tell, which, "conversations answered twice, so paid twice", _rows(twice & some))


def _rows(wrong: npt.NDArray[np.bool_]) -> list[str]:
    return [f"row {row}" for row in np.flatnonzero(wrong).tolist()]


def _check_shard(
    looked: Looked, generation: Generation, row: ShardRow, parts: list[Part], asked: dict[str, Counts]
) -> None:
    shard, plan, items, tell = row.shard, looked.plan, looked.items, looked.tell
    leg = plan.legs[generation.leg]
    strange = [name for name in shard.classifiers if name not in leg.classifiers]
    expect_none(tell, shard.key, "classifiers that the leg has not", strange)
    prefix = f"{plan.id}-{generation_key(generation)}-"
    compare(tell, shard.key, "begins its name as its generation does", prefix, shard.key[: len(prefix)])
    endpoint = plan.asked_of(leg, shard.stage)
    compare(tell, shard.key, "endpoint of the leg", endpoint.name, shard.endpoint)
    if strange or shard.endpoint != endpoint.name:
        return
    way = _way(looked, generation, row)
    compare(tell, shard.key, "way of asking", way, row.way)
    members = _members(row, looked)
    if members is None:
        return
    for name in shard.classifiers:
        asked[name] += items.count(members["row"].to_numpy())
    made = asked_of((plan, looked.texts, items), row, way, members)
    _check_parts(made, parts, asked, tell)
    _check_lines(row, tell)


def _way(looked: Looked, generation: Generation, row: ShardRow) -> str:
    """The way of asking that a shard must have: one of its generation's, or the networks'."""
    plan, shard, leg = looked.plan, row.shard, looked.plan.legs[generation.leg]
    if plan.network is not None and is_of_networks(row.way):
        return plan.network.way
    prompt = wording(plan, leg, shard.classifiers, shard.stage, shard.tier)
    sizes = pack_sizes(generation, leg.strategy)
    endpoint = plan.asked_of(leg, shard.stage)
    ways = [way_of_asking(prompt, endpoint, leg.strategy, per_request=n) for n in sizes]
    return row.way if row.way in ways else ways[0]


def _members(row: ShardRow, looked: Looked) -> pl.DataFrame | None:
    """A shard's manifest, checked; None if nothing can be held against it."""
    shard, which, tell = row.shard, name_of(row.manifest), looked.tell
    if shard.n_requests == 0:  # of a shard that was split, or that stands for what earlier runs answered
        return MANIFEST.to_frame()
    members = read_frame(row.manifest, MANIFEST, tell)
    if members is None:
        return None
    compare(tell, which, "n_items of the store", shard.n_items, members.height * len(shard.classifiers))
    beyond = members.filter(pl.col("row") >= looked.texts.n_rows)["row"].to_list()
    expect_none(tell, which, "rows that the data has not", beyond)
    requests = members["request"]
    numbers = pl.Series(range(shard.n_requests), dtype=pl.UInt32)
    if not requests.rle().struct.field("value").equals(numbers):
        found = f"{requests.n_unique()} requests, {requests.min()!r} … {requests.max()!r}"
        broken(tell, which, "requests are not numbered", f"0 … {shard.n_requests - 1}", found)
        return None
    slots = members.filter(pl.col("slot") != pl.int_range(1, pl.len() + 1).over("request"))
    expect_none(tell, which, "requests whose slots are not 1, 2, 3 …", slots["request"].unique().sort().to_list())
    return None if beyond or slots.height else members


def _check_parts(asked: Asked, parts: list[Part], counts: dict[str, Counts], tell: Tell) -> None:
    shard, state = asked.shard, asked.row.state
    seen = np.zeros(shard.n_requests, dtype=np.bool_)
    for part in parts:
        labels = check_part(asked, part, seen, tell)
        if labels is None:
            continue
        asked.items.take(labels, shard.stage)
        if not shard.n_requests:
            for name in shard.classifiers:
                counts[name] += asked.items.count(labels.filter(pl.col("classifier") == name)["row"].to_numpy())
    n_done = sum(part.n_requests for part in parts)
    if state is ShardState.ENDED:
        compare(tell, shard.key, "requests with an answer, of a shard that has ended", shard.n_requests, n_done)
        lost = np.flatnonzero(~seen).tolist()
        expect_none(tell, shard.key, "requests without an answer, of a shard that has ended", lost)
    if state is ShardState.CUT:
        compare(tell, shard.key, "requests with an answer, of a shard that was not sent", 0, n_done)


def _check_lines(row: ShardRow, tell: Tell) -> None:
    """The file that is sent, where it lies ready: one line a request, with our custom_ids."""
    shard = row.shard
    if row.state is ShardState.ENDED or not shard.path.exists():
        return
    try:
        n_lines = 0
        for number, custom_id in enumerate(custom_ids(shard.path)):
            if custom_id != f"{shard.key}-{number}":
                broken(tell, name_of(shard.path), "custom_id of a line", f"{shard.key}-{number}", custom_id)
                return
            n_lines += 1
        compare(tell, name_of(shard.path), "lines", shard.n_requests, n_lines)
    except SemtelError as error:
        broken(tell, name_of(shard.path), "the file can't be read", "one request a line", error)


def check_submissions(row: ShardRow, tries: Sequence[Submission], tell: Tell) -> None:
    """Tries are numbered 1, 2, 3 …, at most the newest is live, and it fits the shard's state."""
    key, last = row.shard.key, tries[-1].state if tries else None
    compare(tell, key, "numbers of its submissions", list(range(1, len(tries) + 1)), [t.number for t in tries])
    expect_none(tell, key, "states that no submission has", [t.state for t in tries if t.state not in _STATES])
    expect_none(tell, key, "submissions before the newest that were not rejected", _alive(tries[:-1]))
    if row.state is ShardState.CUT:
        compare(
            tell, key, "newest submission of a shard that was not sent", "none or rejected", _told(last, "rejected")
        )
    elif row.state is ShardState.SUBMITTED:
        if last == "rejected":  # a crash came between the two transactions; the next look mends it
            harmless(tell, key, "newest submission of a shard that was sent", " or ".join(_OPEN), last)
        elif last not in _OPEN:
            broken(tell, key, "newest submission of a shard that was sent", " or ".join(_OPEN), last)
    elif row.shard.n_requests:
        compare(tell, key, "newest submission of a shard that has ended", "ended", last)
    if not row.shard.tier.is_at_once:
        without = [t.number for t in tries if t.state == "submitted" and not t.receipt.batch_id]
        expect_none(tell, key, "submissions without the id of a batch", without)


def _alive(tries: Sequence[Submission]) -> list[str]:
    return [f"{t.number}: {t.state}" for t in tries if t.state != "rejected"]


def _told(last: str | None, allowed: str) -> str:
    return "none or rejected" if last in (None, allowed) else str(last)
