"""Several endpoints in semtel.toml as one: what the command line does when some of them can't go on."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import orjson
from command_line import CANARY, DONE, EXAMPLES, INCOMPLETE, Project, killed
from conftest import QUICK

from semtel_batch.sandbox.local import SandboxHandle, running

CHAT = "/v1/chat/completions"
TEXTS = [orjson.loads(line)["turns"] for line in (EXAMPLES / "conversations.jsonl").read_bytes().splitlines()]
_ENDPOINT = """
[[endpoint]]
name = "{name}"
kind = "azure"
base_url = "{url}"
deployment = "labels"
model = "gpt-6-luna"
api_key_env = "{key}"
tiers = ["realtime"]
[endpoint.price]
input_usd = "1"
output_usd = "6"
"""
AZURE = replace(QUICK, dress="azure", api_key=CANARY, deployments={"labels": "gpt-6-luna"})


def conversations(n: int) -> list[dict[str, Any]]:
    """The examples again and again, each with a turn more, so that no two are the same."""
    return [
        {"conversation_id": str(i), "turns": [*TEXTS[i % len(TEXTS)], {"role": "user", "content": f"Case {i}."}]}
        for i in range(n)
    ]


def naming(project: Project, **others: tuple[str, str]) -> None:
    """Write semtel.toml: the sandbox, and others (address, variable of the key) of the same model and price."""
    own = '[endpoint.price]\ninput_usd = "1"\noutput_usd = "6"\n'
    more = [_ENDPOINT.format(name=name, url=url, key=key) for name, (url, key) in others.items()]
    project.configure(own + "".join(more))


def lines(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {line["endpoint"]: line for line in report["endpoints"] if line["tier"] == "realtime"}


def test_the_rest_does_the_work_of_those_that_refuse(project: Project, sandbox: SandboxHandle) -> None:
    n = 120
    with running(AZURE) as broke, running(AZURE) as locked:
        broke.script(f"/openai{CHAT}", "insufficient_quota", times=10_000)
        broke.script(CHAT, "insufficient_quota", times=10_000)
        naming(project, broke=(broke.base_url, "SANDBOX_KEY"), locked=(locked.base_url, "OTHER_KEY"))
        keys = {"OTHER_KEY": "sk-not-the-right-one"}
        document = project.plan(project.write("c.ndjson", conversations(n)), "-c", "domain", "--strategy", "naive")
        assert [endpoint["name"] for endpoint in document["endpoints"]] == ["sandbox", "broke", "locked"]
        result = project("submit", environ=keys)
        assert (result.exit_code, "sk-not" in result.said) == (DONE, False)
        assert result.stderr.count("Its work goes to") == 2 and "OTHER_KEY" in result.stderr
    report = project.report()
    assert (report["items"]["labelled"], report["items"]["failed"]) == (n, 0)
    assert {name: line["share"] for name, line in lines(report).items()} == {"sandbox": 1.0, "broke": 0, "locked": 0}
    changes = [[event["change"] for event in lines(report)[name]["events"]] for name in ("sandbox", "broke", "locked")]
    assert changes == [[], ["stopped"], ["stopped"]]
    assert sum("'broke' has no quota" in text or "'locked' refuses" in text for text in report["warnings"]) == 2
    assert sandbox.books()["requests"] == {"distinct": n, "asked": n, "billed": n, "billed_twice": 0}
    assert project("status", "--verify").exit_code == DONE
    assert "stopped, see the warnings" in project.done("report").stdout
    assert "broke" in project.done("report", "--trace").stdout


def test_a_killed_run_goes_on_without_the_one_that_died(project: Project, sandbox: SandboxHandle) -> None:
    n = 1_000
    sandbox.configure(latency_s=0.1)
    data = project.write("c.ndjson", conversations(n))
    with ExitStack() as stack:
        other = stack.enter_context(running(replace(AZURE, latency_s=0.1)))
        naming(project, other=(other.base_url, "SANDBOX_KEY"))
        project.plan(data, "-c", "domain", "--strategy", "naive")
        process = project.start("submit")
        while sum(_billed(one) for one in (sandbox, other)) < n // 4:
            assert process.poll() is None
        killed(process)
        first = [_billed(sandbox), _billed(other)]
        assert all(first)
    n_kept = _n_kept(project)
    again = project("collect", "--wait")
    assert again.exit_code == DONE, again
    report = project.report()
    assert report["items"]["labelled"] == n
    assert "rested" in [event["change"] for event in lines(report)["other"]["events"]]
    assert lines(report)["sandbox"]["bill"]["n_requests"] + lines(report)["other"]["bill"]["n_requests"] == n
    assert _billed(sandbox) - first[0] == n - n_kept  # what was written down is not asked again
    assert project("status", "--verify").exit_code == DONE


def test_when_the_last_one_refuses_the_run_stops_with_its_reason(project: Project, sandbox: SandboxHandle) -> None:
    sandbox.script(CHAT, "insufficient_quota", times=10_000)
    naming(project, locked=("http://127.0.0.1:9/openai/v1", "NO_KEY"))
    project.plan(project.write("c.ndjson", conversations(20)), "-c", "domain", "--strategy", "naive")
    result = project("submit")
    assert result.exit_code not in (DONE, INCOMPLETE)
    assert "'sandbox' has no quota" in result.stderr and "NO_KEY, which is not set" in result.stderr
    sandbox.reset()
    assert project("submit").exit_code == DONE


def _billed(sandbox: SandboxHandle) -> int:
    billed: int = sandbox.books()["requests"]["billed"]
    return billed


def _n_kept(project: Project) -> int:
    """Requests whose answers were written down."""
    status = project("status", "--json").document
    plan = (status["plans"] if isinstance(status, dict) else status)[0]
    return sum(shard["n_done"] for shard in plan["shards"])
