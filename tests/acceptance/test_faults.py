"""Endpoints that fail in every way: each item ends as a label or a named failure, and nothing is paid twice."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from command_line import DONE, EXAMPLES, FAILED, INCOMPLETE, Project

from semtel_batch.sandbox.local import SandboxHandle

CONVERSATIONS = [orjson.loads(line) for line in (EXAMPLES / "conversations.jsonl").read_bytes().splitlines()][:40]
MAX_ATTEMPTS = 4
HOURS = 3600.0


def run(project: Project, *classifiers: str, **grid: Any) -> dict[str, Any]:
    """Run the conversations through a recipe of one point to the end; the report."""
    recipe = project.recipe("mine", **grid)
    data = project.write("chats.jsonl", CONVERSATIONS)
    chosen = [word for name in classifiers or ("domain",) for word in ("-c", name)]
    result = project("run", data, "--strategy", recipe, "--yes", "--json", *chosen)
    assert result.exit_code == DONE, result
    report: dict[str, Any] = result.document
    return report


def check_all_ended(report: dict[str, Any]) -> None:
    """Nothing owed, and the failures named add up to those counted."""
    items = report["items"]
    assert items["total"] == len(CONVERSATIONS) * len(report["classifiers"])
    assert (items["labelled"] + items["failed"], items["owed"]) == (items["total"], 0)
    assert sum(line["n_items"] for line in report["failures"]) == items["failed"]
    for line in report["classifiers"]:
        assert sum(label["n"] for label in line["labels"]) == line["n_labelled"]
        assert line["n_labelled"] + line["n_failed"] == len(CONVERSATIONS)


def check_attempts_bounded(sandbox: SandboxHandle) -> None:
    asked = sandbox.books(detail=True)["by_item"].values()
    assert max(asked) <= MAX_ATTEMPTS


def outcomes(report: dict[str, Any]) -> set[str]:
    return {line["outcome"] for line in report["failures"]}


BENT = {"wrong_case": 0.25, "code_fence": 0.25, "prose": 0.25, "duplicate_id": 0.1, "unknown_id": 0.1}
BROKEN = {"malformed": 0.1, "empty": 0.1, "length": 0.1, "invalid_label": 0.1, "drop_id": 0.1}


@pytest.mark.parametrize("n", [1, 5])
def test_answers_in_another_dress_are_read_at_once(project: Project, sandbox: SandboxHandle, n: int) -> None:
    sandbox.configure(faults=BENT)
    report = run(project, tier="realtime", conversations_per_request=n)
    check_all_ended(report)
    assert report["items"]["failed"] == 0
    assert sandbox.books()["items"]["billed_twice"] == 0


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("tier", ["realtime", "batch"])
def test_broken_answers_are_asked_again(project: Project, sandbox: SandboxHandle, tier: str, n: int) -> None:
    sandbox.configure(faults=BROKEN)
    report = run(project, tier=tier, conversations_per_request=n)
    check_all_ended(report)
    check_attempts_bounded(sandbox)
    assert report["items"]["labelled"] >= 0.8 * len(CONVERSATIONS)
    assert any(line["part"] == "retry" and line["actual"]["n_requests"] for line in report["lines"])


def test_what_never_comes_right_is_asked_four_times_and_named(project: Project, sandbox: SandboxHandle) -> None:
    sandbox.configure(faults={"malformed": 0.5, "invalid_label": 0.5})
    report = run(project, tier="realtime")
    check_all_ended(report)
    check_attempts_bounded(sandbox)
    assert report["items"]["labelled"] <= len(CONVERSATIONS) // 2
    assert outcomes(report) <= {"invalid", "missing"}
    labels = project.labels()
    assert sum(row["domain"] is None for row in labels) == report["items"]["failed"]


def test_refused_items_are_paid_once_and_named(project: Project, sandbox: SandboxHandle) -> None:
    sandbox.configure(faults={"refusal": 0.2, "content_filter": 0.2, "prompt_filter": 0.2})
    report = run(project, tier="realtime")
    check_all_ended(report)
    assert outcomes(report) == {"refused"}
    assert sandbox.books()["items"]["billed_twice"] == 0


def test_one_refused_conversation_does_not_take_its_pack_along(project: Project, sandbox: SandboxHandle) -> None:
    sandbox.script("/v1/chat/completions", "refusal", 2)
    report = run(project, tier="realtime", conversations_per_request=10)
    check_all_ended(report)
    assert report["items"]["labelled"] == len(CONVERSATIONS)


def test_storms_of_429_and_5xx_and_lost_connections(project: Project, sandbox: SandboxHandle) -> None:
    storm = {"rate_limit": 0.2, "overloaded": 0.05, "server_error": 0.1, "bad_gateway": 0.05, "drop_before": 0.05}
    sandbox.configure(faults=storm | {"drop_after": 0.05, "error_after": 0.05}, retry_after_s=0.05)
    report = run(project, tier="realtime")
    check_all_ended(report)
    assert report["items"]["failed"] == 0
    assert report["actual"]["n_requests"] == len(CONVERSATIONS)


def test_an_endpoint_s_limits_are_kept_to(project: Project, sandbox: SandboxHandle) -> None:
    sandbox.configure(rpm=1200, tpm=400_000)
    project.configure("rpm = 1200\ntpm = 400_000")
    report = run(project, tier="realtime")
    check_all_ended(report)
    assert report["items"]["failed"] == 0
    assert sandbox.books()["rate_limited"] <= 2


def test_a_batch_with_every_kind_of_bad_line(project: Project, sandbox: SandboxHandle) -> None:
    lines = {"line_server_error": 0.1, "line_rate_limit": 0.1, "line_prompt_filter": 0.1, "line_timeout": 0.1}
    sandbox.configure(faults=lines | {"line_lost": 0.1})
    report = run(project, "domain", "topic", tier="batch")
    check_all_ended(report)
    assert outcomes(report) <= {"refused", "errored", "expired", "missing"}
    assert report["items"]["labelled"] > report["items"]["total"] / 2
    assert sandbox.books()["items"]["billed_twice"] == 0


def test_a_batch_without_one_good_line(project: Project, sandbox: SandboxHandle) -> None:
    sandbox.script("batch-line", "line_server_error", len(CONVERSATIONS))
    report = run(project, tier="batch")
    check_all_ended(report)
    assert report["items"]["labelled"] == len(CONVERSATIONS)


def test_an_expired_batch_keeps_what_was_answered(project: Project, sandbox: SandboxHandle) -> None:
    sandbox.configure(in_progress_s=60 * HOURS)
    data = project.write("chats.jsonl", CONVERSATIONS)
    project.plan(data, "--strategy", "batch", "-c", "domain")
    assert project("submit").exit_code == INCOMPLETE
    sandbox.advance(25 * HOURS)
    answered = sandbox.books()["items"]["billed"]
    assert 0 < answered < len(CONVERSATIONS)
    sandbox.configure(in_progress_s=0.05)
    assert project("collect", "--wait").exit_code == DONE
    check_all_ended(project.report())
    books = sandbox.books()["items"]
    assert books == {"distinct": len(CONVERSATIONS), "billed": len(CONVERSATIONS), "billed_twice": 0}


def test_a_batch_that_fails_validation_stops_the_run(project: Project, sandbox: SandboxHandle) -> None:
    sandbox.configure(max_batch_requests=5)
    data = project.write("chats.jsonl", CONVERSATIONS)
    plan = project.plan(data, "--strategy", "batch", "-c", "domain")["id"]
    result = project("submit")
    if result.exit_code == INCOMPLETE:
        result = project("collect", "--wait")
    assert result.exit_code == FAILED
    assert plan in result.stderr
    assert "nothing was billed" in result.stderr
    sandbox.configure(max_batch_requests=None)
    assert project("collect", "--wait").exit_code == DONE
    assert project.report()["items"]["labelled"] == len(CONVERSATIONS)


def test_a_full_queue_is_waited_for(project: Project, sandbox: SandboxHandle) -> None:
    data = project.write("chats.jsonl", CONVERSATIONS)
    plan = project.plan(data, "--strategy", "batch", "-c", "domain", "-c", "topic")
    tokens = plan["chosen"]["lines"][0]["usage"]["prompt_tokens"]
    sandbox.configure(enqueued_tokens=int(tokens * 0.8))
    result = project("collect", "--wait")
    assert result.exit_code == DONE, result
    check_all_ended(project.report())
    books = sandbox.books()
    assert books["batches_by_status"]["completed"] == 2
    assert books["items"]["billed"] == 2 * len(CONVERSATIONS)


@pytest.mark.parametrize("fault", ["drop_after", "error_after"])
@pytest.mark.parametrize("call", ["POST /v1/batches", "POST /v1/files"])
def test_a_call_that_was_carried_out_but_not_answered(
    project: Project, sandbox: SandboxHandle, call: str, fault: str
) -> None:
    sandbox.script(call, fault)
    report = run(project, tier="batch")
    check_all_ended(report)
    books = sandbox.books()
    assert (books["batches_created"], books["files_uploaded"]) == (1, 1)
    assert books["items"]["billed"] == len(CONVERSATIONS)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_flaky_batch_api_never_makes_a_batch_twice(project: Project, sandbox: SandboxHandle, seed: int) -> None:
    shaky = {"drop_after": 0.1, "error_after": 0.1, "drop_before": 0.05, "server_error": 0.1, "rate_limit": 0.1}
    sandbox.configure(faults=shaky, seed=seed, retry_after_s=0.05)
    data = project.write("chats.jsonl", CONVERSATIONS)
    project.plan(data, "--strategy", "batch", "-c", "domain", "-c", "topic")
    results = [project("collect", "--wait")]
    while results[-1].exit_code == INCOMPLETE and len(results) < 5:
        results.append(project("collect", "--wait"))
    assert results[-1].exit_code == DONE
    check_all_ended(project.report())
    books = sandbox.books()
    assert books["batches_by_status"] == {"completed": 2}
    assert books["items"]["billed_twice"] == 0
