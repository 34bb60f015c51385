"""Which plans' time is over, and which of a plan's files hold what was said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from semtel_batch.config import Retention
from semtel_batch.purging import expired, texts_left
from semtel_batch.rows import PlanRow, PlanState, Purge

NOW = datetime(2026, 11, 25, tzinfo=UTC)
DAY_S = 86_400.0


def row(name: str, days: float, state: PlanState = PlanState.DONE) -> PlanRow:
    at = NOW - timedelta(days=days)
    ended = at if state in (PlanState.DONE, PlanState.CANCELLED) else None
    return PlanRow(id=name, created_at=at, state=state, started_at=None, ended_at=ended)


def test_texts_go_before_labels_and_nothing_goes_while_it_is_used() -> None:
    rows = [
        row("new", 1),
        row("old", 40),
        row("ancient", 400),
        row("running", 400, PlanState.RUNNING),
        row("never-run", 40, PlanState.PLANNED),
        row("cancelled", 40, PlanState.CANCELLED),
    ]
    both = Retention(texts_s=30 * DAY_S, labels_s=365 * DAY_S)
    found = dict(expired(rows, {}, both, NOW))
    assert found == {"old": True, "ancient": False, "never-run": True, "cancelled": True}
    assert dict(expired(rows, {}, Retention(), NOW)) == {}
    assert dict(expired(rows, {}, Retention(labels_s=30 * DAY_S), NOW))["old"] is False


def test_what_is_purged_is_not_purged_again_until_its_labels_go_too() -> None:
    kept = {name: Purge(plan_id=name, at=NOW, labels_kept=True) for name in ("old", "ancient")}
    both = Retention(texts_s=30 * DAY_S, labels_s=365 * DAY_S)
    assert dict(expired([row("old", 40), row("ancient", 400)], kept, both, NOW)) == {"ancient": False}
    gone = {"ancient": Purge(plan_id="ancient", at=NOW, labels_kept=False)}
    assert dict(expired([row("ancient", 400)], gone, both, NOW)) == {}


def test_which_files_hold_what_was_said(tmp_path: Path) -> None:
    names = ["conversations/index.parquet", "conversations/part-00000.parquet", "manifests/k.parquet", "shards/k.jsonl"]
    names += [
        "answers/k.00000.parquet",
        "labels/k.00000.parquet",
        ".conversations.1234/part-00000.parquet",
        "strata.parquet",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    left = {str(path.relative_to(tmp_path)) for path in texts_left(tmp_path, labels_kept=True)}
    assert left == {names[1], names[2], names[3], names[6]}
    assert len(texts_left(tmp_path, labels_kept=False)) == len(names)
    assert texts_left(tmp_path / "gone", labels_kept=False) == []
