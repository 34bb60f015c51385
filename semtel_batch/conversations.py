"""The conversations of a job: read from the user's files, made into prompt text, counted, deduplicated and kept.

`ingest` writes them once into a folder of Parquet parts with an index beside it; from then on everybody speaks of rows
of that folder, and a text is read back only where a request is composed.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from semtel_batch import tokens, transcripts
from semtel_batch.errors import BadData, StoreError
from semtel_batch.plans import Sample
from semtel_batch.private import begin_private, make_private_folder
from semtel_batch.pseudonyms import IdHash
from semtel_batch.sampling import Part, drawn_from, sampling_keys
from semtel_batch.sources import Columns, find_files, records

__all__ = ["Columns", "Ingested", "askable", "find_files", "ingest", "iter_parts", "load_index", "load_texts", "read"]

CHUNK_ROWS = 50_000
PART_BYTES = 8 * 2**20  # of text: a few parts at once, in several forms, are what planning takes in memory
_PARTS_KEPT = 8  # while texts are read in turn: packs are formed over neighbours, and so come from a few parts at once
_INDEX = "index.parquet"
_MOST_NARROW = 2**16 - 1
_MOST_ROWS = 2**32 - 1  # a row is 32 bits in the index, manifests and labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """What was read and counted. `lengths` are the tokens of the unique conversations, each in its block."""

    folder: Path
    encoding: str
    n_conversations: int
    n_unique: int
    n_empty: int
    n_parts: int
    lengths: npt.NDArray[np.uint32]
    n_population: int  # conversations of the source; those of a sample are fewer


def read(source: str, columns: Columns | None = None, *, chunk_rows: int = CHUNK_ROWS) -> Iterator[pl.DataFrame]:
    """The conversations of `source` in chunks: `conversation_id` and `text` as it stands in a prompt."""
    for chunk in regrouped(located(Source(source, columns or Columns()), [], chunk_rows), chunk_rows):
        yield chunk.select("conversation_id", "text")


def ingest(  # noqa: PLR0913 - what is read, how, and where it goes: each is a wish of its own
    source: str,
    columns: Columns,
    folder: Path,
    encoding: str,
    *,
    sample: Sample | None = None,
    hash_ids: IdHash | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> Ingested:
    """Write the conversations of `source`, or a sample of them, into `folder`, all or nothing, over what was there.

    `part-NNNNN.parquet` holds row, text and text_hash (128-bit blake2b of the UTF-8 text); `index.parquet` one line a
    conversation: row, conversation_id, first_row (the first row with the same text), n_tokens and n_bytes of its block
    (`<conversation id="1">` … `</conversation>` and a newline; bytes as JSON escapes them), and part. With `hash_ids`,
    no id of the user's is kept.
    """

    def write(draft: Path) -> tuple[pl.DataFrame, int | None]:
        part = _drawn(source, columns, sample, chunk_rows) if sample else None
        index = _write_parts(Source(source, columns, part), draft, encoding, chunk_rows)
        return index, part.n_population if part else None

    return keep(folder, encoding, write, hash_ids)


def keep(
    folder: Path,
    encoding: str,
    write: Callable[[Path], tuple[pl.DataFrame, int | None]],
    hash_ids: IdHash | None = None,
) -> Ingested:
    """Have `write` put parts into a draft of `folder`, and publish it with the index that it gives, or nothing at all.

    `write` also gives how many conversations the source has, if it drew from them.
    """
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        make_private_folder(draft)
        index, n_population = write(draft)
        if hash_ids is not None:
            index = index.with_columns(hash_ids(index["conversation_id"]))
        write_kept(index, draft / _INDEX)
        _publish(draft, folder)
    except OSError as problem:
        raise StoreError(
            f"The conversations can't be kept in {folder} ({problem}); make room or choose another."
        ) from problem
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return _summary(index, folder, encoding, index.height if n_population is None else n_population)


def load_index(folder: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """One line a conversation, as `ingest` wrote it; all columns unless some are named."""
    return _read_kept(folder / _INDEX, columns)


def askable(index: pl.DataFrame) -> pl.DataFrame:
    """The lines of an index that are paid for: each text once, and none that is empty."""
    return index.filter((pl.col("row") == pl.col("first_row")) & (pl.col("n_bytes") > _empty_bytes()))


def load_texts(folder: Path, rows: npt.ArrayLike | pl.Series) -> pl.DataFrame:
    """`row` and `text` of these rows, in this order; only the parts that hold them are read."""
    return _load(folder, rows, "text", pl.String)


def load_hashes(folder: Path, rows: npt.ArrayLike | pl.Series) -> list[bytes]:
    """`text_hash` of these rows, in this order."""
    return _load(folder, rows, "text_hash", pl.Binary)["text_hash"].to_list()


def part_paths(folder: Path) -> list[Path]:
    """The parts of a folder, in order: by number, as names have five digits and numbers may have more."""
    return sorted(folder.glob("part-*.parquet"), key=lambda path: int(path.stem.removeprefix("part-")))


def data_hash(folder: Path) -> str:
    """What tells data apart: blake2b over the hashes of all texts in row order."""
    whole = hashlib.blake2b(digest_size=16)
    for path in part_paths(folder):
        whole.update(b"".join(_read_kept(path, ["text_hash"])["text_hash"].to_list()))
    return whole.hexdigest()


def iter_texts(folder: Path, rows: npt.ArrayLike | pl.Series, ends: Sequence[int]) -> Iterator[pl.Series]:
    """The texts of rows[0:ends[0]], rows[ends[0]:ends[1]] and so on; a part is kept while a later piece needs it."""
    wanted = np.asarray(rows, dtype=np.int64)
    part_ends = _part_ends(folder)
    part_of = np.searchsorted(part_ends, wanted, side="right")
    last_use = dict(
        zip(part_of.tolist(), np.searchsorted(ends, np.arange(len(wanted)), side="right").tolist(), strict=True)
    )
    parts: dict[int, pl.Series] = {}
    for number, (start, end) in enumerate(itertools.pairwise([0, *ends])):
        found = []
        for part in np.unique(part_of[start:end]).tolist():
            if part not in parts:
                parts[part] = _read_kept(folder / part_name(part), ["text"])["text"]
            places = np.flatnonzero(part_of[start:end] == part)
            first = int(part_ends[part - 1]) if part else 0
            texts = parts[part].gather(wanted[start:end][places] - first)
            found.append(pl.DataFrame({"place": places, "text": texts}))
        yield pl.concat(found).sort("place")["text"] if len(found) > 1 else found[0]["text"]
        needed = [part for part in parts if last_use[part] > number]
        parts = {part: parts[part] for part in needed[-_PARTS_KEPT:]}


def prompt_bytes(folder: Path, rows: npt.ArrayLike | pl.Series) -> npt.NDArray[np.int64]:
    """`n_bytes` of these rows, in this order."""
    return _read_kept(folder / _INDEX, ["n_bytes"])["n_bytes"].gather(np.asarray(rows)).cast(pl.Int64).to_numpy()


def _part_ends(folder: Path) -> npt.NDArray[np.uint32]:
    """The row after each part's last."""
    return _read_kept(folder / _INDEX, ["part"])["part"].rle().struct.field("len").cum_sum().to_numpy()


