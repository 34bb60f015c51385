"""Write a table to a file the user named, by its ending, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from semtel_batch.errors import BadInput

_WRITERS: dict[str, Callable[[pl.DataFrame, Any], Any]] = {
    ".parquet": lambda table, path: table.write_parquet(path),
    ".csv": lambda table, path: table.write_csv(path),
    ".ndjson": lambda table, path: table.write_ndjson(path),
    ".jsonl": lambda table, path: table.write_ndjson(path),
}


def write_table(table: pl.DataFrame, path: Path) -> None:
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise BadInput(f"{path} has no ending that is known; use one of {', '.join(_WRITERS)}.")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        writer(table, temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BadInput(f"{path} can't be written ({error}); choose another place.") from error
