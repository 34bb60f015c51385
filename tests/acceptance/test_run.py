"""Plan, submit, collect, report and labels, in both tiers, held against the sandbox's own books."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from command_line import DONE, EXAMPLES, INCOMPLETE, Project, Result
from conftest import check_no_key, fresh, new_project

from semtel_batch.sandbox.local import SandboxHandle

pytestmark = pytest.mark.xdist_group("run")

CONVERSATIONS = [orjson.loads(line) for line in (EXAMPLES / "conversations.jsonl").read_bytes().splitlines()]
GOLD = {row["conversation_id"]: row for row in map(orjson.loads, (EXAMPLES / "gold.jsonl").read_bytes().splitlines())}
EMPTY = {"conversation_id": "nothing-said", "turns": []}
N_COPIES = 12
ASKED = ("-c", "topic", "-c", "task")


def rows() -> list[dict[str, Any]]:
    """The examples in an order of their own, some of them twice, and one without a word in it."""
    copies = [{**row, "conversation_id": "copy-" + row["conversation_id"]} for row in CONVERSATIONS[:N_COPIES]]
    return [*copies[:6], *reversed(CONVERSATIONS), EMPTY, *copies[6:]]


def gold_of(conversation_id: str, classifier: str) -> str | None:
    row = GOLD.get(conversation_id.removeprefix("copy-"))
    return row[classifier] if row else None


def n_texts() -> int:
    return len({orjson.dumps(row["turns"]) for row in CONVERSATIONS})


@pytest.fixture(scope="module")
def batch(sandbox_process: SandboxHandle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One batch run, looked at from all sides below."""
    sandbox = fresh(sandbox_process)
    sandbox.configure(validating_s=3600.0)
    project = new_project(tmp_path_factory.mktemp("batch") / "project", sandbox)
    yield Run(project)
    check_no_key(project.folder)


class Run:
    """plan, submit, collect before and after the batch has ended, and what the sandbox's books said in between."""

    def __init__(self, project: Project) -> None:
        self.project, sandbox = project, project.sandbox
        data = project.write("chats.jsonl", rows())
        self.plan = project.plan(data, "--strategy", "batch", "-c", "topic", "-c", "task")
        self.books_planned = sandbox.books()
        self.submitted = project("submit", "--json")
        self.too_early = project("--json", "collect")
        self.submitted_again = project("submit")
        self.books_waiting = sandbox.books()
        sandbox.advance(4_000)
        self.collected = project("collect", "--json")
        self.books = sandbox.books()
        self.report = project.report()
        self.labels = project.labels()
        self.books_after_looking = sandbox.books()


def test_a_plan_spends_nothing(batch: Run) -> None:
    assert batch.books_planned["paths"] == {}
    assert batch.plan["certified"]
    assert [leg["strategy"]["tier"] for leg in batch.plan["legs"]] == ["batch", "batch"]


def test_submit_and_an_early_collect_owe_and_say_what_to_run(batch: Run) -> None:
    for result in (batch.submitted, batch.too_early, batch.submitted_again):
        assert result.exit_code == INCOMPLETE
        assert f"semtel-batch collect {batch.plan['id']}" in result.stderr
    waiting = batch.submitted.document
    assert waiting[0]["state"] == "running"
    assert {shard["state"] for shard in waiting[0]["shards"]} == {"submitted"}


def test_submitting_again_creates_no_second_batch(batch: Run) -> None:
    assert batch.books_waiting["batches_created"] == len(batch.plan["legs"]) == 2
    assert batch.books_waiting["files_uploaded"] == 2
    assert batch.books_waiting["items"]["billed"] == 0


def test_collect_ends_the_plan_once_the_batches_have(batch: Run) -> None:
    assert batch.collected.exit_code == DONE
    assert batch.collected.document[0]["state"] == "done"
    assert batch.books["batches_created"] == 2


def test_each_text_is_paid_once_for_each_classifier(batch: Run) -> None:
    assert batch.books["items"] == {"distinct": 2 * n_texts(), "billed": 2 * n_texts(), "billed_twice": 0}
    assert batch.books_after_looking["requests"] == batch.books["requests"]


