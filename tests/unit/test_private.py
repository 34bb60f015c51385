"""What holds conversations is for its owner alone, under the loosest umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from semtel_batch.conversations import Columns, ingest
from semtel_batch.parts import MANIFEST, write_part
from semtel_batch.private import begin_private, is_private, make_private, make_private_folder
from semtel_batch.store import Store, store_path


@pytest.fixture(autouse=True)
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes(folder: Path) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {"files": set(), "folders": {mode(folder)}}
    for path in folder.rglob("*"):
        found["files" if path.is_file() else "folders"].add(mode(path))
    return found


def test_all_that_a_project_remembers_is_private(tmp_path: Path) -> None:
    source = tmp_path / "data.jsonl"
    source.write_text('{"conversation_id": "a", "text": "user: hi"}\n')
    store = Store(tmp_path)
    files = store.files("abc")
    ingest(str(source), Columns(), files / "conversations", "o200k_base")
    write_part(files / "labels" / "x.parquet", MANIFEST.to_frame(), MANIFEST)
    assert store.plan_rows() == []  # a read, so that -wal and -shm are there
    assert modes(tmp_path / "state") == {"files": {0o600}, "folders": {0o700}}
    assert is_private(store_path(tmp_path))
    store.close()


def test_what_writes_into_a_private_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_text("an old one, for everybody")
    assert not is_private(path)
    begin_private(path)
    assert path.read_bytes() == b""
    pl.DataFrame({"a": [1]}).write_parquet(path)
    assert mode(path) == 0o600


def test_what_is_there_is_left_as_its_owner_made_it(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir(mode=0o755)
    make_private_folder(there / "a" / "b")
    assert [mode(path) for path in (there, there / "a", there / "a" / "b")] == [0o755, 0o700, 0o700]
    full = tmp_path / "full"
    full.write_text("rows")
    make_private(full)
    assert full.read_text() == "rows"
