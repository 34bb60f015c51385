"""Where conversations come from: parquet, ndjson and csv files, read in chunks as rows of id, turns and text.

The fast way is always Polars over a whole block. Only when it refuses a block is that block read again row by row, to
name the row that is wrong, or to accept what is odd but legal: lone surrogates, raw control characters.
"""

from __future__ import annotations

import csv
import glob
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch.errors import BadConfig, BadData

Rows = npt.NDArray[np.int64]

FORMATS = {".parquet": "parquet", ".jsonl": "ndjson", ".ndjson": "ndjson", ".csv": "csv"}
BLOCK_BYTES = 4 * 2**20  # larger ones are no faster, and some ten times as much is held while one is read
BATCH_ROWS = 2_048  # of parquet and csv: even of long meetings some 300 MB at most
Schema = dict[str, pl.DataType | type[pl.DataType]]
TURNS = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
SCHEMA: Schema = {"conversation_id": pl.String, "turns": TURNS, "text": pl.String}
_UNREADABLE = (pl.exceptions.PolarsError, OSError, EOFError, zlib.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """What the user's columns, and the fields of a turn, are called."""

    conversation_id: str = "conversation_id"
    turns: str = "turns"
    text: str = "text"
    role: str = "role"
    content: str = "content"

    def __post_init__(self) -> None:
        if len({self.conversation_id, self.turns, self.text}) < 3 or self.role == self.content:
            raise BadConfig(f"Two of [columns] have the same name ({', '.join(astuple(self))}); give each its own.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Rows of one file as they came. `rows` is where each stands: the line of ndjson, else the data row, from 1."""

    path: Path
    rows: Rows
    frame: pl.DataFrame  # of SCHEMA

    def problem(self, bad: pl.Series, what: str) -> BadData:
        """The error that names the first few rows where `bad` is true."""
        numbers = self.rows[bad.to_numpy()]
        named = ", ".join(str(number) for number in numbers[:3]) + (" …" if numbers.size > 3 else "")
        return BadData(f"{self.path}, row {named}: {what}")


def find_files(source: str) -> tuple[Path, ...]:
    """The files that a path, a folder or a glob stands for, sorted; all of one format."""
    if "://" in source:
        raise BadData(f"'{source}' is an address, which Spark reads: give --engine spark, or files of this machine.")
    if is_delta(source):
        raise BadData(
            f"'{source}' is a Delta table, whose files also hold rows that were deleted: give --engine spark, "
            "with Delta's package."
        )
    if Path(source).is_file():
        files = [Path(source)]
    elif Path(source).is_dir():
        files = [path for path in Path(source).rglob("*") if _is_data(path.relative_to(source)) and path.is_file()]
    else:
        matches = glob.glob(source, recursive=True)  # noqa: PTH207  Path.glob takes no absolute pattern
        files = [path for path in map(Path, matches) if path.is_file()]
    if not files:
        raise BadData(f"'{source}' matches no parquet, ndjson, jsonl or csv file; check the path.")
    formats = {format_of(path) for path in files}
    if len(formats) > 1:
        raise BadData(f"'{source}' holds files of several formats ({', '.join(sorted(formats))}); name one as a glob.")
    return tuple(sorted(files))


def is_delta(source: str) -> bool:
    """Whether a folder of this machine is a Delta table."""
    return (Path(source) / "_delta_log").is_dir()


def _is_data(inside: Path) -> bool:
    """Spark leaves `_SUCCESS` and `.crc` files, and `_temporary` folders, beside its data."""
    return _suffix(inside) in FORMATS and not any(part.startswith((".", "_")) for part in inside.parts)


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def format_of(path: Path) -> str:
    kind = FORMATS.get(_suffix(path))
    if kind is None or (kind != "ndjson" and path.name.lower().endswith(".gz")):
        raise BadData(f"{path} is not a .parquet, .ndjson, .jsonl, .ndjson.gz, .jsonl.gz or .csv file; convert it.")
    return kind


def records(source: str, columns: Columns, *, chunk_rows: int) -> Iterator[Records]:
    """All rows of all files, in order, checked for what a row must have; a chunk never spans files."""
    readers = {"ndjson": _read_ndjson, "parquet": _read_parquet, "csv": _read_csv}
    for path in find_files(source):
        try:
            for chunk in readers[format_of(path)](path, columns, chunk_rows):
                _check(chunk, columns)
                yield chunk
        except _UNREADABLE as problem:
            reason = str(problem).strip().partition("\n")[0]
            raise BadData(f"{path} can't be read ({reason}); check that it is whole and allowed to you.") from problem


def _check(chunk: Records, columns: Columns) -> None:
    ids = chunk.frame["conversation_id"]
    without_id = ids.is_null() | (ids == "")
    if without_id.any():
        raise chunk.problem(without_id, f"'{columns.conversation_id}' is missing or empty; give every row an id.")
    # A list.eval is far cheaper than exploding the turns.
    no_role = chunk.frame["turns"].list.eval(pl.element().struct.field("role").is_null()).list.any().fill_null(False)
    if no_role.any():
        raise chunk.problem(no_role, f"a turn has no '{columns.role}'; give every turn a role and a content.")


def check_columns(where: Path | str, found: list[str], columns: Columns) -> None:
    """Raise BadData unless the id and what was said are among the columns found."""
    has_conversation = columns.turns in found or columns.text in found
    if columns.conversation_id in found and has_conversation:
        return
    lacking = f"'{columns.turns}' or '{columns.text}'" if not has_conversation else f"'{columns.conversation_id}'"
    raise BadData(
        f"{where} has no column {lacking}, only {', '.join(map(repr, found[:12])) or 'none'}; "
        "say in [columns] of semtel.toml which is which."
    )


# ── ndjson ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_ndjson(path: Path, columns: Columns, chunk_rows: int) -> Iterator[Records]:
    first_line = 1
    seen_columns = False
    for block in _blocks(path):
        n_lines = block.count(b"\n") + (not block.endswith(b"\n"))
        chunk = _parsed(path, block, range(first_line, first_line + n_lines), columns)
        first_line += n_lines
        if chunk.frame.height and not seen_columns:
            check_columns(path, _keys(block, chunk.frame, columns), columns)
            seen_columns = True
        for start in range(0, chunk.frame.height, chunk_rows):
            stop = start + chunk_rows
            yield Records(path=path, rows=chunk.rows[start:stop], frame=chunk.frame[start:stop])


def _blocks(path: Path) -> Iterator[bytes]:
    """Whole lines, some 4 MiB at a time. Only b"\\n" ends a line: texts hold U+2028 and U+0085."""
    with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as file:
        block = file.read(BLOCK_BYTES).removeprefix(b"\xef\xbb\xbf")
        while block:
            yield block if block.endswith(b"\n") else block + file.readline()
            block = file.read(BLOCK_BYTES)


def _keys(block: bytes, frame: pl.DataFrame, columns: Columns) -> list[str]:
    """The columns of a block: those with a value, and those of its first row."""
    first = next(line for line in block.split(b"\n") if line.strip())
    names = [getattr(columns, name) for name in SCHEMA if frame[name].null_count() < frame.height]
    try:
        return list(dict.fromkeys([*json.loads(first, strict=False), *names]))
    except RecursionError:  # Polars reads what is nested more deeply
        return names


def _parsed(path: Path, block: bytes, lines: range, columns: Columns) -> Records:
    turn = pl.Struct({columns.role: pl.String, columns.content: pl.String})
    schema: Schema = {columns.conversation_id: pl.String, columns.turns: pl.List(turn), columns.text: pl.String}
    frame = _decoded_lines(block, schema)
    if frame is None:
        try:
            frame = pl.read_ndjson(io.BytesIO(block), schema=schema)
        except pl.exceptions.PolarsError:
            return _parsed_by_line(path, block, lines, columns)
    frame.columns = list(SCHEMA)
    if (columns.role, columns.content) != ("role", "content"):
        renamed = pl.col("turns").list.eval(pl.element().struct.rename_fields(["role", "content"]))
        frame = frame.with_columns(renamed)
    return Records(path=path, rows=_line_numbers(block, frame.height, lines), frame=frame)


def _decoded_lines(block: bytes, schema: Schema) -> pl.DataFrame | None:
    """What `read_ndjson` reads, in half its time; None where a value is of another type than it is asked for."""
    try:
        written = [line for line in block.decode().split("\n") if line and not line.isspace()]
        rows = pl.Series(written, dtype=pl.String).str.json_decode(pl.Struct(schema))
    except (UnicodeDecodeError, pl.exceptions.PolarsError):
        return None
    return None if rows.has_nulls() else rows.struct.unnest()  # a bare `null` is no row


def _line_numbers(block: bytes, n_rows: int, lines: range) -> Rows:
    if len(lines) == n_rows:
        return np.arange(lines.start, lines.stop)
    written = [number for number, line in enumerate(block.split(b"\n"), lines.start) if line.strip()]
    return np.array(written, dtype=np.int64)


def _parsed_by_line(path: Path, block: bytes, lines: range, columns: Columns) -> Records:
    rows, numbers = [], []
    for number, line in enumerate(block.split(b"\n"), lines.start):
        if not line.strip():
            continue
        try:
            rows.append(_row(json.loads(line.decode(), strict=False), columns))
        except UnicodeDecodeError:
            raise BadData(f"{path}, row {number}: it is not UTF-8; save the file in that encoding.") from None
        except json.JSONDecodeError as problem:
            raise BadData(
                f"{path}, row {number}: it is not JSON ({problem.msg} at character {problem.pos + 1}); "
                "write one object a line."
            ) from None
        except (ValueError, RecursionError) as problem:
            raise BadData(f"{path}, row {number}: {_reason(problem)}.") from None
        numbers.append(number)
    return Records(path=path, rows=np.array(numbers, np.int64), frame=pl.DataFrame(rows, schema=SCHEMA, orient="row"))


def _reason(problem: Exception) -> str:
    return "it is nested too deeply; flatten it" if isinstance(problem, RecursionError) else str(problem)


def _row(value: Any, columns: Columns) -> tuple[str | None, list[dict[str, str | None]] | None, str | None]:
    if not isinstance(value, dict):
        raise ValueError(f"it is a JSON {type(value).__name__}; write one object a line")
    return (
        _string(value.get(columns.conversation_id)),
        _turns(value.get(columns.turns), columns),
        _string(value.get(columns.text)),
    )


def _turns(value: Any, columns: Columns) -> list[dict[str, str | None]] | None:
    if isinstance(value, str):
        try:
            value = json.loads(value, strict=False)
        except json.JSONDecodeError:
            raise ValueError(f"'{columns.turns}' is a text that is not JSON; map it to `text` if it is one") from None
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise ValueError(f"'{columns.turns}' is not a list of {{{columns.role}, {columns.content}}}; convert it")
    return [{"role": _string(turn.get(columns.role)), "content": _string(turn.get(columns.content))} for turn in value]


def _string(value: Any) -> str | None:
    """A scalar or a nested value as Polars reads it into a string column; lone surrogates become U+FFFD."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# ── parquet and csv ─────────────────────────────────────────────────────────────────────────────────────────────────


def _read_parquet(path: Path, columns: Columns, chunk_rows: int) -> Iterator[Records]:
    yield from _scanned(path, pl.scan_parquet(path, glob=False), columns, chunk_rows)


def _read_csv(path: Path, columns: Columns, chunk_rows: int) -> Iterator[Records]:
    try:
        if path.stat().st_size:
            yield from _scanned(path, pl.scan_csv(path, infer_schema=False, glob=False), columns, chunk_rows)
    except pl.exceptions.PolarsError as problem:
        if found := _bad_csv_row(path):
            raise BadData(f"{path}, {found}.") from problem
        raise


def _scanned(path: Path, scan: pl.LazyFrame, columns: Columns, chunk_rows: int) -> Iterator[Records]:
    found = scan.collect_schema()
    check_columns(path, found.names(), columns)
    present = {name: getattr(columns, name) for name in SCHEMA if getattr(columns, name) in found}
    selected = scan.select(pl.col(theirs).alias(ours) for ours, theirs in present.items())
    first = 1
    for batch in selected.collect_batches(chunk_size=min(chunk_rows, BATCH_ROWS), maintain_order=True):
        rows = np.arange(first, first + batch.height)
        first += batch.height
        yield Records(path=path, rows=rows, frame=_conformed(path, batch, rows, columns))


def _conformed(path: Path, batch: pl.DataFrame, rows: Rows, columns: Columns) -> pl.DataFrame:
    """A batch in SCHEMA, whatever types its columns came in."""
    turns = batch["turns"] if "turns" in batch.columns else pl.Series("turns", [None] * batch.height, dtype=TURNS)
    if turns.dtype == pl.String:
        turns = _decoded(path, turns, rows, columns)
    elif turns.dtype != TURNS:
        turns = _cast_turns(path, turns, columns)
    text = pl.col("text").cast(pl.String) if "text" in batch.columns else pl.lit(None, pl.String).alias("text")
    return batch.select(pl.col("conversation_id").cast(pl.String), turns.alias("turns"), text)


def _cast_turns(path: Path, turns: pl.Series, columns: Columns) -> pl.Series:
    turns = turns.arr.to_list() if isinstance(turns.dtype, pl.Array) else turns
    inner = turns.dtype.inner if isinstance(turns.dtype, pl.List) else None
    names = [field.name for field in inner.fields] if isinstance(inner, pl.Struct) else []
    if turns.dtype == pl.Null:
        return turns.cast(TURNS)
    if columns.role not in names or columns.content not in names:
        raise BadData(
            f"{path}: '{columns.turns}' is a {turns.dtype}, not a list of {{{columns.role}, {columns.content}}}; "
            "convert it, or say in [columns] of semtel.toml which field is which."
        )
    field = pl.element().struct.field
    turn = pl.struct(
        field(columns.role).cast(pl.String).alias("role"), field(columns.content).cast(pl.String).alias("content")
    )
    return turns.list.eval(turn)


def _decoded(path: Path, turns: pl.Series, rows: Rows, columns: Columns) -> pl.Series:
    """Turns that came as a JSON list in a text column."""
    decoded = []
    for number, value in zip(rows.tolist(), turns.to_list(), strict=True):
        try:
            decoded.append(_turns(value, columns))
        except (ValueError, RecursionError) as problem:
            raise BadData(f"{path}, row {number}: {_reason(problem)}.") from None
    return pl.Series("turns", decoded, dtype=TURNS)


def _bad_csv_row(path: Path) -> str | None:
    """The first row that is not UTF-8 or has more fields than the header; Polars does not say which."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        for number, fields in enumerate(reader, 1):
            if any("\udc80" <= character <= "\udcff" for field in fields for character in field):
                return f"row {number}: it is not UTF-8; save the file in that encoding"
            if len(fields) > len(header):
                return f"row {number}: it has {len(fields)} fields where the header has {len(header)}; quote the text"
    return None
