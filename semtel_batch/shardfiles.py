"""From an ask to shards on the disk: who shares a request, which requests share a shard, and the lines that are sent.

A manifest (which conversation stands in which slot) is written when a generation is cut; the file itself only when its
shard is about to be sent, from the manifest, the same bytes every time, and it goes when the shard has ended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from semtel_batch.compose.pack import pack
from semtel_batch.compose.prompt import Block, Prompt, batch_line, labels_tokens, user_content, word
from semtel_batch.compose.shards import cut, limits_of
from semtel_batch.compose.truncate import truncate_texts
from semtel_batch.conversations import load_texts
from semtel_batch.families import family_of
from semtel_batch.generations import Ask
from semtel_batch.parts import MANIFEST, read_parts, settle, write_part
from semtel_batch.planner.room import pack_room, slices
from semtel_batch.plans import Leg, Plan
from semtel_batch.records import Endpoint, Shard, Stage, Strategy, Tier
from semtel_batch.rows import Generation, NewShard

_COMPOSED_AT_ONCE = 4_000  # conversations in memory while a file is written
_LINE_BYTES = 120  # of a line besides its body

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """One ask on its way to becoming shards."""

    plan: Plan
    leg: Leg
    generation: Generation
    ask: Ask
    tier: Tier
    conversations: Path  # folder of the plan's conversations

    @property
    def endpoint(self) -> Endpoint:
        return self.plan.endpoint(self.leg.endpoint)

    @property
    def prompt(self) -> Prompt:
        return wording(self.plan, self.leg, self.ask.classifiers, self.generation.stage)


def wording(plan: Plan, leg: Leg, classifiers: tuple[str, ...], stage: Stage) -> Prompt:
    """The prompt that asks these classifiers at this stage of a plan."""
    return word([plan.classifier(name) for name in classifiers], stage, plan.endpoint(leg.endpoint), plan.grader)


def cut_shards(asking: Asking, index: pl.DataFrame, first: int, folder: Path) -> list[NewShard]:
    """Pack an ask, cut it into shards, write their manifests; shards are numbered from `first`."""
    tokens, n_bytes = _sizes(asking, index)
    positions, counts = _packs(asking, tokens)
    starts = np.cumsum(counts) - counts
    static, line = asking.prompt.size.static_tokens, len(asking.prompt.body("", 1)) + _LINE_BYTES
    request_tokens = np.add.reduceat(tokens[positions], starts) + static
    request_bytes = np.add.reduceat(n_bytes[positions], starts) + line
    limits = limits_of(asking.endpoint.kind, asking.tier, asking.endpoint.enqueued_tokens)
    shards = []
    for number, (start, end) in enumerate(cut(request_bytes, request_tokens, limits), start=first):
        members = positions[starts[start] : starts[end - 1] + counts[end - 1]]
        shards.append(
            _write_manifest(
                asking,
                folder,
                number,
                asking.ask.rows[members],
                counts[start:end],
                int(request_tokens[start:end].sum()),
            )
        )
    return shards


def _write_manifest(
    asking: Asking, folder: Path, number: int, rows: npt.NDArray[np.uint32], counts: Ints, tokens: int
) -> NewShard:
    generation = asking.generation
    key = f"{asking.plan.id}-{generation.leg}{generation.stage.value[0]}{generation.attempt}-{number:05d}"
    requests = np.repeat(np.arange(len(counts), dtype=np.uint32), counts)
    slots = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    manifest = folder / f"{key}.parquet"
    write_part(manifest, pl.DataFrame({"request": requests, "slot": slots, "row": rows}), MANIFEST)
    caps = {n: asking.prompt.size.max_completion_tokens(n) for n in set(counts.tolist())}
    return NewShard(
        key=key,
        classifiers=asking.ask.classifiers,
        endpoint=asking.leg.endpoint,
        tier=asking.tier,
        manifest=manifest,
        n_requests=len(counts),
        n_items=len(rows) * len(asking.ask.classifiers),
        prompt_tokens=tokens,
        max_completion_tokens=sum(caps[n] for n in counts.tolist()),
    )


def _sizes(asking: Asking, index: pl.DataFrame) -> tuple[Ints, Ints]:
    """Tokens and JSON bytes of each asked conversation's block, as it will stand in the prompt."""
    rows = pl.DataFrame({"row": asking.ask.rows}, schema={"row": pl.UInt32})
    sizes = rows.join(index.select("row", "n_tokens", "n_bytes"), on="row", how="left", maintain_order="left")
    tokens = sizes["n_tokens"].to_numpy().astype(np.int64)
    n_bytes = sizes["n_bytes"].to_numpy().astype(np.int64)
    limit = shortening(asking.leg.strategy, asking.generation.stage)
    if limit is not None:
        # A cut text is at most the limit and its block; its bytes are at most what they were.
        tokens = np.minimum(tokens, limit + _BLOCK_TOKENS)
    if asking.generation.stage is Stage.GRADE:
        classifiers = [asking.plan.classifier(name) for name in asking.ask.classifiers]
        tokens = tokens + labels_tokens(classifiers, _encoding(asking.endpoint))
        n_bytes = n_bytes + sum(max(map(len, c.label_names)) * 4 + len(c.name) + 8 for c in classifiers) + 24
    return tokens, n_bytes


