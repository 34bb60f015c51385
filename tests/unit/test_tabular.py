"""Tables to files: by their ending, whole or not at all."""

from __future__ import annotations

import csv
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
    with pytest.raises(BadInput, match="make it first"):
        write_table(TABLE, tmp_path / "nowhere" / f"labels{ending}")
    (tmp_path / f"taken{ending}").mkdir()
    with pytest.raises(BadInput, match="choose another place"):
        write_table(TABLE, tmp_path / f"taken{ending}")
    assert [p.name for p in tmp_path.iterdir()] == [f"taken{ending}"]


def test_what_a_spreadsheet_would_run_is_text_in_a_csv_and_itself_elsewhere(tmp_path: Path) -> None:
    bad = ["=1+1", "@SUM(A1)", "+1+cmd|' /C calc'!A0", "-2+3", "\t=1", "\r=1", "\n=1", "＝1", "-", '=HYPERLINK("x")']
    good = ["-12.5", "+4917012345", "-1e5", "a=b", "", "-5%", "plain", "user@example.com"]
    table = pl.DataFrame({"conversation_id": [*bad, *good], "n": range(len(bad) + len(good))})
    assert write_table(table, tmp_path / "x.csv") == len(bad)
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        read = [row[0] for row in csv.reader(file)][1:]
    assert read == [*(f"'{cell}" for cell in bad), *good]
    assert write_table(table, tmp_path / "raw.csv", raw=True) == 0
    assert (tmp_path / "raw.csv").read_text().splitlines()[1].startswith("=1+1")
    assert write_table(table, tmp_path / "x.parquet") == 0
    assert pl.read_parquet(tmp_path / "x.parquet")["conversation_id"].to_list() == [*bad, *good]
