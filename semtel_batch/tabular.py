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


# What a spreadsheet would run or guess at instead of showing it (OWASP, "CSV Injection"), but for plain numbers.
_FORMULA = r"^[=@\t\r\n＝＠＋－+\-]"
_NUMBER = r"^[+\-]?[\d.,]+([eE][+\-]?\d+)?%?$"


def write_table(table: pl.DataFrame, path: Path, *, raw: bool = False) -> int:
    """Write a table. In a CSV, cells that a spreadsheet would run get a ' before them unless `raw`.

    Returns how many cells that were.
    """
    check_path(path)
    writer = _WRITERS[path.suffix.lower()]
    n_guarded = 0
    if path.suffix.lower() == ".csv" and not raw:
        table, n_guarded = _guarded(table)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        writer(table, temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BadInput(f"{path} can't be written ({error}); choose another place.") from error
    return n_guarded


def check_path(path: Path) -> None:
    """Refuse what no table can be written to, before anything is paid for what is to stand in it."""
    if path.suffix.lower() not in _WRITERS:
        raise BadInput(f"{path} has no ending that is known; use one of {', '.join(_WRITERS)}.")
    if not path.absolute().parent.is_dir():
        raise BadInput(f"{path} can't be written: there is no folder {path.parent}; make it first.")


def _guarded(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    texts = [pl.col(name) for name, kind in table.schema.items() if kind == pl.String]
    risky = [text.str.contains(_FORMULA) & ~text.str.contains(_NUMBER) for text in texts]
    if not texts:
        return table, 0
    n = table.select(pl.sum_horizontal([one.sum() for one in risky])).item()
    guarded = [
        pl.when(one).then(pl.concat_str(pl.lit("'"), text)).otherwise(text).alias(text.meta.output_name())
        for text, one in zip(texts, risky, strict=True)
    ]
    return table.with_columns(guarded), int(n or 0)