def _load(folder: Path, rows: npt.ArrayLike | pl.Series, column: str, kind: type[pl.DataType]) -> pl.DataFrame:
    wanted = np.asarray(rows, dtype=np.int64)
    ends = _part_ends(folder)
    part_of = np.searchsorted(ends, wanted, side="right")
    found = []
    for part in np.unique(part_of).tolist():
        places = np.flatnonzero(part_of == part)
        first = int(ends[part - 1]) if part else 0
        texts = _read_kept(folder / part_name(part), ["row", column])[wanted[places] - first]
        found.append(texts.with_columns(place=pl.Series(places)))
    if not found:
        return pl.DataFrame(schema={"row": pl.UInt32, column: kind})
    return pl.concat(found).sort("place").drop("place")


def iter_parts(folder: Path) -> Iterator[pl.DataFrame]:
    """`row`, `text` and `text_hash` of all rows, part by part, in order."""
    for path in part_paths(folder):
        yield _read_kept(path)


def _read_kept(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, columns=columns, glob=False)
    except (OSError, pl.exceptions.PolarsError) as problem:
        raise StoreError(f"{path} can't be read ({problem}); plan again to write it anew.") from problem


# ── from the files to parts ─────────────────────────────────────────────────────────────────────────────────────────


def located(source: Source, files: list[Path], chunk_rows: int) -> Iterator[pl.DataFrame]:
    """Rendered conversations with the number of their file, which is added to `files`, and their row in it."""
    for chunk in records(source.path, source.columns, chunk_rows=chunk_rows):
        if not files or files[-1] != chunk.path:
            files.append(chunk.path)
        frame, rows = chunk.frame, pl.Series(chunk.rows, dtype=pl.UInt32)
        if source.part is not None:
            chosen = source.part.holds(sampling_keys(frame["conversation_id"], source.part.seed))
            frame, rows = frame.filter(chosen), rows.filter(chosen)
        yield pl.DataFrame(
            {
                "conversation_id": frame["conversation_id"].str.replace_all("\0", "\ufffd", literal=True),
                "text": transcripts.render(frame),
                "file": pl.repeat(len(files) - 1, frame.height, dtype=pl.UInt32, eager=True),
                "file_row": rows,
            }
        )


