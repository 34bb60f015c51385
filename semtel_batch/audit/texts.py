"""A plan's conversations against their index: hashes, tokens and bytes counted again, part by part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch import tokens, transcripts
from semtel_batch.audit.findings import Tell, broken, compare, expect_none
from semtel_batch.conversations import askable, json_bytes, text_hashes
from semtel_batch.errors import SemtelError
from semtel_batch.parts import with_later
from semtel_batch.plans import Plan

INDEX = pl.Schema(
    {
        "row": pl.UInt32,
        "conversation_id": pl.String,
        "first_row": pl.UInt32,
        "n_tokens": pl.UInt32,
        "n_bytes": pl.UInt32,
        "part": pl.UInt16,
    }
)
WIDE_INDEX = pl.Schema({**INDEX, "part": pl.UInt32()})
"""Of a plan of more than 65,536 parts."""
TEXTS = pl.Schema({"row": pl.UInt32, "text": pl.String, "text_hash": pl.Binary})

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What the rest of an audit needs of a plan's conversations: 24 bytes each."""

    n_rows: int
    n_parts: int
    unique: Mask  # the first row of each text
    asked: Mask  # …that has something to classify
    n_tokens: npt.NDArray[np.uint32]
    hashes: npt.NDArray[np.uint8]  # of the texts as they are, not as they are said to be
    known: Mask  # whether the text could be read

    def hash_of(self, row: int) -> bytes:
        return bytes(self.hashes[row])


def name_of(path: Path) -> str:
    """A file with its folder, which tells answers from labels."""
    return f"{path.parent.name}/{path.name}"


def read_frame(path: Path, schema: pl.Schema, tell: Tell) -> pl.DataFrame | None:
    """A Parquet file of this schema; None, and told, if it is gone, torn or of another one."""
    try:
        frame = with_later(pl.read_parquet(path, glob=False), schema)
    except FileNotFoundError:
        broken(tell, name_of(path), "the file is gone", "a file", path)
        return None
    except (OSError, pl.exceptions.PolarsError) as error:
        broken(tell, name_of(path), "the file can't be read", "a whole Parquet file", error)
        return None
    if frame.schema != schema and not (schema == INDEX and frame.schema == WIDE_INDEX):
        broken(tell, name_of(path), "the file has other columns", dict(schema), dict(frame.schema))
        return None
    return frame


def read_texts(plan: Plan, folder: Path, tell: Tell) -> Texts | None:
    """Check a plan's conversations; None if the index says too little to go on with."""
    index = read_frame(folder / "index.parquet", INDEX, tell)
    if index is None or not _is_numbered(index, tell):
        return None
    texts = Texts(
        n_rows=index.height,
        n_parts=int(index["part"][-1]) + 1,
        unique=(index["row"] == index["first_row"]).to_numpy(),
        asked=np.isin(np.arange(index.height), askable(index)["row"].to_numpy()),
        n_tokens=index["n_tokens"].to_numpy(),
        hashes=np.zeros((index.height, 16), dtype=np.uint8),
        known=np.zeros(index.height, dtype=np.bool_),
    )
    for lines in index.partition_by("part", maintain_order=True):
        _check_part(lines, plan.data.encoding, folder, texts, tell)
    _check_first_rows(index, texts, tell)
    _check_profile(plan, index, tell)
    return texts


def _is_numbered(index: pl.DataFrame, tell: Tell) -> bool:
    """Whether rows are 0, 1, 2 … and lie in parts 0, 1, 2 …: without that nothing can be found by its row."""
    numbered = index.height > 0 and bool((index["row"] == pl.int_range(index.height, eager=True)).all())
    steps = index["part"].cast(pl.Int64).diff(null_behavior="drop")
    in_parts = index.height > 0 and index["part"][0] == 0 and bool(steps.is_in([0, 1]).all())
    if not numbered or not in_parts:
        broken(tell, "index.parquet", "rows are not numbered", f"0 … {index.height - 1} in parts 0, 1 …", "others")
    ids = index["conversation_id"]
    compare(
        tell,
        "index.parquet",
        "conversation_id is missing or there twice",
        0,
        int((ids.is_duplicated() | ids.is_null()).sum()),
    )
    return numbered and in_parts


def _check_part(lines: pl.DataFrame, encoding: str, folder: Path, texts: Texts, tell: Tell) -> None:
    name = f"part-{lines['part'][0]:05d}.parquet"
    part = read_frame(folder / name, TEXTS, tell)
    if part is None:
        return
    compare(tell, name, "texts that are missing", 0, part["text"].null_count())
    if not part["row"].equals(lines["row"]):
        broken(tell, name, "rows are not those of the index", _span(lines["row"]), _span(part["row"]))
        return
    part = part.with_columns(pl.col("text").fill_null(""))
    hashes = text_hashes(part["text"])
    rows = part["row"].to_numpy()
    texts.hashes[rows] = np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, 16)
    texts.known[rows] = True
    _compare_rows(tell, name, "text_hash is not the hash of the text", rows, (hashes != part["text_hash"]).to_numpy())
    listed = transcripts.blocks(part["text"]).to_list()
    n_tokens, n_bytes = _counted(listed, encoding, name, tell), json_bytes(listed)
    if n_tokens is not None:
        wrong = lines["n_tokens"].to_numpy() != n_tokens
        _compare_rows(tell, name, "n_tokens is not what counting gives", rows, wrong)
    _compare_rows(tell, name, "n_bytes is not the size of the text", rows, lines["n_bytes"].to_numpy() != n_bytes)


def _counted(listed: list[str], encoding: str, name: str, tell: Tell) -> tokens.Counts | None:
    try:
        return tokens.count(listed, encoding)
    except SemtelError as error:
        broken(tell, name, "tokens can't be counted", encoding, error)
        return None


def _compare_rows(tell: Tell, which: str, what: str, rows: npt.NDArray[np.uint32], wrong: Mask) -> None:
    expect_none(tell, which, what, [f"row {row}" for row in rows[wrong].tolist()])


def _span(rows: pl.Series) -> str:
    return f"{rows.len()} rows, {rows.min()!r} … {rows.max()!r}"


def _check_first_rows(index: pl.DataFrame, texts: Texts, tell: Tell) -> None:
    if not texts.known.all():
        return
    halves = np.ascontiguousarray(texts.hashes).view("<u8")
    frame = index.select("row", "first_row").with_columns(a=pl.Series(halves[:, 0]), b=pl.Series(halves[:, 1]))
    wrong = frame.filter(pl.col("row").min().over("a", "b") != pl.col("first_row"))["row"]
    expect_none(
        tell, "index.parquet", "first_row is not the first with the text", [f"row {row}" for row in wrong.to_list()]
    )


def _check_profile(plan: Plan, index: pl.DataFrame, tell: Tell) -> None:
    paid, data = askable(index), plan.data
    compare(tell, plan.id, "conversations planned for", data.n_conversations, index.height)
    compare(tell, plan.id, "unique conversations planned for", data.n_unique, paid.height)
    compare(tell, plan.id, "tokens planned for", data.text_tokens, int(paid["n_tokens"].cast(pl.Int64).sum()))
    compare(tell, plan.id, "tokens of the longest conversation", data.max_tokens, paid["n_tokens"].max())
