"""Labels that people gave, from a file: one line a conversation, one label or several of each task."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import orjson
import polars as pl

from semtel_batch.errors import BadData


def read_gold(path: Path) -> pl.DataFrame:
    """Read gold from .jsonl, .ndjson, .csv or .parquet: conversation_id and a column a task.

    A column `labels` of {task: gold} stands for its tasks. In JSON a gold may be a list of labels, all of them right.
    """
    try:
        return _with_ids_as_text(path, _read(path))
    except FileNotFoundError as error:
        raise BadData(f"There is no gold file {path}; check the path.") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadData(f"Gold file {path} can't be read as {path.suffix}: {error}; check its format.") from error


def _with_ids_as_text(path: Path, frame: pl.DataFrame) -> pl.DataFrame:
    if "conversation_id" not in frame.columns:
        found = ", ".join(frame.columns) or "no columns"
        raise BadData(f"Gold file {path} has no column conversation_id (it has {found}); add it to every row.")
    if "labels" in frame.columns and isinstance(frame.schema["labels"], pl.Struct):
        frame = frame.select("conversation_id", pl.col("labels").struct.unnest())
    return frame.with_columns(pl.col("conversation_id").cast(pl.String))


def _read(path: Path) -> pl.DataFrame:
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return _from_records(path, _json_lines(path))
        case ".csv":
            return pl.read_csv(path, infer_schema=False)
        case ".parquet" | ".pq":
            return pl.read_parquet(path)
    raise BadData(f"Gold file {path} is neither .jsonl, .ndjson, .csv nor .parquet; convert it to one of these.")


def _json_lines(path: Path) -> Iterable[dict[str, object]]:
    """Read line by line: only a newline ends a line, as texts hold U+2028 and U+0085."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise BadData(f"Gold file {path}, line {number}, is not JSON: {error}; correct that line.") from error
            if not isinstance(record, dict) or not isinstance(record.get("conversation_id"), str | int):
                raise BadData(f"Gold file {path}, line {number}, has no conversation_id; give each line one.")
            yield record


def _from_records(path: Path, records: Iterable[dict[str, object]]) -> pl.DataFrame:
    """Build the columns by hand: within one task gold may be text on one line, a list, a number or null on the next."""
    ids: list[str] = []
    rows: list[dict[str, object]] = []
    for record in records:
        nested = record.get("labels")
        ids.append(str(record["conversation_id"]))
        rows.append(nested if isinstance(nested, dict) else {k: v for k, v in record.items() if k != "conversation_id"})
    if not ids:
        raise BadData(f"Gold file {path} is empty; give a line a conversation.")
    tasks = list(dict.fromkeys(task for row in rows for task in row))
    return pl.DataFrame({"conversation_id": ids} | {task: _column([row.get(task) for row in rows]) for task in tasks})


def _column(values: list[object]) -> pl.Series:
    if any(isinstance(value, list) for value in values):
        lists = [value if isinstance(value, list) else [value] for value in values]
        return pl.Series([[_text(v) for v in inner if v is not None] for inner in lists], dtype=pl.List(pl.String))
    return pl.Series([_text(value) for value in values], dtype=pl.String)


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()
