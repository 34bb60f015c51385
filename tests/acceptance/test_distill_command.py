"""`distill` from the first label to the last: what a network is sure of it labels, the rest is for the LLM."""

from __future__ import annotations

import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from command_line import FAILED, INFEASIBLE, USAGE, Project, Result, ended
from conftest import QUICK, check_no_key, new_project

from semtel_batch.sandbox.local import SandboxHandle, running_process
from semtel_batch.sandbox.settings import Settings

pytestmark = pytest.mark.xdist_group("distill")

WORDS = {
    "Travel and transport": "flight hotel train airport luggage itinerary ticket bus journey passport",
    "Food and cooking": "recipe oven garlic soup dinner bake onion restaurant sauce breakfast",
    "Sports and fitness": "football match gym coach training marathon goal team score exercise",
}
KINDS = list(WORDS)
ONCE = 512  # texts between two writes, as `embeddings` says
KILLED = -9


def texts(n: int, seed: int) -> Iterator[tuple[str, str]]:
    """Texts with labels that embeddings can learn; one in eight speaks of everything, and may be labelled anything."""
    drawn = random.Random(seed)
    for number in range(n):
        kind = drawn.choice(KINDS)
        pool = " ".join(WORDS.values()) if number % 8 == 0 else WORDS[kind]
        said = " ".join(drawn.choices(pool.split(), k=9))
        yield f"user: about {said}, please\nassistant: of course ({seed}-{number})", kind


def rows(n: int, seed: int) -> list[dict[str, Any]]:
    return [{"conversation_id": f"{seed}-{i}", "text": text} for i, (text, _) in enumerate(texts(n, seed))]


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxHandle]:
    gold = tmp_path_factory.mktemp("gold") / "gold.jsonl"
    lines = [orjson.dumps({"text": text, "labels": {"topic": kind}}) for text, kind in texts(400, 1)]
    gold.write_bytes(b"\n".join(lines))
    settings = Settings(**{name: getattr(QUICK, name) for name in ("model_behind",)}, gold=str(gold))
    with running_process(settings) as handle:
        yield handle


@pytest.fixture
def project(tmp_path: Path, provider: SandboxHandle) -> Iterator[Project]:
    provider.reset()
    made = new_project(tmp_path / "project", provider)
    yield made
    check_no_key(made.folder)


def n_embedded(project: Project) -> int:
    """Requests for embeddings that were answered."""
    return sum(project.sandbox.books()["paths"].get("/v1/embeddings", {}).values())


def billed(project: Project) -> int:
    """Tokens of all that was asked and not in batches."""
    tokens: int = project.sandbox.books()["tokens"]["realtime"]["prompt"]
    return tokens


def read(project: Project, name: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (project.folder / name).read_bytes().splitlines()]


