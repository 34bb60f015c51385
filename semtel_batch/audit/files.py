"""The folders: what is registered is there, and what is there and not registered is a crash's leftover."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from semtel_batch.audit.findings import Tell, harmless
from semtel_batch.audit.shards import Written
from semtel_batch.audit.texts import name_of
from semtel_batch.rows import ShardRow, ShardState

_LEFT = "leftover of a crash, may be deleted"


def check_files(folder: Path, written: Written, n_texts: int, tell: Tell, known: Collection[Path] = ()) -> int:
    """Name what nobody knows in a plan's folder; returns how many files were seen."""
    registered = {*known, *(path for part in written.parts for path in (part.answers, part.labels))}
    registered |= {row.manifest for row in written.shards}
    registered |= {folder / "conversations" / name for name in _kept(n_texts)}
    # Each is whole in itself, found by its name and made anew where it is gone; the store has no row of it.
    registered |= {path for kind in ("compressed", "embeddings") for path in (folder / kind).glob("*.parquet")}
    open_keys = {row.shard.key for row in written.shards if row.state is not ShardState.ENDED}
    n_seen = 0
    for path in sorted(_files(folder)):
        n_seen += 1
        if path not in registered and not _is_of_an_open_shard(path, folder, open_keys):
            harmless(tell, str(path.relative_to(folder.parent)), _LEFT, "a file that the store knows", "unknown")
    return n_seen


def _kept(n_parts: int) -> list[str]:
    return ["index.parquet", *(f"part-{number:05d}.parquet" for number in range(n_parts))]


def _is_of_an_open_shard(path: Path, folder: Path, open_keys: set[str]) -> bool:
    """The lines that are sent, result files as they came, and what executors note."""
    if path.parent == folder / "spool" and open_keys:
        return True
    key, _, rest = path.name.partition(".")
    return path.parent == folder / "shards" and key in open_keys and rest.endswith("jsonl")


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def check_folders(files: Path, plan_ids: Iterable[str], tell: Tell) -> None:
    """Name folders without a plan: planning was cut short."""
    known = set(plan_ids)
    for path in sorted(files.iterdir()) if files.is_dir() else ():
        if path.name not in known:
            harmless(tell, path.name, _LEFT, "a plan of this name", "none")


def parts_registered_twice(written: Written) -> list[str]:
    """Files that two rows of the store name: what they hold would count twice."""
    times = Counter(path for part in written.parts for path in (part.answers, part.labels))
    return sorted(name_of(path) for path, n in times.items() if n > 1)


def stray_shards(rows: Iterable[ShardRow], written: Written) -> list[str]:
    """Shards of a generation that is not on record."""
    known = {(g.leg, g.stage, g.attempt) for g in written.generations}
    return [r.shard.key for r in rows if (r.shard.leg, r.shard.stage, r.shard.attempt) not in known]