@dataclass(frozen=True, slots=True)
class Source:
    path: str
    columns: Columns
    part: Part | None = None


def _drawn(source: str, columns: Columns, sample: Sample, chunk_rows: int) -> Part:
    """Find where a sample begins and ends in its random order: all ids are read once, and kept as numbers only."""
    return drawn_from(keys_of_source(source, columns, sample.seed, chunk_rows), sample, source)


def keys_of_source(source: str, columns: Columns, seed: int, chunk_rows: int = CHUNK_ROWS) -> npt.NDArray[np.uint64]:
    """The sampling key of every conversation of a source, in the order of its rows."""
    read = [sampling_keys(c.frame["conversation_id"], seed) for c in records(source, columns, chunk_rows=chunk_rows)]
    return np.concatenate(read) if read else np.empty(0, np.uint64)


def regrouped(frames: Iterable[pl.DataFrame], chunk_rows: int) -> Iterator[pl.DataFrame]:
    """The same rows in frames of `chunk_rows`, or of fewer when their text is long; the last may be smaller."""
    held: list[pl.DataFrame] = []
    n_rows = n_bytes = 0
    for frame in frames:
        rest = frame
        while rest.height:
            piece, rest = rest[: chunk_rows - n_rows], rest[chunk_rows - n_rows :]
            held.append(piece)
            n_rows += piece.height
            n_bytes += int(piece["text"].str.len_bytes().sum())
            if n_rows == chunk_rows or n_bytes >= PART_BYTES:
                yield pl.concat(held)
                held, n_rows, n_bytes = [], 0, 0
    if held:
        yield pl.concat(held)


def _write_parts(source: Source, draft: Path, encoding: str, chunk_rows: int) -> pl.DataFrame:
    """Count and write each part while the next is read, and make the index."""
    files: list[Path] = []
    lines: list[Future[pl.DataFrame]] = []
    n_rows = 0
    with ThreadPoolExecutor(1) as worker:
        for number, part in enumerate(regrouped(located(source, files, chunk_rows), chunk_rows)):
            if lines:
                lines[-1].result()  # one part waits at most: that bounds the memory, and an error ends it here
            check_rows(n_rows + part.height, source.path)
            lines.append(worker.submit(_keep, part, n_rows, number, draft, encoding))
            n_rows += part.height
    if not lines:
        raise BadData(f"'{source.path}' holds no conversation; check the path and the files.")
    index = pl.concat([line.result() for line in lines])
    return indexed(index, files)


def indexed(lines: pl.DataFrame, files: list[Path]) -> pl.DataFrame:
    """The index from counted lines in row order, those of all parts. Raises BadData for an id that is there twice.

    `part` takes four bytes a line instead of two where there are more than 65,536 parts.
    """
    _check_unique(lines, files)
    kind: type[pl.DataType] = pl.UInt16 if lines["part"][-1] <= _MOST_NARROW else pl.UInt32
    first_row = pl.col("row").min().over("text_hash").alias("first_row")
    return lines.select("row", "conversation_id", first_row, "n_tokens", "n_bytes", pl.col("part").cast(kind))