_BLOCK_TOKENS = 16  # tags and id around a conversation, generously


def _encoding(endpoint: Endpoint) -> str:
    return endpoint.encoding or family_of(endpoint.priced_as).encoding


def shortening(strategy: Strategy, stage: Stage) -> int | None:
    """To how many tokens a stage cuts a text. Reclassifying is the reference strategy: it sees all of it."""
    return None if stage is Stage.RECLASSIFY else strategy.truncate_to


def _packs(asking: Asking, tokens: Ints) -> tuple[Ints, Ints]:
    """Positions in request order, and how many each request takes. Singles keep the data's order."""
    total = len(tokens)
    if asking.ask.per_request == 1:
        return np.arange(total, dtype=np.int64), np.ones(total, dtype=np.int64)
    n = asking.ask.per_request
    room = max(1, pack_room(asking.prompt.size, asking.endpoint, n))
    packs: list[Ints] = []
    start = 0
    for part in slices(tokens):
        found = pack(part, max_tokens=room, max_items=n, seed=asking.plan.seed)
        packs += [np.asarray(p, dtype=np.int64) + start for p in found]
        start += len(part)
    return np.concatenate(packs), np.array([len(p) for p in packs], dtype=np.int64)


def write_file(plan: Plan, shard: Shard, manifest: Path, conversations: Path, labels: pl.DataFrame) -> None:
    """Write the lines of a shard, whole or not at all. `labels` (row, classifier, label): what a grader judges."""
    if shard.path.exists():
        return
    shard.path.parent.mkdir(parents=True, exist_ok=True)
    leg = plan.legs[shard.leg]
    prompt = wording(plan, leg, shard.classifiers, shard.stage)
    given = _labels_by_row(labels, shard.classifiers) if shard.stage is Stage.GRADE else {}
    temporary = shard.path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        for rows, request in _requests(read_parts([manifest], MANIFEST), conversations, _shortener(plan, shard)):
            blocks = [Block(text=text, labels=given.get(row, ())) for row, text in rows]
            body = prompt.body(user_content(blocks), len(blocks))
            file.write(batch_line(custom_id(shard, request), body))
        file.flush()
    settle(temporary, shard.path)


def custom_id(shard: Shard, request: int) -> str:
    return f"{shard.key}-{request}"


def request_number(answer_id: str) -> int:
    return int(answer_id.rpartition("-")[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shortener:
    strategy: Strategy
    limit: int | None
    encoding: str

    def __call__(self, texts: pl.Series) -> pl.Series:
        return texts if self.limit is None else truncate_texts(texts, self.limit, self.strategy.keep, self.encoding)


def _shortener(plan: Plan, shard: Shard) -> _Shortener:
    strategy = plan.legs[shard.leg].strategy
    encoding = _encoding(plan.endpoint(shard.endpoint))
    return _Shortener(strategy=strategy, limit=shortening(strategy, shard.stage), encoding=encoding)


def _requests(
    manifest: pl.DataFrame, conversations: Path, shorten: _Shortener
) -> Iterator[tuple[list[tuple[int, str]], int]]:
    """Yield ([(row, text), …], request number) in order, a few thousand conversations in memory at a time."""
    numbers = manifest["request"].to_numpy()
    start = 0
    while start < len(numbers):
        end = min(start + _COMPOSED_AT_ONCE, len(numbers))
        if end < len(numbers):  # do not split a request
            end = int(np.searchsorted(numbers, numbers[end - 1], side="right"))
        piece = manifest[start:end]
        shortened = shorten(load_texts(conversations, piece["row"])["text"])
        rows: list[tuple[int, str]] = []
        current = int(numbers[start])
        for request, row, text in zip(piece["request"], piece["row"], shortened, strict=True):
            if request != current:
                yield rows, current
                rows, current = [], request
            rows.append((row, text))
        yield rows, current
        start = end


def _labels_by_row(labels: pl.DataFrame, classifiers: tuple[str, ...]) -> dict[int, tuple[tuple[str, str], ...]]:
    order = {name: i for i, name in enumerate(classifiers)}
    found: dict[int, list[tuple[str, str]]] = {}
    for row, name, label in labels.select("row", "classifier", "label").iter_rows():
        if name in order:
            found.setdefault(row, []).append((name, label))
    return {row: tuple(sorted(pairs, key=lambda pair: order[pair[0]])) for row, pairs in found.items()}


def way_of_asking(plan: Plan, shard: Shard) -> str:
    """What of the strategy changes answers, in canonical form: a part of every item's fingerprint."""
    strategy = plan.legs[shard.leg].strategy
    single = shard.attempt > 0 or shard.stage is Stage.RECLASSIFY
    limit = shortening(strategy, shard.stage)
    prompt = wording(plan, plan.legs[shard.leg], shard.classifiers, shard.stage)
    return orjson.dumps(
        {
            "model": plan.endpoint(shard.endpoint).priced_as,
            "system": hashlib.blake2b(prompt.system.encode(), digest_size=16).hexdigest(),
            "conversations": 1 if single else strategy.conversations_per_request,
            "truncate_to": limit,
            "keep": strategy.keep.value if limit is not None else None,
            "compress_rate": strategy.compress_rate,
        },
        option=orjson.OPT_SORT_KEYS,
    ).decode()
