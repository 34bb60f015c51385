"""A mix that the command line itself makes and runs: a queue too short for the deadline sends the rest to realtime."""

from __future__ import annotations

import signal
from decimal import Decimal

import pytest
from command_line import EXAMPLES, Project

from semtel_batch.sandbox.local import SandboxHandle

pytestmark = pytest.mark.xdist_group("tiers")

DATA = str(EXAMPLES / "conversations.jsonl")
REALTIME, BATCH = (Decimal("0.1"), Decimal("0.5")), (Decimal("0.05"), Decimal("0.25"))  # gpt-6-luna, by million tokens


def test_a_mix_of_batch_and_realtime_is_made_killed_and_ends_without_paying_twice(
    project: Project, sandbox: SandboxHandle
) -> None:
    project.configure("enqueued_tokens = 40_000")
    plan = project.plan(DATA, "-c", "topic", "--deadline", "26h", "--strategy", "naive", "--strategy", "batch")
    assert {leg["strategy"]["tier"] for leg in plan["legs"]} == {"realtime", "batch"}
    assert plan["certified"], "the same requests: labels can't change by where they are asked"
    assert sum(one["n_conversations"] for one in plan["mix"]) == plan["data"]["n_unique"]
    assert any("enqueued tokens" in one["constraint"] for one in plan["shadow_prices"])
    killed = project.start("submit", environ={"SEMTEL_CRASH_AT": "shard.answered"})
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    project.done("collect", "--wait")
    books, report = sandbox.books(), project.report()
    assert books["requests"]["billed_twice"] == 0 and books["items"]["billed_twice"] == 0
    assert set(books["tokens"]) == {"realtime", "batch"}
    usd = sum(
        books["tokens"][tier]["prompt"] * into + books["tokens"][tier]["completion"] * out
        for tier, (into, out) in (("realtime", REALTIME), ("batch", BATCH))
    )
    assert Decimal(str(report["actual"]["usd"])) == usd / 1_000_000
    assert report["recipe"] == plan_name(plan) and report["items"]["owed"] == 0
    assert {line["tier"] for line in report["endpoints"]} == {"realtime", "batch"}
    project.done("status", "--verify")


def plan_name(plan: dict[str, object]) -> str:
    """The names of all that are mixed, the first leg's first."""
    legs = plan["legs"]
    assert isinstance(legs, list)
    return " + ".join(dict.fromkeys(leg["strategy"]["recipe"] for leg in legs))
