"""Bring a store to the present: numbered SQL files, each applied in one transaction with its record."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from semtel_batch.errors import StoreError
from semtel_batch.resources import shipped

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    number: int
    path: Path


def known_migrations(folder: Path | None = None) -> tuple[Migration, ...]:
    """The shipped migrations in order, numbered 1… without a gap."""
    files = sorted((folder or shipped("migrations")).glob("*.sql"))
    found = [Migration(number=int(m[1]), path=f) for f in files if (m := _NAME.fullmatch(f.name))]
    if [m.number for m in found] != list(range(1, len(files) + 1)) or not found:
        raise StoreError(
            f"The migrations in {folder or 'this installation'} are not numbered 0001… without a gap; install again."
        )
    return tuple(found)


def version_of(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def migrate(database: sqlite3.Connection, where: Path, folder: Path | None = None) -> int:
    """Apply what is pending and return the version reached.

    A store from the future, or a file that is not ours, is refused and left as it is.
    """
    migrations = known_migrations(folder)
    # One statement sees one moment: between two, another process may make the store, which then looks foreign.
    current, n_objects = database.execute(
        "SELECT user_version, (SELECT count(*) FROM sqlite_master) FROM pragma_user_version"
    ).fetchone()
    if current > len(migrations):
        raise StoreError(
            f"{where} is a store of version {current}, newer than this semtel-batch knows ({len(migrations)}); "
            "run: pip install --upgrade semtel-batch"
        )
    if current == 0 and n_objects:
        raise StoreError(f"{where} is a database of something else; move it away or choose another --project.")
    for migration in migrations[current:]:
        _apply(database, migration)
    return len(migrations)


def _apply(database: sqlite3.Connection, migration: Migration) -> None:
    """Run one file and its record in one transaction, so that a crash leaves either both or none."""
    database.execute("BEGIN IMMEDIATE")
    try:
        if version_of(database) >= migration.number:  # another process was faster
            database.execute("ROLLBACK")
            return
        for statement in _statements(migration.path.read_text(encoding="utf-8")):
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {migration.number}")
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _statements(sql: str) -> list[str]:
    """Split at the semicolons that end a statement; `executescript` would commit behind our back."""
    statements, buffer = [], ""
    for line in sql.splitlines(keepends=True):
        buffer += line
        if sqlite3.complete_statement(buffer):
            statements.append(buffer)
            buffer = ""
    if buffer.strip():
        raise StoreError("A migration's last statement does not end with a semicolon; install again.")
    return statements
