"""What is added from outside the package, and nothing in it is changed: a recipe, a classifier, a family of models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from semtel_batch import cli, families, plans
from semtel_batch.compose.prompt import word
from semtel_batch.errors import Exit
from semtel_batch.families import Family
from semtel_batch.plans import Plan
from semtel_batch.records import Stage
from semtel_batch.store import Store

CLASSIFIER = """\
---
name: mood
description: The user's mood at the end.
outputs:
  mood:
    kind: string
    enumValues: [Glad, Cross]
inputs:
  conversations:
    kind: string
---
system:
Say what mood the user is in at the end.

user:
{{conversations}}
"""

RECIPE = """\
name = "threes"
summary = "Three at once, in realtime."
[grid]
tier = ["realtime"]
conversations_per_request = [3]
[[evidence]]
lever = "packing"
label_change = 0.01
n = 500
assumed = true
source = "our own runs"
"""

SETTINGS = """\
[[endpoint]]
name = "ours"
kind = "compatible"
base_url = "http://localhost:1/v1"
model = "acme/zephyr-9b"
[endpoint.price]
input_usd = "0.02"
output_usd = "0.05"
"""

ZEPHYR = Family(
    name="zephyr",
    pattern=r"zephyr",
    encoding="cl100k_base",
    token_cap_param="max_tokens",
    temperature=0.25,
    supports_schema=False,
    context_window=8_000,
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = [{"conversation_id": str(n), "text": f"user: question number {n}"} for n in range(7)]
    (tmp_path / "chats.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    for name, text in {"prompts/mood.prompty": CLASSIFIER, "threes.toml": RECIPE, "semtel.toml": SETTINGS}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Any:
    done = CliRunner().invoke(cli.main, list(arguments))
    assert done.exit_code == Exit.DONE, done.output
    return json.loads(done.stdout)


def planned(project: Path) -> Plan:
    document = run("--json", "plan", "chats.jsonl", "-c", "mood", "--strategy", "threes.toml", "--assume")
    store = Store(project)
    made = store.plan(document["id"])
    store.close()
    return made


def test_a_recipe_is_a_file(project: Path) -> None:
    made = planned(project)
    (leg,) = made.legs
    assert (leg.strategy.recipe, leg.strategy.conversations_per_request) == ("threes", 3)
    assert "our own runs" in made.chosen.quality.basis
    assert made.chosen.quality.label_change == 0.01
    assert made.chosen.lines[0].n_requests == 3


def test_a_classifier_is_a_file(project: Path) -> None:
    made = planned(project)
    (mood,) = made.classifiers
    assert mood.label_names == ("Glad", "Cross")
    body = orjson.loads(word([mood], Stage.CLASSIFY, made.endpoints[0], None).body("…", 1))
    assert "Say what mood the user is in at the end." in body["messages"][0]["content"]


def test_a_family_of_models_is_an_entry(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = planned(project)
    assert before.data.encoding == "o200k_base"
    monkeypatch.setattr(families, "FAMILIES", (ZEPHYR, *families.FAMILIES))
    made = planned(project)
    assert made.data.encoding == "cl100k_base"
    assert plans.from_json(plans.to_json(made)) == made
    word.__globals__["_word"].cache_clear()  # worded before the family was there
    body = orjson.loads(word(made.classifiers, Stage.CLASSIFY, made.endpoints[0], None).body("…", 3))
    assert body["temperature"] == 0.25
    assert body["max_tokens"] > 0
    assert not {"max_completion_tokens", "response_format", "reasoning_effort"} & set(body)


def test_messages_as_json_are_one_object_a_line(project: Path) -> None:
    done = CliRunner().invoke(cli.main, ["--log-json", "init", "new"])
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines[0]["message"] == "wrote new/semtel.toml"
    assert {tuple(line) for line in lines} == {("at", "level", "logger", "message")}
    refused = CliRunner().invoke(cli.main, ["status", "\x1b[31m\n", "--log-json"])
    (line,) = refused.stderr.splitlines()
    assert json.loads(line)["level"] == "error"
    assert "\x1b" not in line
