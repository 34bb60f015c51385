"""Texts that are to be embedded, as shards like any other: cut, composed when they are sent, and cut smaller.

They belong to no leg. A manifest says which conversation is which text of which request; the windows of long texts are
found anew wherever they are needed, the same every time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.compose.prompt import batch_line
from semtel_batch.compose.shards import ShardLimits, cut, limits_of
from semtel_batch.conversations import iter_texts
from semtel_batch.crashpoints import reach
from semtel_batch.cutting import sizes_of
from semtel_batch.legs import encoding_of, generation_key
from semtel_batch.network_plan import vectors_of
from semtel_batch.parts import MANIFEST, read_parts, write_part
from semtel_batch.records import Endpoint, Shard, Tier
from semtel_batch.rows import Generation, NewShard
from semtel_batch.shardfiles import custom_id, write_lines
from semtel_batch.vectors import INPUTS, PATH, REQUEST_TOKENS, Window, body_of, split

_MAX_REQUESTS = 1_400  # of 35 inputs at most: OpenAI takes 50,000 inputs a batch; and its vectors are merged at once
_COMPOSED_AT_ONCE = 64  # requests
_LINE_BYTES = 200  # of a request besides its texts

Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Whose texts are embedded by whom, in which tier."""

    plan_id: str
    generation: Generation
    endpoint: Endpoint
    tier: Tier
    folder: Path  # of manifests

    @property
    def limits(self) -> ShardLimits:
        limits = limits_of(self.endpoint.kind, self.tier, self.endpoint.enqueued_tokens)
        return replace(limits, max_requests=min(limits.max_requests, _MAX_REQUESTS))


def way_of_embedding(endpoint: Endpoint) -> str:
    """Of embedding shards: the model, and never that of any other request."""
    return f"embed:{hashlib.blake2b(vectors_of(endpoint).encode(), digest_size=12).hexdigest()}"


def cut_texts(wanted: Wanted, rows: Rows, index: pl.DataFrame, alone: Rows) -> list[NewShard]:
    """Shards that embed these rows, manifests written; those `alone` share no request. `index` has their sizes."""
    by_itself = np.isin(rows, alone)
    rows = np.concatenate([rows[~by_itself], rows[by_itself]])
    tokens, n_bytes = sizes_of(index, rows)
    together = ShardLimits(max_requests=INPUTS, max_bytes=2**62, max_tokens=REQUEST_TOKENS)
    n_shared = int((~by_itself).sum())
    runs = cut(n_bytes[:n_shared], tokens[:n_shared], together) + [(i, i + 1) for i in range(n_shared, len(rows))]
    numbers = np.repeat(np.arange(len(runs)), [end - start for start, end in runs])
    return _shards(wanted, rows, numbers, (tokens, n_bytes), f"{wanted.plan_id}-{generation_key(wanted.generation)}-")


def cut_smaller(wanted: Wanted, whole: Shard, manifest: Path, index: pl.DataFrame, max_tokens: int) -> list[NewShard]:
    """The same requests in smaller shards, for a queue that has no room for all of them at once."""
    members = read_parts([manifest], MANIFEST)
    tokens, n_bytes = sizes_of(index, members["row"])
    rows, numbers = members["row"].to_numpy(), members["request"].to_numpy().astype(np.int64)
    return _shards(wanted, rows, numbers, (tokens, n_bytes), f"{whole.key}p", max_tokens)


def _shards(
    wanted: Wanted, rows: Rows, numbers: Ints, sizes: tuple[Ints, Ints], prefix: str, max_tokens: int | None = None
) -> list[NewShard]:
    """Requests in order, numbered from 0, as the fewest shards that keep the limits."""
    n = int(numbers[-1]) + 1 if len(numbers) else 0
    tokens, n_bytes = (np.bincount(numbers, weights=of, minlength=n).astype(np.int64) for of in sizes)
    limits = wanted.limits if max_tokens is None else replace(wanted.limits, max_tokens=max_tokens)
    made = []
    for place, (start, end) in enumerate(cut(n_bytes + _LINE_BYTES, tokens, limits)):
        mine = (numbers >= start) & (numbers < end)
        own = numbers[mine] - start
        slots = np.arange(len(own)) - np.searchsorted(own, own) + 1
        key = f"{prefix}{place + 1 if max_tokens is not None else f'{place:05d}'}"
        manifest = wanted.folder / f"{key}.parquet"
        write_part(manifest, pl.DataFrame({"request": own, "slot": slots, "row": rows[mine]}), MANIFEST)
        reach("embedding.manifest-written")
        made.append(
            NewShard(
                key=key,
                classifiers=(),
                endpoint=wanted.endpoint.name,
                tier=wanted.tier,
                way=way_of_embedding(wanted.endpoint),
                manifest=manifest,
                n_requests=end - start,
                n_items=0,
                prompt_tokens=int(tokens[start:end].sum()),
                max_completion_tokens=0,
            )
        )
    return made


def write_texts(endpoint: Endpoint, shard: Shard, manifest: Path, conversations: Path) -> None:
    """Write the lines of an embedding shard, whole or not at all."""
    if shard.path.exists():
        return
    requests = _requests(endpoint, manifest, conversations)
    write_lines(shard, (batch_line(custom_id(shard, n), body_of(found, endpoint.model), PATH) for n, found in requests))


def _requests(endpoint: Endpoint, manifest: Path, conversations: Path) -> Iterator[tuple[int, list[Window]]]:
    members = read_parts([manifest], MANIFEST)
    if not members.height:
        return
    numbers = members["request"].to_numpy().astype(np.int64)
    n = int(numbers[-1]) + 1
    ends = np.searchsorted(numbers, np.append(np.arange(_COMPOSED_AT_ONCE, n, _COMPOSED_AT_ONCE), n)).tolist()
    start = 0
    for end, texts in zip(ends, iter_texts(conversations, members["row"], ends), strict=True):
        found: dict[int, list[Window]] = {int(request): [] for request in np.unique(numbers[start:end])}
        for one in split(texts.to_list(), encoding_of(endpoint)):
            found[int(numbers[start + one.text_number])].append(one)
        yield from found.items()
        start = end
