"""The tiers beside realtime and batch, through the real command line, held against the sandbox's own books."""

from __future__ import annotations

import signal
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from command_line import EXAMPLES, INCOMPLETE, Project

from semtel_batch.sandbox.local import SandboxHandle

pytestmark = pytest.mark.xdist_group("tiers")

DATA = str(EXAMPLES / "conversations.jsonl")
FLEX_IN, FLEX_OUT = Decimal("0.05"), Decimal("0.25")  # gpt-6-luna, US dollars per million tokens


def usd(tokens: dict[str, Any], into: Decimal, out: Decimal) -> Decimal:
    return (into * tokens["prompt"] + out * tokens["completion"]) / 1_000_000


def test_flex_is_chosen_and_billed_as_the_sandbox_bills_it(project: Project, sandbox: SandboxHandle) -> None:
    sandbox.configure(flex_unavailable=0.1)
    project.configure('tiers = ["realtime", "flex"]')
    plan = project.plan(DATA, "-c", "topic")
    assert plan["chosen"]["strategy"]["recipe"] == "flex"
    assert plan["certified"], "the same request: labels can't change by it"
    project.done("submit")
    books = sandbox.books()
    assert set(books["tokens"]) == {"flex"}
    assert books["requests"]["billed_twice"] == 0 and books["rate_limited"] > 0
    report = project.report()
    assert Decimal(str(report["actual"]["usd"])) == usd(books["tokens"]["flex"], FLEX_IN, FLEX_OUT)
    main = next(line for line in plan["chosen"]["lines"] if line["part"] == "classify")
    counted = main["usage"]["prompt_tokens"]
    assert abs(counted - books["tokens"]["flex"]["prompt"]) <= 0.01 * counted
    project.done("status", "--verify")


def test_decisions_are_labels_with_their_probability_and_cost_what_is_read(
    project: Project, sandbox: SandboxHandle
) -> None:
    sandbox.script("/v1/decisions", "refusal", times=1)
    project.configure('tiers = ["realtime", "decisions"]')
    plan = project.plan(DATA, "-c", "topic", "-c", "task", "--strategy", "decisions")
    assert plan["chosen"]["quality"]["assumed"] and not plan["certified"]
    assert plan["chosen"]["strategy"]["classifiers_per_request"] == 0, "both at once: the text is paid for once"
    project.done("submit")
    books = sandbox.books()
    assert set(books["tokens"]) == {"decisions"}
    assert books["items"]["billed_twice"] == 1, "the one that was refused, asked again alone"
    report = project.report()
    assert Decimal(str(report["actual"]["usd"])) == usd(books["tokens"]["decisions"], Decimal("0.1"), Decimal(0))
    line = next(line for line in plan["chosen"]["lines"] if line["part"] == "classify")
    counted = line["usage"]["prompt_tokens"]
    assert abs(counted - books["tokens"]["decisions"]["prompt"]) <= 0.02 * counted
    assert report["items"]["failed"] == 0
    labels = pl.concat([pl.read_parquet(path) for path in project.folder.rglob("files/*/labels/*.parquet")])
    assert labels.filter(pl.col("outcome") == "refused").height == 1
    assert labels.filter(pl.col("outcome") == "answered")["confidence"].is_between(0.5, 1.0).all()
    project.done("status", "--verify")


def test_an_8_hour_window_is_chosen_killed_and_goes_on_without_paying_twice(
    project: Project, sandbox: SandboxHandle
) -> None:
    sandbox.configure(background_s=0.05)
    project.configure('tiers = ["realtime", "2h", "8h"]')
    plan = project.plan(DATA, "-c", "topic", "--deadline", "10h")
    assert plan["chosen"]["strategy"]["tier"] == "8h"
    assert plan["certified"]
    for moment in ("background.noted", "background.submitted"):
        process = project.start("submit", environ={"SEMTEL_CRASH_AT": moment})
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    waiting = project("submit")
    assert waiting.exit_code == INCOMPLETE
    collecting = project.start("collect", "--wait", environ={"SEMTEL_CRASH_AT": "background.looked"})
    collecting.communicate(timeout=60)
    assert collecting.returncode == -signal.SIGKILL
    project.done("collect", "--wait")
    books, report = sandbox.books(), project.report()
    assert books["requests"]["billed_twice"] == 0 and set(books["tokens"]) == {"8h"}
    assert books["requests"]["asked"] == report["actual"]["n_requests"]
    assert report["items"]["failed"] == 0
    assert Decimal(str(report["actual"]["usd"])) == usd(books["tokens"]["8h"], Decimal("0.06"), Decimal("0.3"))
    project.done("status", "--verify")


def test_a_cancelled_window_stops_its_responses(project: Project, sandbox: SandboxHandle) -> None:
    sandbox.configure(background_s=3_600.0)
    project.configure('tiers = ["2h"]')
    plan = project.plan(DATA, "-c", "topic")
    assert project("submit").exit_code == INCOMPLETE
    assert project("collect").exit_code == INCOMPLETE
    project.done("cancel", plan["id"])
    sandbox.advance(7_200)
    assert sandbox.books()["requests"]["billed"] == 0
    project.done("status", "--verify")


def test_what_the_prompt_cache_saved_is_counted_on_in_the_next_plan(project: Project, sandbox: SandboxHandle) -> None:
    sandbox.configure(caching=True)
    project.configure('tiers = ["realtime"]')
    asked = (DATA, "--strategy", "combined", "--fresh")
    first = project.plan(*asked)
    assert first["legs"][0]["cache_keys"] > 0 and first["chosen"]["lines"][0]["usage"]["cached_tokens"] == 0
    project.done("submit")
    tokens, actual = sandbox.books()["tokens"]["realtime"], Decimal(str(project.report()["actual"]["usd"]))
    assert tokens["cached"] > tokens["prompt"] * 0.2
    plain = tokens["prompt"] - tokens["cached"] - tokens["cache_write"]
    rates = (
        (plain, "0.1"),
        (tokens["cached"], "0.01"),
        (tokens["cache_write"], "0.125"),
        (tokens["completion"], "0.5"),
    )
    assert actual == sum(n * Decimal(rate) for n, rate in rates) / 1_000_000
    second = project.plan(*asked)
    assert second["chosen"]["lines"][0]["usage"]["cached_tokens"] > 0
    assert any("come from the provider's cache" in warning for warning in second["warnings"])
    missed, close = (abs(Decimal(str(plan["chosen"]["usd"])) - actual) for plan in (first, second))
    assert close < missed / 2
