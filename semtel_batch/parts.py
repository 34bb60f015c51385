"""Parquet parts: manifests, answers and labels, written whole or not at all.

What is large lies here, what must be found lies in the store: a part counts only once the store has its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl

from semtel_batch.crashpoints import reach
from semtel_batch.errors import StoreError
from semtel_batch.private import begin_private, make_private_folder

MANIFEST = pl.Schema({"request": pl.UInt32, "slot": pl.UInt16, "row": pl.UInt32})
"""Which conversation stands in which slot of which request of a shard."""

APART = "apart.parquet"
"""In a plan's folder: the rows of which no two may share a request, because a study audits them."""
APART_ROWS = pl.Schema({"row": pl.UInt32})

JUDGED = pl.Schema({"row": pl.UInt32, "classifier": pl.String, "label": pl.String})
"""The labels that a shard of the grader's is given to judge, for tasks that ask it elsewhere."""

ANSWERS = pl.Schema(
    {
        "request": pl.UInt32,
        "outcome": pl.String,
        "content": pl.String,
        "model": pl.String,
        "status_code": pl.UInt16,
        "error_code": pl.String,
        "error_message": pl.String,
        "latency_s": pl.Float64,
        "n_tries": pl.UInt16,
        "prompt_tokens": pl.UInt32,
        "cached_tokens": pl.UInt32,
        "cache_write_tokens": pl.UInt32,
        "completion_tokens": pl.UInt32,
        "reasoning_tokens": pl.UInt32,
        "tier": pl.String,
        "endpoint": pl.String,
    }
)
"""One row a request, as the provider ended it. `tier`: what it was billed as, null for its shard's tier; `endpoint`:
who gave it, null for its shard's."""

_LATER = frozenset({"tier", "endpoint", "confidence"})
"""Columns that parts of earlier versions lack; there they read as null."""

LABELS = pl.Schema(
    {
        "row": pl.UInt32,
        "classifier": pl.String,
        "label": pl.String,
        "outcome": pl.String,
        "how": pl.String,
        "detail": pl.String,
        "permanent": pl.Boolean,
        "request": pl.UInt32,
        "slot": pl.UInt16,
        "fingerprint": pl.Binary,
        "confidence": pl.Float32,
    }
)
"""One row an item, as its answer was read. `permanent`: asking the same alone again would end the same way.

`confidence`: the probability that the model gave the label's tokens; null where the answer came without.
"""


def write_part(path: Path, frame: pl.DataFrame, schema: pl.Schema) -> None:
    """Write a part durably: temporary name, fsync, rename, fsync of the folder. A crash leaves all of it or none."""
    make_folder(path.parent)
    columns = frame.select(pl.col(name).cast(kind) for name, kind in schema.items())
    temporary = path.with_suffix(".tmp")
    with being_written(path, temporary):
        begin_private(temporary)
        columns.write_parquet(temporary, compression="zstd")
        settle(temporary, path)


@contextmanager
def being_written(path: Path, temporary: Path) -> Iterator[None]:
    """Say what could not be written, and give the room of its beginning back: on a full disk it is needed."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:  # Polars has its own for a full disk
        with suppress(OSError):
            temporary.unlink()
        reason = getattr(error, "strerror", None) or error
        raise StoreError(f"{path} could not be written ({reason}); free the disk and run again.") from error


def make_folder(folder: Path) -> None:
    try:
        make_private_folder(folder)
    except OSError as error:
        raise StoreError(f"{folder} could not be made ({error.strerror}); free the disk and run again.") from error


def settle(temporary: Path, path: Path) -> None:
    """Give a finished temporary file its name so that both survive a power cut."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    reach("file.written")
    temporary.replace(path)
    reach("file.named")
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path, schema: pl.Schema) -> pl.DataFrame:
    there = pl.read_parquet_schema(path) if _LATER & set(schema) else schema
    columns = [name for name in schema if name in there or name not in _LATER]
    # Not as a pattern: a project may lie in "labels [2]".
    return with_later(pl.read_parquet(path, columns=columns, glob=False), schema).select(schema.names())


def with_later(frame: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """A part as this version writes it, its columns at the end that an earlier one did not know, as null."""
    missing = [name for name in schema if name in _LATER and name not in frame.columns]
    return frame.with_columns(pl.lit(None, schema[name]).alias(name) for name in missing)


def read_parts(paths: Sequence[Path], schema: pl.Schema) -> pl.DataFrame:
    """All rows of the parts, in the schema's columns, an empty frame for none. A part that is gone or torn is named."""
    if not paths:
        return schema.to_frame()
    frames = []
    for path in paths:
        try:
            frames.append(_read(path, schema))
        except (OSError, pl.exceptions.PolarsError) as error:
            raise StoreError(f"The part {path} can't be read ({error}); restore it from a backup of state/.") from error
    return pl.concat(frames)
