"""What a shell may complete: light to import, for it is asked at every press of the tab key."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path


def plan_ids(project: Path, beginning: str = "") -> list[str]:
    """Ids of a project's plans, newest first; none where there is no store or it can't be read."""
    path = (project / "state" / "semtel.sqlite3").absolute()
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            found = [str(row[0]) for row in database.execute("SELECT id FROM plans ORDER BY created_at DESC")]
    except sqlite3.Error:
        return []
    return [one for one in found if one.startswith(beginning)]
