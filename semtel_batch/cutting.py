"""From an ask to shards: who shares a request, which requests share a shard, written down as manifests.

A manifest says which conversation stands in which slot of which request. It is written when a generation is cut; the
lines that are sent are composed from it only when the shard is about to be sent, see `shardfiles`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.compose.pack import pack
from semtel_batch.compose.prompt import Prompt, labels_tokens
from semtel_batch.compose.shards import ShardLimits, between_looks, cut, in_chunks, limits_of
from semtel_batch.crashpoints import reach
from semtel_batch.generations import Ask
from semtel_batch.legs import encoding_of, generation_key, shortening, way_of_asking, wording
from semtel_batch.parts import APART, APART_ROWS, MANIFEST, read_parts, write_part
from semtel_batch.planner.room import pack_room, slices
from semtel_batch.plans import Leg, Plan
from semtel_batch.records import Endpoint, Shard, Stage, Tier
from semtel_batch.rows import Generation, NewShard

_LINE_BYTES = 120  # of a line besides its body
_BLOCK_TOKENS = 16  # tags and id around a conversation, generously

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """One ask on its way to becoming shards."""

    plan: Plan
    leg: Leg
    generation: Generation
    ask: Ask
    tier: Tier

    @property
    def endpoint(self) -> Endpoint:
        return self.plan.asked_of(self.leg, self.generation.stage)

    @property
    def prompt(self) -> Prompt:
        return wording(self.plan, self.leg, self.ask.classifiers, self.generation.stage, self.tier)

    @property
    def way(self) -> str:
        return way_of_asking(self.prompt, self.endpoint, self.leg.strategy, per_request=self.ask.per_request)

    @property
    def limits(self) -> ShardLimits:
        limits = limits_of(self.endpoint.kind, self.tier, self.endpoint.enqueued_tokens)
        has_batches = any(not leg.strategy.tier.is_at_once for leg in self.plan.legs)
        is_between = has_batches and self.tier.is_at_once
        return between_looks(limits, self.endpoint.rpm, self.endpoint.tpm) if is_between else limits

    def limits_for(self, n_requests: int, n_tokens: int) -> ShardLimits:
        """The same for so many requests and tokens together: what may be taken back is cut into chunks."""
        has_deadline = self.plan.objective.deadline_s is not None
        if self.tier.is_at_once or not has_deadline or not self.plan.has_realtime(self.endpoint.name):
            return self.limits
        return in_chunks(self.limits, (self.endpoint.rpm, self.endpoint.tpm), n_requests, n_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Requests:
    """Requests in order: which positions of the ask each holds, and how large each is."""

    positions: Ints
    counts: Ints
    tokens: Ints
    n_bytes: Ints

    def members(self, start: int, end: int) -> Ints:
        before = int(self.counts[:start].sum())
        return self.positions[before : before + int(self.counts[start:end].sum())]


def cut_shards(asking: Asking, index: pl.DataFrame, first: int, folder: Path) -> list[NewShard]:
    """Pack an ask, cut it into shards, write their manifests; shards are numbered from `first`."""
    tokens, n_bytes = _sizes(asking, index)
    positions, counts = _packs(asking, tokens, _standing_apart(asking, folder.parent))
    requests = _requests(asking, positions, counts, tokens, n_bytes)
    limits = asking.limits_for(len(requests.tokens), int(requests.tokens.sum()))
    return [
        _write_manifest(asking, folder, f"{_key(asking)}-{number:05d}", requests, run)
        for number, run in enumerate(cut(requests.n_bytes, requests.tokens, limits), start=first)
    ]


def split_shard(
    asking: Asking, index: pl.DataFrame, whole: Shard, manifest: Path, limits: ShardLimits
) -> list[NewShard]:
    """Cut a shard that a provider had no room for into smaller ones; `asking.ask` holds its rows in order."""
    counts = np.bincount(read_parts([manifest], MANIFEST)["request"].to_numpy()).astype(np.int64)
    tokens, n_bytes = _sizes(asking, index)
    positions = np.arange(len(tokens), dtype=np.int64)
    requests = _requests(asking, positions, counts, tokens, n_bytes)
    return [
        _write_manifest(asking, manifest.parent, f"{whole.key}p{piece}", requests, run)
        for piece, run in enumerate(cut(requests.n_bytes, requests.tokens, limits), start=1)
    ]


def reused_shard(asking: Asking, name: str, n_items: int, folder: Path, way: str | None = None) -> NewShard:
    """A shard that asks nothing: it stands for items that an earlier run answered, or that were labelled in a `way`."""
    key = f"{_key(asking)}-{name}"
    return NewShard(
        key=key,
        classifiers=asking.ask.classifiers,
        endpoint=asking.endpoint.name,
        tier=asking.tier,
        way=way or asking.way,
        manifest=folder / f"{key}.parquet",
        n_requests=0,
        n_items=n_items,
        prompt_tokens=0,
        max_completion_tokens=0,
    )


def _key(asking: Asking) -> str:
    return f"{asking.plan.id}-{generation_key(asking.generation)}"


def _requests(asking: Asking, positions: Ints, counts: Ints, tokens: Ints, n_bytes: Ints) -> _Requests:
    starts = np.cumsum(counts) - counts
    static, line = asking.prompt.size.static_tokens, len(asking.prompt.body("", 1)) + _LINE_BYTES
    return _Requests(
        positions=positions,
        counts=counts,
        tokens=np.add.reduceat(tokens[positions], starts) + static,
        n_bytes=np.add.reduceat(n_bytes[positions], starts) + line,
    )


def _write_manifest(asking: Asking, folder: Path, key: str, requests: _Requests, run: tuple[int, int]) -> NewShard:
    start, end = run
    counts, rows = requests.counts[start:end], asking.ask.rows[requests.members(start, end)]
    numbers = np.repeat(np.arange(len(counts), dtype=np.uint32), counts)
    slots = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    manifest = folder / f"{key}.parquet"
    write_part(manifest, pl.DataFrame({"request": numbers, "slot": slots, "row": rows}), MANIFEST)
    reach("cut.manifest-written")
    sizes, times = np.unique(counts, return_counts=True)
    caps = [asking.prompt.size.max_completion_tokens(int(n)) for n in sizes]
    return NewShard(
        key=key,
        classifiers=asking.ask.classifiers,
        endpoint=asking.endpoint.name,
        tier=asking.tier,
        way=asking.way,
        manifest=manifest,
        n_requests=len(counts),
        n_items=len(rows) * len(asking.ask.classifiers),
        prompt_tokens=int(requests.tokens[start:end].sum()),
        max_completion_tokens=int(np.dot(caps, times)),
    )


def sizes_of(index: pl.DataFrame, rows: npt.ArrayLike | pl.Series) -> tuple[Ints, Ints]:
    """Tokens and JSON bytes of these rows' texts by an index that has them, in this order."""
    asked = pl.DataFrame({"row": rows}, schema={"row": pl.UInt32})
    found = asked.join(index.select("row", "n_tokens", "n_bytes"), on="row", how="left", maintain_order="left")
    return found["n_tokens"].to_numpy().astype(np.int64), found["n_bytes"].to_numpy().astype(np.int64)