def test_every_conversation_gets_the_gold_label_in_the_data_s_order(batch: Run) -> None:
    expected = [
        {
            "conversation_id": row["conversation_id"],
            **{c: gold_of(row["conversation_id"], c) for c in ("topic", "task")},
        }
        for row in rows()
    ]
    assert batch.labels == expected
    assert {"conversation_id": "nothing-said", "topic": None, "task": None} in batch.labels


def test_the_report_adds_up_and_names_the_empty_conversation(batch: Run) -> None:
    items = batch.report["items"]
    assert items["total"] == 2 * len(rows())
    assert (items["labelled"], items["failed"], items["owed"]) == (items["total"] - 2, 2, 0)
    assert sum(line["n_items"] for line in batch.report["failures"]) == 2
    assert "empty" in batch.report["failures"][0]["details"][0][0]


def test_the_prompt_tokens_of_the_estimate_are_those_billed(batch: Run) -> None:
    check_prompt_tokens(batch.report, batch.books, "batch")


def check_prompt_tokens(report: dict[str, Any], books: dict[str, Any], channel: str) -> None:
    """Planned, reported and billed prompt tokens are one number; money is that at the tier's price."""
    classify = next(line for line in report["lines"] if line["part"] == "classify")
    billed = books["tokens"][channel]
    assert classify["planned"]["usage"]["prompt_tokens"] == classify["actual"]["usage"]["prompt_tokens"]
    assert report["actual"]["usage"]["prompt_tokens"] == billed["prompt"]
    assert report["actual"]["usage"]["completion_tokens"] == billed["completion"]


def test_labels_are_the_same_in_every_format(batch: Run) -> None:
    folder = batch.project.folder
    for ending in ("parquet", "csv"):
        batch.project.done("labels", batch.plan["id"][:5], "-o", str(folder / f"labels.{ending}"))
    assert pl.read_parquet(folder / "labels.parquet").to_dicts() == batch.labels
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        assert [{k: v or None for k, v in row.items()} for row in csv.DictReader(file)] == batch.labels


def test_detail_tells_how_each_label_came_about(batch: Run) -> None:
    detailed = batch.project.labels("--detail")
    assert [row["conversation_id"] for row in detailed] == [row["conversation_id"] for row in batch.labels]
    first = detailed[0]
    assert (first["topic_outcome"], first["topic_how"], first["topic_n_attempts"]) == ("answered", "exact", 1)
    assert (first["topic_model"], first["topic_tier"], first["strategy"]) == ("gpt-6-luna", "batch", "batch")
    one_of_each = {orjson.dumps(row["turns"]): row["conversation_id"] for row in CONVERSATIONS}.values()
    paid = sum(
        float(row[f"{c}_cost_usd"])
        for row in detailed
        if row["conversation_id"] in one_of_each
        for c in ("topic", "task")
    )
    assert paid == pytest.approx(float(batch.report["actual"]["usd"]))


def test_every_looking_command_speaks_json_and_plain_text(batch: Run) -> None:
    gold = str(EXAMPLES / "gold.jsonl")
    for command in (["status"], ["status", batch.plan["id"]], ["evaluate", "--gold", gold], ["doctor"]):
        assert batch.project.done(*command, "--json").document
    accuracy = {
        line["classifier"]: line["accuracy"] for line in batch.project("evaluate", "--gold", gold, "--json").document
    }
    assert accuracy == {"topic": 1.0, "task": 1.0}
    plain = batch.project.done("report")
    assert "saving" in plain.stdout
    assert "\x1b" not in plain.said


def test_submitting_a_finished_plan_sends_nothing(batch: Run) -> None:
    before = batch.project.sandbox.books()["paths"]
    assert batch.project("submit").exit_code == DONE
    assert batch.project("collect").exit_code == DONE
    assert batch.project.sandbox.books()["paths"] == before


def test_realtime_runs_to_its_end_in_submit(project: Project, sandbox: SandboxHandle) -> None:
    data = project.write("chats.jsonl", rows())
    project.plan(data, "--strategy", "naive", "-c", "expertise", "-c", "domain")
    submitted = project("submit", "--json")
    assert submitted.exit_code == DONE
    assert submitted.document[0]["state"] == "done"
    books, report = sandbox.books(), project.report()
    assert books["items"] == {"distinct": 2 * n_texts(), "billed": 2 * n_texts(), "billed_twice": 0}
    check_prompt_tokens(report, books, "realtime")
    assert all(row["domain"] == gold_of(row["conversation_id"], "domain") for row in project.labels())


