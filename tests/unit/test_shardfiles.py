"""From asks to files: every item exactly once, the same bytes every time, nothing larger than was counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
from small_job import (
    BATCH_NAIVE,
    EXPERTISE,
    PLAN_ID,
    START,
    Job,
    classifier,
    endpoint,
    job,
    packed,
    plan,
    texts,
    truncated,
)

from semtel_batch.compose.shards import ShardLimits
from semtel_batch.conversations import load_index
from semtel_batch.cutting import Asking, cut_shards, split_shard
from semtel_batch.generations import Ask
from semtel_batch.parts import MANIFEST, read_parts
from semtel_batch.plans import Plan
from semtel_batch.records import Keep, Shard, Stage, Strategy, Tier
from semtel_batch.rows import Generation, NewShard
from semtel_batch.shardfiles import _pieces, custom_id, remove_files, request_number, write_file
from semtel_batch.tokens import count

NO_LABELS = pl.DataFrame(schema={"row": pl.UInt32, "classifier": pl.String, "label": pl.String})
LONG = ["user: " + f"word{i} " * (3 + 40 * (i % 7)) + "\nassistant: so \u2028 be “it”" for i in range(40)]
Start = Callable[..., Job]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    def begin(made: Plan, conversations: list[str]) -> Job:
        return job(tmp_path / "p", made, conversations)

    return begin


def asking(made: Plan, rows: Any, stage: Stage = Stage.CLASSIFY, **changes: Any) -> Asking:
    leg = made.legs[0]
    alone = stage is Stage.RECLASSIFY or changes.get("attempt", 0) > 0
    ask = Ask(
        classifiers=changes.get("classifiers", leg.classifiers),
        rows=np.asarray(rows, dtype=np.uint32),
        per_request=changes.get("per_request", 1 if alone else leg.strategy.conversations_per_request),
    )
    generation = Generation(leg=0, stage=stage, attempt=changes.get("attempt", 0))
    return Asking(plan=made, leg=leg, generation=generation, ask=ask, tier=changes.get("tier", Tier.BATCH))


def cut(made: Job, how: Asking, first: int = 0) -> list[NewShard]:
    return cut_shards(how, load_index(made.conversations), first, made.folder / "manifests")


def kept(made: Job, how: Asking, shards: list[NewShard]) -> list[tuple[Shard, Path]]:
    made.store.cut(PLAN_ID, how.generation, shards, START)
    return [(row.shard, row.manifest) for row in made.store.shards(PLAN_ID)]


def write(made: Job, how: Asking, labels: pl.DataFrame = NO_LABELS) -> list[bytes]:
    """The lines of all shards of an ask."""
    lines: list[bytes] = []
    for shard, manifest in kept(made, how, cut(made, how)):
        write_file(made.plan, shard, manifest, made.conversations, labels)
        lines += shard.path.read_bytes().removesuffix(b"\n").split(b"\n")
    return lines


def user_message(line: bytes) -> str:
    content: str = orjson.loads(line)["body"]["messages"][1]["content"]
    return content


# -- manifests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [BATCH_NAIVE, packed(7), packed(100)])
def test_every_row_stands_in_exactly_one_slot(start: Start, strategy: Strategy) -> None:
    made = start(plan(strategy, endpoint=endpoint(enqueued_tokens=6_000)), LONG)
    rows = [i for i in range(40) if i % 5]
    shards = cut(made, asking(made.plan, rows))
    assert len(shards) > 1 or strategy.conversations_per_request == 100
    manifests = [read_parts([shard.manifest], MANIFEST) for shard in shards]
    assert sorted(row for manifest in manifests for row in manifest["row"]) == rows
    for shard, manifest in zip(shards, manifests, strict=True):
        sizes = manifest.group_by("request", maintain_order=True).agg("slot")
        assert sizes["request"].to_list() == list(range(shard.n_requests))
        assert all(slots == list(range(1, len(slots) + 1)) for slots in sizes["slot"].to_list())
        assert max(sizes["slot"].list.len()) <= strategy.conversations_per_request
        assert shard.n_items == manifest.height * 2
        assert shard.prompt_tokens <= 6_000 or shard.n_requests == 1


def test_shards_are_numbered_on_and_their_keys_are_unique(start: Start) -> None:
    made = start(plan(endpoint=endpoint(enqueued_tokens=2_000)), LONG)
    how = asking(made.plan, range(40), Stage.RECLASSIFY, attempt=2)
    keys = [shard.key for shard in cut(made, how, first=3)]
    assert keys[0] == f"{PLAN_ID}-0r2-00003"
    assert len(set(keys)) == len(keys) > 2


def test_singles_keep_the_datas_order_and_packs_do_not(start: Start) -> None:
    made = start(plan(packed(4)), LONG)
    single, together, again = (
        read_parts([cut(made, asking(made.plan, range(40), per_request=n))[0].manifest], MANIFEST) for n in (1, 4, 4)
    )
    assert single["row"].to_list() == list(range(40))
    assert together["row"].to_list() != list(range(40))
    assert together.equals(again), "shuffled by the plan's seed and by nothing else"


def test_packs_leave_room_in_the_window(start: Start) -> None:
    conversations = [f"user: {i} " + "word " * 1_500 for i in range(12)]
    made = start(plan(packed(40), endpoint=endpoint(model="gpt-4")), conversations)
    how = asking(made.plan, range(12))
    (shard,) = cut(made, how)
    for line in write(made, how):
        messages = orjson.loads(line)["body"]["messages"]
        asked = int(count([m["content"] for m in messages], "cl100k_base").sum())
        assert asked + orjson.loads(line)["body"]["max_tokens"] <= 0.8 * 8_192
    assert 3 <= shard.n_requests <= 4


@pytest.mark.parametrize("strategy", [BATCH_NAIVE, packed(6), truncated(60), truncated(60, Keep.HEAD_TAIL)])
@pytest.mark.parametrize("stage", list(Stage))
def test_the_sizes_that_limits_are_kept_by_are_not_below_the_truth(
    start: Start, strategy: Strategy, stage: Stage
) -> None:
    made = start(plan(strategy), LONG)
    labels = pl.DataFrame(
        [(row, name, label) for row in range(40) for name, label in (("topic", "Technology"), ("expertise", "Expert"))],
        schema=NO_LABELS.schema,
        orient="row",
    )
    how = asking(made.plan, range(40), stage)
    (shard,) = cut(made, how)
    lines = write(made, how, labels)
    bodies = [orjson.loads(line)["body"] for line in lines]
    asked = sum(int(count([m["content"]], "o200k_base")[0]) + 4 for body in bodies for m in body["messages"])
    assert asked <= shard.prompt_tokens
    assert sum(body["max_completion_tokens"] for body in bodies) == shard.max_completion_tokens


def test_the_bytes_are_counted_so_that_no_file_outgrows_its_limit(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 20_000
    monkeypatch.setattr(Asking, "limits", property(lambda _self: ShardLimits(max_requests=999, max_bytes=most)))
    made = start(plan(packed(3)), [text + '"\\\t' * 30 for text in LONG])
    how = asking(made.plan, range(40))
    for shard, manifest in kept(made, how, cut(made, how)):
        write_file(made.plan, shard, manifest, made.conversations, NO_LABELS)
        assert shard.n_requests > 1
        assert shard.path.stat().st_size <= most
        assert shard.n_requests < 14, "and not one file for each"


def test_a_shard_is_split_between_its_requests(start: Start) -> None:
    made = start(plan(packed(3)), LONG)
    how = asking(made.plan, range(40))
    ((shard, manifest),) = kept(made, how, cut(made, how))
    whole = read_parts([manifest], MANIFEST)
    again = replace(how, ask=replace(how.ask, rows=whole["row"].to_numpy(), per_request=1))
    limits = ShardLimits(max_requests=999, max_bytes=10**9, max_tokens=shard.prompt_tokens // 2)
    pieces = split_shard(again, load_index(made.conversations), shard, manifest, limits)
    assert [piece.key for piece in pieces] == [f"{shard.key}p{i}" for i in range(1, len(pieces) + 1)]
    assert len(pieces) in (2, 3)
    assert sum(piece.prompt_tokens for piece in pieces) == shard.prompt_tokens
    assert sum(piece.max_completion_tokens for piece in pieces) == shard.max_completion_tokens
    members = [read_parts([piece.manifest], MANIFEST) for piece in pieces]
    assert pl.concat(members).select("slot", "row").equals(whole.select("slot", "row")), "packs stay together"


# -- files ---------------------------------------------------------------------------------------------------------


def test_the_same_bytes_every_time(start: Start) -> None:
    made = start(plan(packed(3)), LONG)
    how = asking(made.plan, range(40))
    ((shard, manifest),) = kept(made, how, cut(made, how))
    write_file(made.plan, shard, manifest, made.conversations, NO_LABELS)
    first = shard.path.read_bytes()
    remove_files(shard)
    assert not shard.path.exists()
    write_file(made.plan, shard, manifest, made.conversations, NO_LABELS)
    assert shard.path.read_bytes() == first
    assert [path.name for path in shard.path.parent.iterdir()] == [shard.path.name]


def test_removing_a_shards_files_leaves_its_neighbours(start: Start) -> None:
    made = start(plan(), texts(2))
    how = asking(made.plan, range(2))
    ((shard, _manifest),) = kept(made, how, cut(made, how))
    shard.path.parent.mkdir(parents=True)
    for name in (f"{shard.key}.jsonl", f"{shard.key}.output.jsonl", f"{shard.key}p1.jsonl", "other.jsonl"):
        (shard.path.parent / name).touch()
    remove_files(shard)
    assert {path.name for path in shard.path.parent.iterdir()} == {f"{shard.key}p1.jsonl", "other.jsonl"}


def test_custom_ids_are_unique_short_and_lead_back(start: Start) -> None:
    made = start(plan(endpoint=endpoint(enqueued_tokens=3_000)), LONG)
    ids = [orjson.loads(line)["custom_id"] for line in write(made, asking(made.plan, range(40)))]
    assert len(set(ids)) == len(ids) == 40
    assert max(map(len, ids)) <= 64
    shard = made.store.shards(PLAN_ID)[0].shard
    assert [request_number(custom_id(shard, n)) for n in (0, 9, 49_999)] == [0, 9, 49_999]


def test_what_was_written_is_not_written_again(start: Start) -> None:
    made = start(plan(), texts(2))
    how = asking(made.plan, range(2))
    ((shard, manifest),) = kept(made, how, cut(made, how))
    shard.path.parent.mkdir(parents=True)
    shard.path.write_bytes(b"as it was sent")
    write_file(made.plan, shard, manifest, made.conversations, NO_LABELS)
    assert shard.path.read_bytes() == b"as it was sent"


def test_more_conversations_than_are_composed_at_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    made = start(plan(packed(7)), LONG)
    how = asking(made.plan, range(40))
    whole = write(made, how)
    monkeypatch.setattr("semtel_batch.shardfiles._COMPOSED_AT_ONCE", 5)
    shard = made.store.shards(PLAN_ID)[0]
    shard.shard.path.unlink()
    write_file(made.plan, shard.shard, shard.manifest, made.conversations, NO_LABELS)
    assert shard.shard.path.read_bytes().removesuffix(b"\n").split(b"\n") == whole


@pytest.mark.parametrize("n_bytes", [1, 900, 4_000])
def test_long_conversations_are_composed_a_few_at_a_time(
    start: Start, monkeypatch: pytest.MonkeyPatch, n_bytes: int
) -> None:
    made = start(plan(packed(7)), LONG)
    whole = write(made, asking(made.plan, range(40)))
    shard = made.store.shards(PLAN_ID)[0]
    shard.shard.path.unlink()
    monkeypatch.setattr("semtel_batch.shardfiles._COMPOSED_BYTES", n_bytes)
    write_file(made.plan, shard.shard, shard.manifest, made.conversations, NO_LABELS)
    assert shard.shard.path.read_bytes().removesuffix(b"\n").split(b"\n") == whole


@pytest.mark.parametrize(("at_once", "n_bytes"), [(5, 10**6), (1, 10**6), (1_000, 35), (1_000, 10**6)])
def test_pieces_end_between_requests_and_keep_their_size(
    monkeypatch: pytest.MonkeyPatch, at_once: int, n_bytes: int
) -> None:
    monkeypatch.setattr("semtel_batch.shardfiles._COMPOSED_AT_ONCE", at_once)
    monkeypatch.setattr("semtel_batch.shardfiles._COMPOSED_BYTES", n_bytes)
    requests = np.repeat(np.arange(9, dtype=np.uint32), [3, 1, 1, 4, 2, 1, 1, 1, 6])
    ends = _pieces(requests, np.full(20, 10, dtype=np.int64))
    starts = [0, *ends[:-1]]
    assert ends[-1] == 20
    for first, end in zip(starts, ends, strict=True):
        assert end == 20 or requests[end] != requests[end - 1]
        fits = end - first <= at_once and (end - first) * 10 <= n_bytes
        assert fits or len(set(requests[first:end])) == 1  # a request that is too large comes alone


def test_long_texts_are_cut_but_not_for_the_second_opinion(start: Start) -> None:
    made = start(plan(truncated(50)), ["user: " + "word " * 400, "user: short"])
    for stage in (Stage.CLASSIFY, Stage.GRADE, Stage.RECLASSIFY):
        shard = cut(made, asking(made.plan, [0, 1], stage))[0]
        made.store.cut(PLAN_ID, Generation(leg=0, stage=stage, attempt=0), [shard], START)
    for row in made.store.shards(PLAN_ID):
        write_file(made.plan, row.shard, row.manifest, made.conversations, NO_LABELS)
        long, short = map(user_message, row.shard.path.read_bytes().splitlines())
        words = long.count("word")
        assert (words == 400) == (row.shard.stage is Stage.RECLASSIFY)
        assert ("tokens left out" in long) == (words < 400)
        assert "user: short" in short


def test_the_graders_lines_carry_the_labels_of_their_rows(start: Start) -> None:
    made = start(plan(packed(2)), texts(3))
    given = [(0, "expertise", "Novice"), (0, "topic", "Travel"), (2, "topic", "Health"), (2, "expertise", "Expert")]
    labels = pl.DataFrame(given, schema=NO_LABELS.schema, orient="row")
    (line,) = write(made, asking(made.plan, [0, 2], Stage.GRADE), labels)
    blocks = user_message(line).split("</conversation>")
    about = {
        0: "<labels>\ntopic: Travel\nexpertise: Novice\n</labels>",
        2: "<labels>\ntopic: Health\nexpertise: Expert",
    }
    for row, expected in about.items():
        assert expected in next(block for block in blocks if f"question {row} " in block)


def test_only_the_asked_classifiers_are_shown_to_the_grader(start: Start) -> None:
    made = start(plan(packed(2)), texts(1))
    labels = pl.DataFrame([(0, "expertise", "Novice"), (0, "topic", "Travel")], schema=NO_LABELS.schema, orient="row")
    (line,) = write(made, asking(made.plan, [0], Stage.GRADE, classifiers=("topic",)), labels)
    assert "<labels>\ntopic: Travel\n</labels>" in user_message(line)


# -- ways of asking ------------------------------------------------------------------------------------------------


def test_a_way_of_asking_is_all_that_changes_answers_and_nothing_else() -> None:
    def way(*strategies: Strategy, stage: Stage = Stage.CLASSIFY, attempt: int = 0, **changes: Any) -> str:
        return asking(plan(*strategies, **changes), [0], stage, attempt=attempt).way

    naive = way()
    same = [
        way(Strategy(recipe="naive", tier=Tier.REALTIME)),
        way(endpoint=endpoint("other", base_url="https://elsewhere.example/v1", rpm=5)),
        way(packed(5), attempt=1),
        way(packed(5), stage=Stage.RECLASSIFY),
        way(seed=99, max_attempts=9),
    ]
    assert set(same) == {naive}
    different = [
        naive,
        way(packed(5)),
        way(packed(6)),
        way(truncated(50)),
        way(truncated(60)),
        way(truncated(50, Keep.TAIL)),
        way(endpoint=endpoint(model="gpt-6-sol")),
        way(stage=Stage.GRADE),
        way(classifiers=(classifier("topic", "A", "B"), EXPERTISE)),
    ]
    assert len(set(different)) == len(different)