def _sizes(asking: Asking, index: pl.DataFrame) -> tuple[Ints, Ints]:
    """Tokens and JSON bytes of each asked conversation's block, as it will stand in the prompt."""
    tokens, n_bytes = sizes_of(index, asking.ask.rows)
    limit = shortening(asking.leg.strategy, asking.generation.stage)
    if limit is not None:
        # A cut text is at most the limit and its block; its bytes are at most what they were.
        tokens = np.minimum(tokens, limit + _BLOCK_TOKENS)
    if asking.generation.stage is Stage.GRADE:
        classifiers = [asking.plan.classifier(name) for name in asking.ask.classifiers]
        tokens = tokens + labels_tokens(classifiers, encoding_of(asking.endpoint))
        n_bytes = n_bytes + sum(max(map(len, c.label_names)) * 4 + len(c.name) + 8 for c in classifiers) + 24
    return tokens, n_bytes


def _standing_apart(asking: Asking, folder: Path) -> Bools | None:
    """Which of the asked rows may not share a request: a study's audited ones; None where no study marked any."""
    path = folder / APART
    return np.isin(asking.ask.rows, read_parts([path], APART_ROWS)["row"].to_numpy()) if path.exists() else None


def _packs(asking: Asking, tokens: Ints, apart: Bools | None) -> tuple[Ints, Ints]:
    """Positions in request order, and how many each request takes. Singles keep the data's order."""
    total = len(tokens)
    if asking.ask.per_request == 1:
        return np.arange(total, dtype=np.int64), np.ones(total, dtype=np.int64)
    n = asking.ask.per_request
    room = max(1, pack_room(asking.prompt.size, asking.endpoint, n))
    is_rerun = asking.generation.stage is Stage.RERUN
    seed = asking.plan.seed + 1 if is_rerun else asking.plan.seed
    packs: list[Ints] = []
    start = 0
    for part in slices(tokens):
        of_part = None if apart is None else apart[start : start + len(part)]
        found = pack(part, max_tokens=room, max_items=n, seed=seed, other_packs=is_rerun, apart=of_part)
        packs += [np.asarray(p, dtype=np.int64) + start for p in found]
        start += len(part)
    return np.concatenate(packs), np.array([len(p) for p in packs], dtype=np.int64)
