"""`compare`: two models are tried on a sample, and the new one grows in waves; killed, told no, and told to stop."""

from __future__ import annotations

from typing import Any

import pytest
from command_line import DONE, EXAMPLES, INCOMPLETE, USAGE, Project

pytestmark = pytest.mark.xdist_group("compare")

GOLD = str(EXAMPLES / "gold.jsonl")
SIDES = ("model=gpt-6-luna", "model=gpt-5.4-mini", "-c", "topic", "--sample", "200", "--seed", "1")


def data_of(project: Project) -> str:
    rows = [{"conversation_id": f"c{i}", "text": f"user: question number {i}"} for i in range(800)]
    return project.write("../chats.jsonl", rows)


def billed(project: Project) -> int:
    count: int = project.sandbox.books()["requests"]["billed"]
    return count


def test_a_sample_a_verdict_and_waves(project: Project) -> None:
    asked = (*SIDES, "--data", data_of(project), "--strategy", "naive", "--wave", "50%,100%", "--json")
    refused = project("compare", *asked)
    assert refused.exit_code == INCOMPLETE
    assert "Nobody is there to answer" in refused.stderr
    assert billed(project) == 0

    found = project.done("compare", *asked, "--yes").document
    (topic,) = found["classifiers"]
    assert (found["verdict"], topic["n"], topic["n_same"], topic["noise"]) == ("aligned", 200, 200, 0.0)
    assert found["waves"] == ["topic: 0 of 400 audited differ, 1.5 % may: certified"]
    # A: the sample twice and two audits; B: every conversation once.
    assert billed(project) == 2 * 200 + 2 * 200 + 800

    assert project.done("compare", *asked, "--yes").document == found
    assert billed(project) == 1_600  # known already
    project.done("run", data_of(project), "-c", "topic", "--strategy", "naive", "--yes")
    assert billed(project) == 1_600 + 200  # A's own labels: what it was asked in sample and audits is taken over


def test_a_model_that_went_wrong_is_stopped_before_its_waves(project: Project) -> None:
    project.sandbox.configure(model_error_rates={"gpt-5.4-mini": 0.5})
    asked = (*SIDES, "--data", data_of(project), "--wave", "100%", "--yes", "--max-shift", "0.001", "--no-noise")
    result = project("compare", *asked, "--min-agreement", "0.99", "--json")
    assert result.exit_code in (DONE, INCOMPLETE)
    found: dict[str, Any] = result.document
    assert found["classifiers"][0]["n_same"] < 140
    assert found["classifiers"][0]["noise"] is None
    if found["verdict"] == "shifted":
        assert "stopped before the wave to 100 %" in found["stopped"]
    else:
        assert ": alarm" in found["waves"][0]


def test_two_runs_and_gold(project: Project) -> None:
    data = str(EXAMPLES / "conversations.jsonl")
    first = project.plan(data, "-c", "topic", "--strategy", "naive")["id"]
    project.done("collect", "--wait")
    project.sandbox.configure(error_rate=0.3)
    second = project.plan(data, "-c", "topic", "--strategy", "naive", "--fresh")["id"]
    project.done("collect", "--wait")
    found = project.done("compare", first, second, "--gold", GOLD, "--json").document
    (topic,) = found["classifiers"]
    assert (topic["accuracy_a"], topic["gain"]) == (1.0, "worse")
    assert topic["noise"] is None  # B is A asked again: it can't be its own measure
    assert "B" in project.done("compare", first, second, "--gold", GOLD).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("model=a",), "two sides"),
        (("model=a", "model=b"), "--data"),
        (("p1", "p2"), "plan"),
        (("model=a", "model=b", "--data", "nowhere.jsonl"), "nowhere.jsonl"),
    ],
)
def test_what_can_not_be_compared(project: Project, arguments: tuple[str, ...], said: str) -> None:
    refused = project("compare", *arguments)
    assert refused.exit_code == USAGE, refused.said
    assert said.casefold() in refused.stderr.casefold()
