"""Migrations: what they make is what tables.py says, and a store is never left between two versions."""

from __future__ import annotations

import hashlib
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from semtel_batch import tables
from semtel_batch.database import connect, prepare
from semtel_batch.errors import StoreError
from semtel_batch.migrate import known_migrations, migrate, version_of
from semtel_batch.store import Store, store_path


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        yield database


def columns(database: sqlite3.Connection, table: str) -> list[tuple[object, ...]]:
    """name, type, not null, default, place in the primary key"""
    return [tuple(row[1:]) for row in database.execute(f"PRAGMA table_info({table})")]


def indexes(database: sqlite3.Connection, table: str) -> set[tuple[object, ...]]:
    """(name where it has one of its own, unique, origin, columns)"""
    found: set[tuple[object, ...]] = set()
    for _, name, unique, origin, partial in database.execute(f"PRAGMA index_list({table})").fetchall():
        members = tuple(row[2] for row in database.execute(f"PRAGMA index_info({name})"))
        found.add((name if origin == "c" else "", unique, origin, partial, members))
    return found


def foreign_keys(database: sqlite3.Connection, table: str) -> set[tuple[object, ...]]:
    # "id" and NULL both mean the parent's primary key
    return {(r[2], r[3], r[4] or "id", *r[5:]) for r in database.execute(f"PRAGMA foreign_key_list({table})")}