def check_rows(n_rows: int, source: str) -> None:
    """Raise BadData for more conversations than a plan numbers."""
    if n_rows > _MOST_ROWS:
        raise BadData(
            f"'{source}' holds more than {_MOST_ROWS:,} conversations, which is what a plan can number; "
            "divide its files among several plans."
        )


def _keep(part: pl.DataFrame, first_row: int, number: int, draft: Path, encoding: str) -> pl.DataFrame:
    """Count a part, write its texts, and return its lines of the index."""
    counted = measured(part, encoding).with_columns(
        pl.int_range(first_row, first_row + part.height, dtype=pl.UInt32, eager=True).alias("row"),
        pl.lit(number, pl.UInt32).alias("part"),
    )
    write_kept(counted.select("row", "text", "text_hash"), draft / part_name(number))
    return counted.drop("text")


def measured(part: pl.DataFrame, encoding: str) -> pl.DataFrame:
    """Rendered conversations with `text_hash`, and `n_tokens` and `n_bytes` of their blocks."""
    listed = transcripts.blocks(part["text"]).to_list()
    return part.with_columns(
        text_hashes(part["text"]).alias("text_hash"),
        pl.Series("n_tokens", tokens.count(listed, encoding)),
        pl.Series("n_bytes", json_bytes(listed)),
    )


def json_bytes(texts: list[str]) -> npt.NDArray[np.uint32]:
    """The length of each text inside a JSON string. Serialising is faster than counting what must be escaped."""
    lengths = np.fromiter((len(orjson.dumps(text)) for text in texts), dtype=np.uint32, count=len(texts))
    return lengths - np.uint32(len('""'))


def text_hashes(texts: pl.Series) -> pl.Series:
    """128-bit blake2b of each UTF-8 text: the same on every machine and in every version, unlike Polars' own hash."""
    digests = [hashlib.blake2b(text, digest_size=16).digest() for text in texts.cast(pl.Binary).to_list()]
    return pl.Series(texts.name, digests, dtype=pl.Binary)


def _check_unique(index: pl.DataFrame, files: list[Path]) -> None:
    doubled = index.filter(pl.col("conversation_id").is_duplicated())
    if not doubled.height:
        return
    named = doubled["conversation_id"][0]
    places = doubled.filter(pl.col("conversation_id") == named)[:3]
    rows = [f"{files[file]}, row {row}" for file, row in places.select("file", "file_row").iter_rows()]
    n_ids = doubled["conversation_id"].n_unique()
    more = f", and {n_ids - 1} more ids are" if n_ids > 1 else " is"
    raise BadData(f"Id {named!r}{more} there more than once ({'; '.join(rows)}); give every conversation its own id.")


# ── the folder ──────────────────────────────────────────────────────────────────────────────────────────────────────


def part_name(number: int) -> str:
    """What the part of this number is called; the index has it as `part`."""
    return f"part-{number:05d}.parquet"


def write_kept(frame: pl.DataFrame, path: Path) -> None:
    """Write a file of the folder durably, for its owner alone."""
    begin_private(path)
    frame.write_parquet(path, compression="zstd", compression_level=1, statistics=False)
    _sync(path)


def _publish(draft: Path, folder: Path) -> None:
    """Put a finished draft in its place; until then nothing is seen of it."""
    _sync(draft)
    if folder.exists():
        folder.rename(draft.with_name(draft.name + ".old"))
    draft.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(draft.with_name(draft.name + ".old"), ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _empty_bytes() -> int:
    """The `n_bytes` of a conversation without a word."""
    return int(json_bytes(transcripts.blocks(pl.Series([""])).to_list())[0])


def _summary(index: pl.DataFrame, folder: Path, encoding: str, n_population: int) -> Ingested:
    unique = index.filter(pl.col("row") == pl.col("first_row"))
    return Ingested(
        folder=folder,
        encoding=encoding,
        n_conversations=index.height,
        n_unique=unique.height,
        n_empty=int((index["n_bytes"] == _empty_bytes()).sum()),
        n_parts=int(index["part"][-1]) + 1,
        lengths=unique["n_tokens"].to_numpy(),
        n_population=n_population,
    )
