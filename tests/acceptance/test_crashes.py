"""Killed at any moment, stopped by a signal, started twice: run again, and all is answered and nothing made twice."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from command_line import DONE, EXAMPLES, INCOMPLETE, Project, ended, killed

from semtel_batch.sandbox.local import SandboxHandle

CONVERSATIONS = [orjson.loads(line) for line in (EXAMPLES / "conversations.jsonl").read_bytes().splitlines()][:40]
CONCURRENCY, LATENCY_S = 4, 0.4
FLUSHED_AFTER_S = 1.0  # what the design promises
STOP_S = 10.0  # 5 s are promised; other tests may run beside
PATIENCE_S = 60.0


def until(holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for the sandbox's books to say something while a command runs."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


def billed(sandbox: SandboxHandle) -> int:
    return int(sandbox.books()["items"]["billed"])


def settled(sandbox: SandboxHandle) -> int:
    """What was billed once nothing is on its way any more."""
    before = -1
    while before != (now := billed(sandbox)):
        before = now
        time.sleep(2 * LATENCY_S)
    return now


def planned(project: Project, tier: str, *classifiers: str) -> str:
    """A plan that takes some seconds to run; its id."""
    if tier == "realtime":
        project.sandbox.configure(latency_s=LATENCY_S)
        project.configure(f"concurrency = {CONCURRENCY}")
    recipe = project.recipe("mine", tier=tier)
    chosen = [word for name in classifiers for word in ("-c", name)]
    plan: str = project.plan(project.write("chats.jsonl", CONVERSATIONS), "--strategy", recipe, *chosen)["id"]
    return plan


def status(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = project.done("status", "--json").document[0]
    return found


def check_finished(project: Project) -> None:
    items = project.report()["items"]
    assert (items["labelled"], items["owed"]) == (items["total"], 0)


def test_killed_realtime_pays_again_at_most_what_was_not_yet_flushed(project: Project, sandbox: SandboxHandle) -> None:
    planned(project, "realtime", "domain")
    lost = 0
    for n_billed in (3, 22):
        process = project.start("submit")
        until(lambda n=n_billed: billed(sandbox) >= n, process)  # type: ignore[misc]
        killed(process)
        lost_now = settled(sandbox) - lost - status(project)["n_done"]
        assert lost_now <= CONCURRENCY * (1 + (FLUSHED_AFTER_S + LATENCY_S) / LATENCY_S)
        lost += lost_now
    assert project("submit").exit_code == DONE
    check_finished(project)
    items = sandbox.books()["items"]
    assert items["distinct"] == len(CONVERSATIONS)
    assert items["billed"] == len(CONVERSATIONS) + lost


def test_killed_batches_are_never_made_twice(project: Project, sandbox: SandboxHandle) -> None:
    sandbox.configure(validating_s=0.3, in_progress_s=1.0, finalizing_s=0.3, latency_s=0.02)
    planned(project, "batch", "domain", "topic")
    moments: list[tuple[tuple[str, ...], str]] = [
        (("submit",), "POST /v1/files"),
        (("submit",), "POST /v1/batches"),
        (("collect", "--wait"), "GET /v1/batches/{id}"),
        (("collect", "--wait"), "GET /v1/files/{id}/content"),
    ]
    for arguments, call in moments:
        before = sandbox.books()["paths"].get(call, {}).get("200", 0)
        process = project.start(*arguments)
        until(lambda c=call, n=before: sandbox.books()["paths"].get(c, {}).get("200", 0) > n, process)  # type: ignore[misc]
        killed(process)
    assert project("collect", "--wait").exit_code == DONE
    check_finished(project)
    books = sandbox.books()
    assert books["batches_by_status"] == {"completed": 2}
    assert books["items"] == {"distinct": 80, "billed": 80, "billed_twice": 0}


def test_killed_at_random_moments(project: Project, sandbox: SandboxHandle) -> None:
    drawn = random.Random(7)
    sandbox.configure(validating_s=0.2, in_progress_s=0.5, finalizing_s=0.2, latency_s=0.01)
    planned(project, "batch", "domain", "task")
    for _ in range(4):
        process = project.start("collect", "--wait")
        try:
            process.communicate(timeout=drawn.uniform(0.6, 2.5))
        except subprocess.TimeoutExpired:
            killed(process)
    assert project("collect", "--wait").exit_code == DONE
    check_finished(project)
    books = sandbox.books()
    assert books["batches_by_status"] == {"completed": 2}
    assert books["items"]["billed_twice"] == 0


def test_two_processes_on_one_plan(project: Project, sandbox: SandboxHandle) -> None:
    sandbox.configure(validating_s=3600.0)
    plan = planned(project, "batch", "domain")
    first = project.start("collect", "--wait")
    until(lambda: bool(sandbox.books()["paths"].get("GET /v1/batches/{id}")), first)
    for command in (("submit",), ("collect",), ("cancel", plan)):
        second = project(*command)
        assert second.exit_code == INCOMPLETE
        assert f"Another process works on plan {plan}" in second.stderr
    assert status(project)["state"] == "running"  # looking is always allowed
    sandbox.advance(4_000)
    assert ended(first, PATIENCE_S).exit_code == DONE
    assert sandbox.books()["batches_created"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_realtime_cleanly(project: Project, sandbox: SandboxHandle, number: signal.Signals) -> None:
    plan = planned(project, "realtime", "domain")
    process = project.start("submit")
    until(lambda: billed(sandbox) >= 5, process)
    process.send_signal(number)
    result = ended(process, within_s=STOP_S)
    assert result.exit_code == INCOMPLETE
    assert f"semtel-batch collect {plan} --wait" in result.stderr
    assert status(project)["n_done"] == settled(sandbox)
    assert project("collect", plan, "--wait").exit_code == DONE
    check_finished(project)
    assert sandbox.books()["items"]["billed_twice"] == 0


def test_a_signal_ends_the_wait_for_a_batch(project: Project, sandbox: SandboxHandle) -> None:
    sandbox.configure(validating_s=3600.0)
    plan = planned(project, "batch", "domain")
    process = project.start("collect", "--wait")
    until(lambda: bool(sandbox.books()["paths"].get("GET /v1/batches/{id}")), process)
    process.send_signal(signal.SIGINT)
    result = ended(process, within_s=STOP_S)
    assert result.exit_code == INCOMPLETE
    assert f"semtel-batch collect {plan} --wait" in result.stderr
    sandbox.advance(4_000)
    assert project("collect").exit_code == DONE
    assert sandbox.books()["batches_created"] == 1