def table_names(database: sqlite3.Connection) -> set[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return {row[0] for row in database.execute(query)}


def write_migrations(folder: Path, *files: str) -> Path:
    folder.mkdir()
    for number, sql in enumerate(files, start=1):
        (folder / f"{number:04d}_step.sql").write_text(sql, encoding="utf-8")
    return folder


def schema(database: sqlite3.Connection) -> list[tuple[object, ...]]:
    return database.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()


def test_the_tables_are_those_that_the_migrations_make(tmp_path: Path) -> None:
    migrated, described = tmp_path / "migrated.sqlite3", tmp_path / "described.sqlite3"
    with opened(migrated) as database:
        migrate(database, migrated)
    tables.metadata.create_all(connect(described))
    with opened(migrated) as ours, opened(described) as theirs:
        assert table_names(ours) == table_names(theirs) == set(tables.metadata.tables)
        for table in table_names(ours):
            assert columns(ours, table) == columns(theirs, table), table
            assert indexes(ours, table) == indexes(theirs, table), table
            assert foreign_keys(ours, table) == foreign_keys(theirs, table), table


def test_a_fresh_database_reaches_the_last_version_and_stays_there(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite3"
    with opened(path) as database:
        assert migrate(database, path) == len(known_migrations()) == version_of(database)
        before = schema(database)
        assert migrate(database, path) == len(known_migrations())
        assert schema(database) == before


def test_only_what_is_pending_is_applied(tmp_path: Path) -> None:
    first = "CREATE TABLE a (x INTEGER);\n"
    folder = write_migrations(tmp_path / "m", first)
    path = tmp_path / "s.sqlite3"
    with opened(path) as database:
        assert migrate(database, path, folder) == 1
        database.execute("INSERT INTO a VALUES (7)")
        (folder / "0002_more.sql").write_text("ALTER TABLE a ADD COLUMN y INTEGER;", encoding="utf-8")
        assert migrate(database, path, folder) == 2
        assert database.execute("SELECT x, y FROM a").fetchall() == [(7, None)]


@pytest.mark.parametrize("bad", ["CREATE TABLE b (x);\nINSERT INTO nowhere VALUES (1);", "CREATE TABLE b (x)"])
def test_a_failing_migration_leaves_the_store_as_before(tmp_path: Path, bad: str) -> None:
    folder = write_migrations(tmp_path / "m", "CREATE TABLE a (x);\nINSERT INTO a VALUES (1);")
    path = tmp_path / "s.sqlite3"
    with opened(path) as database:
        migrate(database, path, folder)
        before = schema(database)
        (folder / "0002_bad.sql").write_text(bad, encoding="utf-8")
        with pytest.raises((sqlite3.OperationalError, StoreError)):
            migrate(database, path, folder)
        assert not database.in_transaction
    with opened(path) as database:
        assert (schema(database), version_of(database)) == (before, 1)
        assert database.execute("SELECT x FROM a").fetchall() == [(1,)]


def test_statements_end_where_sqlite_says_and_not_at_every_semicolon(tmp_path: Path) -> None:
    sql = """-- a comment; with a semicolon
    CREATE TABLE a (x TEXT DEFAULT 'one; two');
    CREATE TRIGGER t AFTER INSERT ON a BEGIN
        UPDATE a SET x = 'three;';
        DELETE FROM a WHERE x = '';
    END;
    INSERT INTO a VALUES ('zero');
    """
    folder = write_migrations(tmp_path / "m", sql)
    with opened(tmp_path / "s.sqlite3") as database:
        migrate(database, tmp_path / "s.sqlite3", folder)
        assert database.execute("SELECT x FROM a").fetchall() == [("three;",)]


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["0002_late.sql"],
        ["0001_a.sql", "0003_c.sql"],
        ["0001_a.sql", "0001_b.sql"],
        ["0001_a.sql", "2_b.sql"],
        ["0001_a.sql", "0002_B.sql"],
        ["0001_a.sql", "0002.sql"],
        ["0001_a.sql", "notes.sql"],
    ],
)
def test_names_are_policed(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1;", encoding="utf-8")
    with pytest.raises(StoreError, match="without a gap"):
        known_migrations(tmp_path)


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_a_store_from_the_future_is_refused_and_left_byte_for_byte(tmp_path: Path) -> None:
    path = store_path(tmp_path)
    path.parent.mkdir()
    with opened(path) as database:
        database.execute("CREATE TABLE later (x)")
        database.execute(f"PRAGMA user_version = {len(known_migrations()) + 1}")
    before = digest(path.parent)
    with pytest.raises(StoreError, match="pip install --upgrade semtel-batch"):
        Store(tmp_path)
    assert digest(path.parent) == before


def test_a_database_of_something_else_is_refused_and_left_byte_for_byte(tmp_path: Path) -> None:
    path = store_path(tmp_path)
    path.parent.mkdir()
    with opened(path) as database:
        database.execute("CREATE TABLE bookmarks (x)")
    before = digest(path.parent)
    with pytest.raises(StoreError, match="something else"):
        Store(tmp_path)
    assert digest(path.parent) == before


def test_a_file_that_is_no_database_is_refused_and_left_byte_for_byte(tmp_path: Path) -> None:
    path = store_path(tmp_path)
    path.parent.mkdir()
    path.write_bytes(b"this is a letter to my aunt, and not a database\n" * 40)
    before = digest(path.parent)
    with pytest.raises(StoreError, match="not a sound SQLite file"):
        Store(tmp_path)
    assert digest(path.parent) == before


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file is in the way", encoding="utf-8")
    with pytest.raises(StoreError, match="--project"):
        Store(tmp_path)


def test_a_new_store_is_its_owners_alone_and_writes_ahead(tmp_path: Path) -> None:
    path = store_path(tmp_path)
    prepare(path.parent, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with opened(path) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_every_connection_waits_for_the_disk_and_keeps_foreign_keys(tmp_path: Path) -> None:
    path = store_path(tmp_path)
    prepare(path.parent, path)
    with connect(path).begin() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_processes_that_start_together_make_one_store(tmp_path: Path) -> None:
    path = store_path(tmp_path)
    path.parent.mkdir()
    start, troubles = threading.Barrier(6), []

    def begin() -> None:
        start.wait()
        try:
            prepare(path.parent, path)
        except StoreError as trouble:
            troubles.append(trouble)

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == []
    with opened(path) as database:
        assert version_of(database) == len(known_migrations())
