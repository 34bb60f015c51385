"""Parts: written whole or not at all, and named when they can't be read."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from semtel_batch.errors import StoreError
from semtel_batch.parts import ANSWERS, LABELS, MANIFEST, read_parts, write_part

ROWS = pl.DataFrame({"row": [7, 8], "slot": [1, 2], "request": [0, 0]})


def test_a_part_has_the_schemas_columns_and_types_whatever_it_was_made_from(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.parquet"
    write_part(path, ROWS.with_columns(more=pl.lit("ignored")), MANIFEST)
    read = pl.read_parquet(path)
    assert read.schema == MANIFEST
    assert read.rows() == [(0, 1, 7), (0, 2, 8)]
    assert [p.name for p in path.parent.iterdir()] == ["a.parquet"]


def test_several_parts_are_read_as_one_in_their_order(tmp_path: Path) -> None:
    for name, row in (("b", 1), ("a", 2)):
        write_part(tmp_path / f"{name}.parquet", ROWS[:1].with_columns(row=pl.lit(row)), MANIFEST)
    read = read_parts([tmp_path / "b.parquet", tmp_path / "a.parquet"], MANIFEST)
    assert read["row"].to_list() == [1, 2]


@pytest.mark.parametrize("schema", [MANIFEST, ANSWERS, LABELS])
def test_no_parts_are_an_empty_frame(schema: pl.Schema) -> None:
    assert read_parts([], schema).schema == schema
    assert read_parts([], schema).height == 0


def test_odd_names_are_paths_and_not_patterns(tmp_path: Path) -> None:
    path = tmp_path / "a[1]*.parquet"
    write_part(path, ROWS, MANIFEST)
    assert read_parts([path], MANIFEST).height == 2


def test_a_lost_or_torn_part_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(StoreError, match=r"a\.parquet can't be read"):
        read_parts([path], MANIFEST)
    write_part(path, ROWS, MANIFEST)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match=r"a\.parquet can't be read"):
        read_parts([path], MANIFEST)


def test_a_value_that_does_not_fit_is_not_cut_silently(tmp_path: Path) -> None:
    with pytest.raises(pl.exceptions.InvalidOperationError):
        write_part(tmp_path / "a.parquet", ROWS.with_columns(slot=pl.lit(70_000)), MANIFEST)
    assert not (tmp_path / "a.parquet").exists()


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    write_part(path, ROWS, MANIFEST)
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"No space left on device\); free the disk"):
        write_part(path, ROWS[:1], MANIFEST)
    assert path.read_bytes() == before


def test_a_name_is_given_only_to_what_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync of the file, then the rename, then fsync of the folder."""
    steps: list[object] = []
    fsync, replace = os.fsync, Path.replace

    def seen_fsync(descriptor: int) -> None:
        steps.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def seen_replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(Path, "replace", seen_replace)
    write_part(tmp_path / "a.parquet", ROWS, MANIFEST)
    assert steps == [(tmp_path / "a.parquet").stat().st_ino, "rename", tmp_path.stat().st_ino]
