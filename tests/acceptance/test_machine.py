"""A machine that misbehaves: several processes at once, sleeping ones, full disks, signals, calls that hang."""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
import warm
from command_line import DONE, EXAMPLES, FAILED, INCOMPLETE, Project, Result

CONVERSATIONS = [orjson.loads(line) for line in (EXAMPLES / "conversations.jsonl").read_bytes().splitlines()][:24]
SOON_S = 20.0
MOST_S = 60.0
CONCURRENCY, LATENCY_S = 4, 0.3
TIERS = ["batch", "realtime"]


def planned(project: Project, tier: str, *, slow: bool = False) -> str:
    """Plan the conversations; the plan's id."""
    if slow:
        project.sandbox.configure(latency_s=LATENCY_S)
    project.configure(f"concurrency = {CONCURRENCY}")
    data = project.write("chats.jsonl", CONVERSATIONS)
    made = warm.run(project, "plan", data, "--json", "--strategy", project.recipe("mine", tier=tier), "-c", "domain")
    plan: str = made.document["id"]
    return plan


def to_the_end(project: Project) -> None:
    for _ in range(20):
        result = warm.run(project, "collect")
        if result.exit_code == DONE:
            return
        assert result.exit_code == INCOMPLETE, result
        project.sandbox.advance(SOON_S)
    raise AssertionError(result)


def check_paid_once(project: Project) -> None:
    books = project.sandbox.books()
    assert books["items"] == {"distinct": 24, "billed": 24, "billed_twice": 0}
    assert {status for status in books["batches_by_status"] if books["batches_by_status"][status]} <= {"completed"}
    audit = warm.run(project, "status", "--verify")
    assert audit.exit_code == DONE, audit


