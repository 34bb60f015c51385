"""Watching: how far, how long, who does what; in its place on a terminal, as a few lines in a log."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import reported_plan

from semtel_batch.commands import watching
from semtel_batch.commands.notifying import notified
from semtel_batch.commands.session import open_session
from semtel_batch.console import Console, Options
from semtel_batch.console.layout import Page
from semtel_batch.console.terminal import Streams
from semtel_batch.console.watch_view import view_watch, watch_line
from semtel_batch.errors import BadInput, EndpointError, Incomplete
from semtel_batch.records import Stage, Tier
from semtel_batch.rows import PlanState, ShardState
from semtel_batch.session import Session
from semtel_batch.status import PlanStatus, ShardStatus, serving, time_left_s

START = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)


def shard(done: int, of: int, tier: Tier = Tier.REALTIME, **changes: Any) -> ShardStatus:
    return ShardStatus(
        key="k",
        leg=0,
        stage=Stage.CLASSIFY,
        attempt=0,
        endpoint="main",
        tier=tier,
        state=ShardState.ENDED if done == of else ShardState.SUBMITTED,
        batch_id=None,
        n_done=done,
        n_requests=of,
        submitted_at=None,
        polled_at=None,
        error_code=None,
        error_message=None,
        **{"status": None, **changes},
    )


def plan(*shards: ShardStatus, state: PlanState = PlanState.RUNNING, **changes: Any) -> PlanStatus:
    made = PlanStatus(
        plan_id="abc123abc123",
        state=state,
        source="data/\x1b[31mchats.jsonl",
        recipe="naive",
        created_at=START,
        started_at=START,
        ended_at=None,
        deadline_s=3_600.0,
        n_requests=sum(one.n_requests for one in shards),
        n_done=sum(one.n_done for one in shards),
        n_failed=0,
        usd=Decimal("0.25"),
        planned_usd=Decimal(1),
        shards=shards,
    )
    return replace(made, **changes)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_time_left_is_told_where_a_pace_can_be() -> None:
    assert time_left_s(plan(shard(25, 100)), after(10)) == pytest.approx(30)
    assert time_left_s(plan(shard(5, 100)), after(10)) is None, "too few to tell"
    assert time_left_s(plan(shard(25, 100), shard(0, 9, Tier.BATCH)), after(10)) is None, "a batch comes all at once"
    assert time_left_s(plan(shard(25, 100), shard(9, 9, Tier.BATCH)), after(10)) is not None
    assert time_left_s(plan(shard(25, 100), state=PlanState.DONE), after(10)) is None


def test_who_does_what() -> None:
    batches = [shard(0, 10, Tier.BATCH, status="validating"), shard(0, 10, Tier.BATCH, status="in_progress")]
    found = serving(plan(shard(5, 5), *batches, shard(10, 10, Tier.BATCH, status="completed"), shard(0, 0)))
    assert [(one.tier, one.n_open, one.n_shards, one.n_done) for one in found] == [
        (Tier.BATCH, 2, 3, 10),
        (Tier.REALTIME, 0, 1, 5),
    ]
    assert dict(found[0].words) == {"validating": 1, "in_progress": 1}


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_the_view_fits_and_shows_what_one_waits_for(width: int) -> None:
    out = io.StringIO()
    console = Console(Options(), Streams(stdout=out, stderr=io.StringIO()), {"COLUMNS": str(width)})
    console._show(view_watch([plan(shard(25, 100))], after(10), Page(width=width), "waiting \x1b[31m"))
    shown = out.getvalue()
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= width
    for word in ("25 of 100 requests", "$0.25 paid of $1.00", "about 30 s left", "due in", "main", "realtime"):
        assert word in " ".join(shown.split()), word


def test_only_plans_under_way_are_watched() -> None:
    done = plan(shard(1, 1), state=PlanState.DONE, plan_id="done00000000")
    assert len(view_watch([done, plan(shard(1, 2))], START, Page(width=80))) == 1
    assert len(view_watch([done, done], START, Page(width=80))) == 1
    assert "overdue by" in watch_line(plan(shard(1, 2)), after(4_000))


class Clock:
    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def options(project: Path, **more: Any) -> Mapping[str, Any]:
    return {"project": project, "as_json": False, "quiet": False, "verbose": False, **more}


def test_a_log_gets_a_line_when_there_is_news(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reported_plan.executed(tmp_path).close()
    steps = iter([*(plan(shard(n, 20)) for n in range(20)), plan(shard(20, 20), state=PlanState.DONE)])
    monkeypatch.setattr(watching, "plan_status", lambda _store, _row: next(steps))
    watching.watch(options(tmp_path), None, Clock())
    lines = capsys.readouterr().out.splitlines()
    assert "0 of 20" in lines[0]
    assert "20 of 20" in lines[-1]
    assert 4 <= len(lines) <= 7, "one every ten seconds of forty"


def session(project: Path, command: str) -> Session:
    return open_session(options(project, on_done=command))


_TELL = "import os, sys; open(sys.argv[1], 'w').write(os.environ['SEMTEL_STATE'] + os.environ['SEMTEL_EXIT_CODE'])"


def test_the_user_is_told_when_a_plan_is_over_or_failed(tmp_path: Path) -> None:
    told = tmp_path / "told"
    made = reported_plan.plan()
    store = reported_plan.executed(tmp_path, made)
    here = session(tmp_path, f'{sys.executable} -c "{_TELL}" {told}')
    with notified(here, store, made):
        pass
    assert told.read_text() == "done0"
    told.unlink()
    with pytest.raises(Incomplete), notified(here, store, made):
        raise Incomplete("still waits")
    assert not told.exists()
    with pytest.raises(EndpointError), notified(here, store, made):
        raise EndpointError("refused")
    assert told.read_text() == "failed1"
    store.close()


@pytest.mark.parametrize("command", [f'{sys.executable} -c "raise SystemExit(3)"', "no-such-program-anywhere"])
def test_that_telling_fails_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    made = reported_plan.plan()
    store = reported_plan.executed(tmp_path, made)
    with notified(session(tmp_path, command), store, made):
        pass
    assert "the plan is as it is" in " ".join(capsys.readouterr().err.split())
    store.close()


@pytest.mark.parametrize("command", ["'unclosed", "  "])
def test_a_command_that_can_t_be_split_is_refused_at_once(tmp_path: Path, command: str) -> None:
    with pytest.raises(BadInput, match="--on-done"):
        session(tmp_path, command)