def test_a_network_labels_what_it_is_sure_of_and_goes_with_its_plan(project: Project) -> None:
    first = project.plan(project.write("first.jsonl", rows(400, 1)), "-c", "topic", "--strategy", "naive")
    unlabelled = project("distill")
    assert unlabelled.exit_code == USAGE
    assert "no labels yet" in unlabelled.stderr
    project.done("collect", "--wait")
    assert project("distill", "--budget", "0.0000001").exit_code == INFEASIBLE
    assert n_embedded(project) == 0

    before = billed(project)
    learned = project.done("distill", first["id"], "--json").document
    card = learned["classifiers"][0]["network"]
    assert card["threshold"] is not None
    assert 0.5 < card["coverage"] < 1
    assert learned["embedding"]["tokens"] == billed(project) - before > 0

    offered = project.done("plan", project.write("second.jsonl", rows(2 * ONCE, 2)), "-c", "topic").stderr
    assert "Networks that were distilled here can label" in offered
    second = " ".join(offered.split()).partition(" --apply ")[2].split()[0]
    apply = ("distill", first["id"], "--apply", second, "-o", "labels.ndjson", "--rest", "rest.ndjson")
    before = billed(project)
    assert killed_after(project, 1, *apply) == KILLED
    half = billed(project) - before
    applied = project.done(*apply, "--json").document
    assert half > 0
    assert half + applied["embedding"]["tokens"] == billed(project) - before
    assert project.sandbox.books()["requests"]["billed_twice"] == 0

    labels, rest = read(project, "labels.ndjson"), read(project, "rest.ndjson")
    kept = [row for row in labels if row["topic"] is not None]
    assert len(labels) == 2 * ONCE
    assert len(kept) == applied["classifiers"][0]["n_kept"] > ONCE
    assert {row["topic_how"] for row in kept} == {"network"}
    assert all(row["topic_confidence"] >= card["threshold"] - 1e-6 for row in kept)
    assert all(row["topic_how"] is row["topic_confidence"] is None for row in labels if row["topic"] is None)
    truth = [kind for _, kind in texts(2 * ONCE, 2)]
    right = sum(row["topic"] == kind for row, kind in zip(labels, truth, strict=True) if row["topic"] is not None)
    assert right / len(kept) >= 0.9  # what is certified is a share of all data like this, with 95 % confidence
    assert [row["conversation_id"] for row in rest] == [r["conversation_id"] for r in labels if r["topic"] is None]

    # What is left is planned as it is, and is known by its text: nothing of it is embedded again.
    third = project.plan(str(project.folder / "rest.ndjson"), "-c", "topic")
    again = project.done("distill", "--apply", third["id"], first["id"], "-o", "more.csv", "--json").document
    assert (again["embedding"]["tokens"], Decimal(again["embedding"]["usd"])) == (0, 0)

    models = project.folder / "state" / "models"
    made = [path for path in models.rglob("*") if path.is_file()]
    made += list((project.folder / "state" / "files").glob("*/embeddings/*"))
    assert len(made) > 3
    assert all(path.stat().st_mode & 0o077 == 0 for path in made)
    assert "leftover" not in project.done("status", "--verify", second).said
    said = project.done("purge", first["id"], "--keep-labels", "--yes").stdout
    assert "1 networks that learned from it" in said
    assert not list(models.rglob("*.npz"))
    assert not list((project.folder / "state" / "files" / first["id"]).glob("embeddings/*"))
    project.done("status", "--verify")
    gone = project(*apply)
    assert gone.exit_code == USAGE


def killed_after(project: Project, n_parts: int, *arguments: str) -> int:
    """Run a command that a power cut ends once so many parts are written."""
    process = project.start(*arguments, environ={"SEMTEL_CRASH_AT": f"file.named:{n_parts}"})
    process.communicate(timeout=60)
    return process.returncode


def test_wrong_input_is_told_before_anything_is_paid(project: Project) -> None:
    few = project.plan(project.write("few.jsonl", rows(30, 1)), "-c", "topic", "--strategy", "naive")
    project.done("collect", "--wait")
    wrong = {
        (few["id"],): "nothing is learned from fewer",
        ("abcdef",): "abcdef",
        (few["id"], "--apply", few["id"], "-o", "labels.txt"): "ending",
        (few["id"], "--apply", few["id"], "-o", "labels.csv"): "no network",
    }
    for arguments, told in wrong.items():
        result = project("distill", *arguments)
        assert result.exit_code == USAGE, (arguments, result)
        assert told in result.stderr, (arguments, result)
    project.configure('[embedding]\nendpoint = "elsewhere"')
    assert "elsewhere" in project("distill", few["id"]).stderr
    assert n_embedded(project) == 0


def test_an_endpoint_that_has_no_such_model_is_named(project: Project) -> None:
    plan = project.plan(project.write("first.jsonl", rows(130, 1)), "-c", "topic", "--strategy", "naive")
    project.done("collect", "--wait")
    project.configure('[embedding]\nmodel = "text-embedding-ada-9"\nusd_per_million = 0.01')
    result: Result = ended(project.start("distill", plan["id"]), 60)
    assert result.exit_code == FAILED
    assert "text-embedding-ada-9" in result.stderr
