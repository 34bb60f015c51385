"""A cascade through the real command line: two models, killed between its passes, billed each at its own price."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson
import pytest
from command_line import EXAMPLES, USAGE, Project

from semtel_batch.sandbox.local import SandboxHandle

pytestmark = pytest.mark.xdist_group("tiers")

DATA = str(EXAMPLES / "conversations.jsonl")
DEAR, CHEAP = "gpt-4.1-mini", "gpt-4o-mini"
PRICES = {DEAR: (Decimal("0.40"), Decimal("1.60")), CHEAP: (Decimal("0.15"), Decimal("0.60"))}  # realtime, per million
CHEAP_ENDPOINT = f"""
[[endpoint]]
name = "cheap"
kind = "openai"
base_url = "{{url}}"
model = "{CHEAP}"
api_key_env = "SANDBOX_KEY"
tiers = ["realtime"]
"""


def two_models(project: Project) -> None:
    """The sandbox as two endpoints, of which the cheap one is wrong in a fifth of the items."""
    project.sandbox.configure(model_error_rates={CHEAP: 0.2}, unsure_flips=1.0, unsure_others=0.02)
    project.configure(CHEAP_ENDPOINT.format(url=project.sandbox.base_url))
    settings = project.folder / "semtel.toml"
    text = settings.read_text(encoding="utf-8").replace('model = "gpt-6-luna"', f'model = "{DEAR}"', 1)
    settings.write_text(text, encoding="utf-8")


def usd(tokens: Mapping[str, Any], model: str) -> Decimal:
    into, out = PRICES[model]
    return (into * int(tokens["prompt"]) + out * int(tokens["completion"])) / 1_000_000


def agreement(labels: list[dict[str, Any]]) -> float:
    gold = [orjson.loads(line) for line in (EXAMPLES / "gold.jsonl").read_bytes().splitlines()]
    topics = {row["conversation_id"]: row["topic"] for row in gold}
    return sum(bool(row["topic"] == topics[row["conversation_id"]]) for row in labels) / len(labels)


def test_a_cascade_killed_between_its_passes_pays_each_model_once(project: Project, sandbox: SandboxHandle) -> None:
    two_models(project)
    plan = project.plan(DATA, "-c", "topic", "--strategy", "cascade")
    assert plan["chosen"]["endpoint"] == "cheap" and plan["legs"][0]["strategy"]["escalate"] == "sandbox"
    sandbox.script("/v1/chat/completions", "refusal", times=1)  # what the cheap model fails at is escalated as well
    for moment in ("shard.ended", "realtime.intended"):  # of the first pass; then of the second, before it is asked
        process = project.start("submit", environ={"SEMTEL_CRASH_AT": moment})
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert set(sandbox.books()["models"]) == {CHEAP}
    project.done("collect", "--wait")
    books, report = sandbox.books(), project.report()
    assert books["requests"]["billed_twice"] == 0
    lines = {line["endpoint"]: line for line in report["endpoints"]}
    assert {line["model"] for line in lines.values()} == {DEAR, CHEAP}
    for name, model in (("sandbox", DEAR), ("cheap", CHEAP)):
        assert Decimal(str(lines[name]["bill"]["usd"])) == usd(books["models"][model], model)
    paid = {line["part"]: line["actual"] for line in report["lines"]}
    assert paid["escalate"]["n_requests"] == lines["sandbox"]["bill"]["n_requests"] > 0
    labels = project.labels("--detail")
    escalated = [row for row in labels if row["topic_origin"] == "escalated"]
    assert {row["topic_model"] for row in escalated} == {f"{DEAR}-2025-04-14"}
    assert sorted(row["topic_checked"] or "" for row in escalated)[:2] == ["", "unsure"]
    assert all(row["topic_checked"] == "unsure" for row in escalated if row["topic_checked"])
    assert report["items"]["failed"] == 0
    assert agreement(labels) == 1.0, "every error of the cheap model was unsure, and so repaired"
    passes = {one["name"]: one for one in project.done("status", "--json").document[0]["passes"]}
    assert (passes["classify"]["model"], passes["escalate"]["model"]) == (CHEAP, DEAR)
    assert passes["classify"]["n_done"] + passes["escalate"]["n_done"] == books["requests"]["billed"]
    project.done("status", "--verify")
    check_what_is_reused(project, n_escalated=paid["escalate"]["n_requests"])


def check_what_is_reused(project: Project, n_escalated: int) -> None:
    """The dear model's answers are its own in any plan; what the cheap one said and was kept is nobody else's."""
    naive = {
        e["endpoint"]: e
        for a in project.plan(DATA, "-c", "topic", "--strategy", "naive")["alternatives"]
        if (e := a["estimate"])
    }
    assert naive["cheap"]["lines"][0]["n_requests"] == 64, "asked without probabilities, it was never asked"
    assert naive["sandbox"]["lines"][0]["n_requests"] == 64 - n_escalated
    again = project.plan(DATA, "-c", "topic", "--strategy", "cascade")
    assert again["n_reused_items"] == 63 and "measured" in next(w for w in again["warnings"] if "escalated" in w)
    project.done("submit", again["id"])
    asked = {line["part"]: line["actual"]["n_requests"] for line in project.report()["lines"]}
    assert asked["classify"] == 1 and asked.get("escalate", 0) == 0, "but for what the cheap model refused to say"


def test_an_endpoint_to_escalate_to_that_cannot_be_is_named(project: Project) -> None:
    two_models(project)
    recipe = project.recipe("lost", tier="realtime", doubt="confidence", escalate="nowhere")
    refused = project("plan", DATA, "-c", "topic", "--strategy", recipe)
    assert refused.exit_code == USAGE and "'nowhere'" in refused.stderr and "cheap" in refused.stderr
    project.configure()
    alone = project("plan", DATA, "-c", "topic", "--strategy", "cascade")
    assert alone.exit_code == USAGE and "same model" in alone.stderr


def test_calibrate_measures_a_cascade_and_the_next_plan_goes_by_it(project: Project) -> None:
    two_models(project)
    asked = (DATA, "-c", "topic")
    how = ("--strategy", "cascade", "--budget", "1", "--tier", "realtime", "--seed", "3", "--yes", "--json")
    found = project.done("calibrate", *asked, *how).document
    (one,) = found["doubting"]
    assert one["models"] == f"{CHEAP} → {DEAR}" and one["classifiers"][0]["n_kept_different"] == 0
    assert one["threshold"] is None or not one["threshold"]["certified"], "a dozen items certify nothing"
    books = project.sandbox.books()
    n = found["calibration"]["n_explore"]
    assert books["models"][CHEAP] and books["requests"]["billed"] == 3 * n, "the reference twice, the cheap model once"
    plan = project.plan(*asked, "--min-agreement", "0.8", "--deadline", "1h")
    assert plan["chosen"]["strategy"]["recipe"] == "cascade" and not plan["chosen"]["quality"]["assumed"]
    assert any("escalated to sandbox (measured" in warning for warning in plan["warnings"])


def test_a_doubtful_decision_is_asked_again_in_words(project: Project, sandbox: SandboxHandle) -> None:
    project.configure('tiers = ["realtime", "decisions"]')
    recipe = project.recipe("sure", tier="decisions", doubt="confidence", confidence_below=0.7)
    plan = project.plan(DATA, "-c", "topic", "--strategy", recipe)
    assert [(line["part"], line["tier"]) for line in plan["chosen"]["lines"]] == [
        ("classify", "decisions"),
        ("reclassify", "realtime"),
        ("retry", "decisions"),
    ]
    project.done("submit")
    books, paid = sandbox.books(), {line["part"]: line["actual"] for line in project.report()["lines"]}
    assert set(books["tokens"]) == {"decisions", "realtime"} and books["requests"]["billed_twice"] == 0
    rows = project.labels("--detail")
    assert all((row["topic_confidence"] or 1.0) >= 0.7 for row in rows if row["topic_origin"] == "alone")
    again = {row["conversation_id"] for row in rows if row["topic_origin"] == "reclassified"}
    assert paid["reclassify"]["n_requests"] == len(again) > 0
    project.done("status", "--verify")