@pytest.mark.parametrize(("n", "m", "tier"), [(5, 1, "realtime"), (10, 0, "batch"), (1, 0, "realtime")])
def test_packed_and_combined_ask_each_item_once(
    project: Project, sandbox: SandboxHandle, n: int, m: int, tier: str
) -> None:
    recipe = project.recipe("mine", tier=tier, conversations_per_request=n, classifiers_per_request=m)
    result = project(
        "run", project.write("chats.jsonl", rows()), "--strategy", recipe, "--yes", "--json", *ASKED,
        "-o", str(project.folder / "labels.parquet"),
    )  # fmt: skip
    assert result.exit_code == DONE
    report, books = result.document, sandbox.books()
    assert books["items"] == {"distinct": 2 * n_texts(), "billed": 2 * n_texts(), "billed_twice": 0}
    legs = 1 if m == 0 else 2
    assert books["requests"]["distinct"] >= legs * -(-n_texts() // n)
    assert report["actual"]["n_requests"] == books["requests"]["billed"] <= legs * (n_texts() // n + 2)
    check_prompt_tokens(report, books, tier)
    for row in pl.read_parquet(project.folder / "labels.parquet").iter_rows(named=True):
        assert (row["topic"], row["task"]) == (
            gold_of(row["conversation_id"], "topic"),
            gold_of(row["conversation_id"], "task"),
        )


def test_the_grader_finds_wrong_labels_and_they_are_asked_again_alone(project: Project, sandbox: SandboxHandle) -> None:
    # Packing alone makes labels wrong here, so that asking alone makes them right again.
    sandbox.configure(pack_flip=0.15)
    recipe = project.recipe("graded", tier="batch", conversations_per_request=10, classifiers_per_request=1, grade=True)
    data = project.write("chats.jsonl", rows())
    result = project("run", data, "--strategy", recipe, "--yes", "--json", "-c", "topic")
    assert result.exit_code == DONE
    report, books = result.document, sandbox.books(detail=True)
    parts = {line["part"]: line["actual"]["n_requests"] for line in report["lines"]}
    verdicts = dict(report["classifiers"][0]["graded"])
    assert parts["grade"] == -(-n_texts() // 10)
    assert verdicts["incorrect"] == parts["reclassify"] > 0
    asked = [n for name, n in books["by_item"].items() if name.endswith(":topic")]
    assert sorted(asked) == [1] * (n_texts() - parts["reclassify"]) + [2] * parts["reclassify"]
    assert sum(n for name, n in books["by_item"].items() if name.endswith(":topic?")) == n_texts()
    detailed = project.labels("--detail")
    assert all(row["topic"] == gold_of(row["conversation_id"], "topic") for row in detailed)
    assert {row["topic_stage"] for row in detailed} == {"classify", "reclassify", None}


@pytest.mark.parametrize("doubt", ["rerun", "confidence"])
def test_doubtful_labels_are_asked_again_alone(project: Project, sandbox: SandboxHandle, doubt: str) -> None:
    sandbox.configure(packed_flip=0.2, packed_flip_correlation=0.2, unsure_flips=1.0)
    settings = project.folder / "semtel.toml"
    settings.write_text(settings.read_text().replace("gpt-6-luna", "gpt-4.1-mini"))  # a model that gives logprobs
    recipe = project.recipe(
        doubt, tier="realtime", conversations_per_request=10, classifiers_per_request=1, doubt=doubt
    )
    data = project.write("chats.jsonl", rows())
    result = project("run", data, "--strategy", recipe, "--yes", "--json", "-c", "topic")
    assert result.exit_code == DONE, result.said
    parts = {line["part"]: line["actual"]["n_requests"] for line in result.document["lines"]}
    (topic,) = result.document["classifiers"]
    verdicts = dict(topic["checked"])
    doubted = verdicts.get("split", 0) + verdicts.get("unsure", 0)
    assert doubted == parts["reclassify"] == topic["n_reclassified"] > 0
    assert dict(topic["origin"]) == {"packed": n_texts() - doubted, "reclassified": doubted}
    detailed = [row for row in project.labels("--detail") if row["topic"]]
    wrong = [row for row in detailed if row["topic"] != gold_of(row["conversation_id"], "topic")]
    if doubt == "rerun":
        assert parts["rerun"] == parts["classify"]
        assert all(row["topic_checked"] == "agreed" for row in wrong), "only what two runs agree on stays wrong"
    else:
        assert not wrong, "every flip was unsure"
        assert all(0 < row["topic_confidence"] <= 1 for row in detailed if row["topic_origin"] == "packed")
    assert project("status", "--verify").exit_code == DONE


def test_truncated_texts_are_labelled_and_counted_as_sent(project: Project, sandbox: SandboxHandle) -> None:
    recipe = project.recipe("short", tier="realtime", truncate_to=64, keep="head")
    data = project.write("chats.jsonl", rows())
    plan = project.plan(data, "--strategy", recipe, "-c", "task")
    assert not plan["certified"]
    assert project("submit").exit_code == DONE
    report, books = project.report(), sandbox.books()
    check_prompt_tokens(report, books, "realtime")
    naive = project.plan(data, "--strategy", "naive", "-c", "task")
    assert books["tokens"]["realtime"]["prompt"] < sum(
        line["usage"]["prompt_tokens"] for line in naive["chosen"]["lines"] if line["part"] == "classify"
    )
    assert report["items"]["labelled"] == report["items"]["total"] - 1


def test_an_endpoint_of_the_environment_alone(tmp_path: Path, sandbox: SandboxHandle) -> None:
    project = Project(tmp_path, sandbox, {"OPENAI_BASE_URL": sandbox.base_url, "OPENAI_API_KEY": "any"})
    data = str(EXAMPLES / "conversations.jsonl")
    plan = project.plan(data, "-c", "domain", "--deadline", "1h")
    assert plan["endpoints"][0]["model"] == "gpt-6-luna"
    assert plan["data"]["encoding"] == "o200k_base"
    assert project("submit").exit_code == DONE
    assert project.report()["items"]["labelled"] == len(CONVERSATIONS)


def test_globals_count_before_and_after_the_command(project: Project) -> None:
    elsewhere = project.folder.parent
    inside = Project(elsewhere, project.sandbox)
    data = project.write("chats.jsonl", rows())
    before = inside("--project", str(project.folder), "--json", "plan", data, "-c", "domain")
    after = inside("plan", data, "-c", "domain", "--project", str(project.folder), "--json")
    assert json.loads(before.stdout)["hash"][:3] == json.loads(after.stdout)["hash"][:3] == "b2:"
    assert len(project.done("status", "--json").document) == 2
    assert not (elsewhere / "state").exists()
    quiet = inside("-q", "--project", str(project.folder), "status")
    assert (quiet.exit_code, quiet.stderr) == (DONE, "")


def test_every_command_answers_json_with_one_document(project: Project, sandbox: SandboxHandle) -> None:
    data = project.write("chats.jsonl", rows()[:8])
    sandbox.configure(validating_s=3600.0)
    plan = project.plan(data, "--strategy", "batch", "-c", "domain")["id"]
    results: dict[str, Result] = {
        name: project(*arguments, "--json")
        for name, arguments in {
            "init": ("init", str(project.folder / "fresh")),
            "labels": ("labels", "-o", str(project.folder / "l.csv")),
            "submit": ("submit",),
            "status": ("status",),
            "cancel": ("cancel", plan),
            "collect": ("collect",),
            "retry": ("retry", plan),
            "report": ("report",),
        }.items()
    }
    codes = {name: result.exit_code for name, result in results.items()}
    assert codes == {
        "init": DONE,
        "labels": INCOMPLETE,
        "submit": INCOMPLETE,
        "status": DONE,
        "cancel": DONE,
        "collect": DONE,
        "retry": INCOMPLETE,
        "report": DONE,
    }
    for name, result in results.items():
        assert result.document is not None, name
