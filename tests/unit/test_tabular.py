"""Tables to files: by their ending, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from semtel_batch.errors import BadInput
from semtel_batch.tabular import write_table

TABLE = pl.DataFrame({"conversation_id": ["a,1", 'b"2', "c\u20283"], "topic": ["Travel", None, "línea\ndos"]})
READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".csv": pl.read_csv,
    ".ndjson": pl.read_ndjson,
    ".jsonl": pl.read_ndjson,
    ".CSV": pl.read_csv,
}


@pytest.mark.parametrize("ending", READERS)
def test_what_is_written_is_read_back(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"labels{ending}"
    path.write_bytes(b"what was there before")
    write_table(TABLE, path)
    assert READERS[ending](path).equals(TABLE)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["labels", "labels.xlsx", "labels.parquet.gz"])
def test_an_unknown_ending_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=r"\.parquet, \.csv, \.ndjson"):
        write_table(TABLE, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".ndjson"])
def test_a_place_that_can_not_be_written_is_named(tmp_path: Path, ending: str) -> None:
    with pytest.raises(BadInput, match="choose another place"):
        write_table(TABLE, tmp_path / "nowhere" / f"labels{ending}")
    (tmp_path / f"taken{ending}").mkdir()
    with pytest.raises(BadInput, match="choose another place"):
        write_table(TABLE, tmp_path / f"taken{ending}")
    assert [p.name for p in tmp_path.iterdir()] == [f"taken{ending}"]