def until(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + MOST_S
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def n_billed(project: Project) -> int:
    return int(project.sandbox.books()["items"]["billed"])


def give_lease(project: Project, plan: str, holder: str, ends_in: timedelta) -> None:
    """Write into the store what another process would have."""
    with closing(sqlite3.connect(project.folder / "state" / "semtel.sqlite3", timeout=30)) as database, database:
        until_then = (datetime.now(UTC) + ends_in).isoformat()
        database.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", (f"plan {plan}", holder, until_then))


# -- several processes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", TIERS)
def test_ten_collects_at_once_as_from_a_hasty_cron(project: Project, tier: str) -> None:
    planned(project, tier)
    for _ in range(10):
        commands = [warm.start(project, "collect") for _ in range(10)]
        results = [command.ended() for command in commands]
        assert {result.exit_code for result in results} <= {DONE, INCOMPLETE}, results
        if DONE in {result.exit_code for result in results}:
            break
        project.sandbox.advance(SOON_S)
    to_the_end(project)
    check_paid_once(project)
    assert project.sandbox.books()["batches_created"] == (1 if tier == "batch" else 0)


def test_looking_is_allowed_while_parts_come_and_are_merged(project: Project) -> None:
    planned(project, "realtime")
    project.sandbox.configure(latency_s=0.05)
    working = warm.start(project, "collect", "--wait")
    looks = [("report", "--json"), ("labels", "--detail", "-o", str(project.folder / "labels.csv")), ("status",)]
    results = []
    while working.is_running:
        results += [command.ended() for command in [warm.start(project, *look) for look in looks]]
    assert working.ended().exit_code == DONE
    assert len(results) >= len(looks)
    assert {result.exit_code for result in results} <= {DONE, INCOMPLETE}, results
    check_paid_once(project)


def test_the_lease_of_a_killed_process_ends_with_it(project: Project) -> None:
    plan = planned(project, "realtime", slow=True)
    first = warm.start(project, "submit")
    until(lambda: n_billed(project) >= 4)
    second = warm.run(project, "submit")
    assert second.exit_code == INCOMPLETE
    assert f"Another process works on plan {plan}" in second.stderr
    os.kill(first.pid, signal.SIGKILL)
    first.ended()
    assert warm.run(project, "submit").exit_code == DONE


def test_a_number_that_another_process_got_since_is_no_holder(project: Project) -> None:
    plan = planned(project, "batch")
    node = os.uname().nodename
    give_lease(project, plan, f"{node}:{os.getpid()}:12345-abcd", timedelta(minutes=10))
    assert warm.run(project, "submit").exit_code == INCOMPLETE
    assert project.sandbox.books()["batches_created"] == 1


def test_another_machine_s_lease_holds_until_it_runs_out(project: Project) -> None:
    plan = planned(project, "batch")
    give_lease(project, plan, "elsewhere:77:1-abcd", timedelta(minutes=3))
    refused = warm.run(project, "submit")
    assert refused.exit_code == INCOMPLETE
    assert f"Another process works on plan {plan}" in refused.stderr
    assert project.sandbox.books()["paths"] == {}
    give_lease(project, plan, "elsewhere:77:1-abcd", timedelta(seconds=-1))
    warm.run(project, "submit")
    assert project.sandbox.books()["batches_created"] == 1


def test_a_lease_from_before_the_clock_was_set_back_lasts_no_longer_than_any(project: Project) -> None:
    plan = planned(project, "batch")
    give_lease(project, plan, "elsewhere:77:1-abcd", timedelta(days=3))
    assert warm.run(project, "submit").exit_code == INCOMPLETE
    with closing(sqlite3.connect(project.folder / "state" / "semtel.sqlite3")) as database:
        (ends,) = database.execute("SELECT until FROM leases").fetchone()
    assert datetime.fromisoformat(ends) - datetime.now(UTC) <= timedelta(minutes=10)


def test_a_process_that_slept_through_its_lease_sends_nothing_more(project: Project) -> None:
    plan = planned(project, "realtime", slow=True)
    sleeper = warm.start(project, "submit")
    until(lambda: n_billed(project) >= 4)
    os.kill(sleeper.pid, signal.SIGSTOP)
    give_lease(project, plan, "elsewhere:77:1-abcd", timedelta(minutes=10))
    time.sleep(2 * LATENCY_S)
    paid = n_billed(project)
    os.kill(sleeper.pid, signal.SIGCONT)
    result = sleeper.ended(within_s=20)
    assert result.exit_code == INCOMPLETE, result
    assert f"Another process took over plan {plan}" in result.stderr
    in_a_flush = CONCURRENCY * int((1.0 + 2 * LATENCY_S) / LATENCY_S + 1)
    assert n_billed(project) - paid <= in_a_flush


# -- signals -----------------------------------------------------------------------------------------------------------


def check_stopped(result: Result, plan: str) -> None:
    assert result.exit_code in (INCOMPLETE, DONE), result
    assert "Traceback" not in result.said, result
    if result.exit_code == INCOMPLETE:
        assert re.search(rf"semtel-batch (collect|submit) {plan}|run the same command again", result.stderr), result


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_a_signal_at_any_moment_ends_a_command_in_time(project: Project, tier: str, twice: bool) -> None:
    plan = planned(project, tier)
    project.sandbox.configure(latency_s=0.05)
    drawn = random.Random(7)
    for number in (signal.SIGINT, signal.SIGTERM) * 3:
        command = warm.start(project, "collect", "--wait")
        until(lambda c=command: c.has_begun or not c.is_running)  # type: ignore[misc]
        time.sleep(drawn.uniform(0.0, 0.8))
        for _ in range(2 if twice else 1):
            with suppress(ProcessLookupError):  # it has ended by itself
                os.kill(command.pid, number)
            time.sleep(drawn.uniform(0.0, 0.2))
        check_stopped(command.ended(within_s=10.0), plan)
    to_the_end(project)
    if tier == "batch" or not twice:
        check_paid_once(project)


# -- the disk ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", TIERS)
def test_a_disk_that_is_full_at_any_file_stops_the_run_and_loses_nothing(project: Project, tier: str) -> None:
    """No file may grow beyond so many bytes: each run gets one file further."""
    planned(project, tier)
    said = set()
    for limit in (1_000, 2_000, 4_000, 6_000, 10_000, 20_000, 40_000, 60_000):
        result = warm.start(project, "collect", max_file_bytes=limit).ended()
        assert result.exit_code in (FAILED, INCOMPLETE, DONE), result
        assert "Traceback" not in result.said, result
        said |= set(re.findall(r"error: (.*)", result.stderr))
        project.sandbox.advance(SOON_S)
    assert said, "no file was too large: the test proves nothing"
    assert all("run again" in words for words in said), said
    to_the_end(project)
    if tier == "batch":
        check_paid_once(project)


def test_a_folder_that_can_not_be_written(project: Project, tmp_path: Path) -> None:
    planned(project, "batch")
    (project.folder / "state" / "files").rename(project.folder / "state" / "kept")
    (project.folder / "state" / "files").write_text("a file where a folder should be", encoding="utf-8")
    result = warm.run(project, "submit")
    assert result.exit_code == FAILED, result
    assert "state/files" in result.stderr
    (project.folder / "state" / "files").unlink()
    (project.folder / "state" / "kept").rename(project.folder / "state" / "files")
    to_the_end(project)
    check_paid_once(project)


# -- calls whose end nobody saw ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["POST /v1/files", "POST /v1/batches"])
@pytest.mark.parametrize("fault", ["drop_after", "error_after", "hang_after", "hang"])
@pytest.mark.parametrize("listed_after_s", [0.0, 0.04])
def test_a_call_in_doubt_is_looked_for_and_not_repeated(
    project: Project, call: str, fault: str, listed_after_s: float
) -> None:
    planned(project, "batch")
    project.sandbox.configure(listed_after_s=listed_after_s)
    project.sandbox.script(call, fault)
    to_the_end(project)
    check_paid_once(project)
    books = project.sandbox.books()
    assert books["batches_created"] == 1
    if listed_after_s == 0.0:
        assert books["files_uploaded"] == 1


def test_a_batch_of_a_killed_process_is_found_though_the_list_lags(project: Project) -> None:
    planned(project, "batch")
    project.sandbox.configure(listed_after_s=0.05)
    killed = warm.run(project, "submit", environ={"SEMTEL_CRASH_AT": "batch.not-noted"})
    assert killed.exit_code == -signal.SIGKILL
    to_the_end(project)
    check_paid_once(project)
    assert project.sandbox.books()["batches_created"] == 1
