"""Open a project's SQLite file: made and migrated if need be, refused untouched if it is not sound."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool

from semtel_batch.errors import StoreError
from semtel_batch.migrate import migrate
from semtel_batch.private import make_private, make_private_folder


def prepare(folder: Path, path: Path) -> None:
    try:
        make_private_folder(folder)
        if not path.exists():
            make_private(path)  # -wal and -shm take its mode over
        database = sqlite3.connect(path, isolation_level=None, timeout=30)
        try:
            migrate(database, path)
            _write_ahead(database)  # last: it writes, also into a file that is refused
        finally:
            database.close()
    except OSError as error:
        raise StoreError(
            f"{folder} can't be written ({error.strerror}); choose a folder you may write with --project."
        ) from error
    except sqlite3.OperationalError as error:
        writable = os.access(folder, os.W_OK)
        hint = "run again" if writable else "choose a folder you may write with --project"
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            hint = "see whether the disk has room, and run again"
        raise StoreError(f"{path} can't be opened ({error}); {hint}.") from error
    except sqlite3.DatabaseError as error:
        raise StoreError(
            f"{path} is not a sound SQLite file ({error}); restore it from a backup, it was left as it is."
        ) from error


def _write_ahead(database: sqlite3.Connection) -> None:
    """Switch to WAL for good. While another process is in the file SQLite says busy at once: the next opening may."""
    try:
        database.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise


def empty_log(path: Path) -> None:
    """Take what the write-ahead log holds over into the database and empty it; while others write, not yet."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def connect(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool, connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN comes too late; ours is below
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """What an audit needs of a database beside its records: rows as they are, not as they should be."""

    damage: tuple[str, ...]  # what SQLite itself finds wrong
    documents: tuple[tuple[str, str, str], ...]  # id, hash and document of each plan, oldest first
    leases: tuple[tuple[str, str, str], ...]  # name, holder, until


def look_into(path: Path) -> Raw:
    """Read a database without changing anything in it."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as database:
            checked = [row[0] for row in database.execute("PRAGMA integrity_check") if row[0] != "ok"]
            strays = [
                f"row {row} of {table} belongs to no row of {parent}"
                for table, row, parent, _ in database.execute("PRAGMA foreign_key_check")
            ]
            return Raw(
                damage=(*checked, *strays),
                documents=tuple(database.execute("SELECT id, hash, document FROM plans ORDER BY created_at")),
                leases=tuple(database.execute("SELECT name, holder, until FROM leases ORDER BY name")),
            )
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path} can't be read ({error}); restore it from a backup, it was left as it is.") from error
