"""`distill` from the first label to the last: what a network is sure of it labels, the rest is for the LLM."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
import warm
from command_line import FAILED, INFEASIBLE, USAGE, Project, Result
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
N_FIRST, N_SECOND = 400, 150


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


class WarmProject(Project):
    """A project whose commands run in forked processes: imports are most of what they take."""

    def __call__(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Result:
        return warm.run(self, *arguments, environ=environ)


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxHandle]:
    gold = tmp_path_factory.mktemp("gold") / "gold.jsonl"
    lines = [
        orjson.dumps({"text": text, "labels": {"topic": kind}})
        for n, seed in ((N_FIRST, 1), (N_SECOND, 2))
        for text, kind in texts(n, seed)
    ]
    gold.write_bytes(b"\n".join(lines))
    settings = Settings(**{name: getattr(QUICK, name) for name in ("model_behind",)}, gold=str(gold))
    with running_process(settings) as handle:
        yield handle


@pytest.fixture
def project(tmp_path: Path, provider: SandboxHandle) -> Iterator[Project]:
    provider.reset()
    new_project(tmp_path / "project", provider)
    made = WarmProject(tmp_path / "project", provider)
    yield made
    check_no_key(made.folder)


def n_embedded(project: Project) -> int:
    """Requests for embeddings that were answered."""
    return sum(project.sandbox.books()["paths"].get("POST /v1/embeddings", {}).values())


def read(project: Project, name: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (project.folder / name).read_bytes().splitlines()]


def test_a_network_labels_what_it_is_sure_of_and_goes_with_its_plan(project: Project) -> None:
    first = project.plan(project.write("first.jsonl", rows(N_FIRST, 1)), "-c", "topic", "--strategy", "naive")
    project.done("collect", "--wait")
    assert project("distill", "--budget", "0.0000001").exit_code == INFEASIBLE
    assert n_embedded(project) == 0
    learned = project.done("distill", first["id"], "--embed-tier", "batch", "--json").document
    card = learned["classifiers"][0]["network"]
    assert card["threshold"] is not None
    assert 0.5 < card["coverage"] < 1
    assert learned["embedding"]["tokens"] == project.sandbox.books()["tokens"]["batch"]["prompt"] > 0

    second, sure = run_with_networks(project, card)
    # The same by hand, in files: nothing is embedded again.
    apply = ("distill", first["id"], "--apply", second, "-o", "labels.ndjson", "--rest", "rest.ndjson")
    applied = project.done(*apply, "--json").document
    assert (applied["embedding"]["tokens"], Decimal(applied["embedding"]["usd"])) == (0, 0)
    labels, rest = read(project, "labels.ndjson"), read(project, "rest.ndjson")
    assert [row["topic"] for row in labels if row["topic_how"]] == [row["topic"] for row in sure]
    assert [row["conversation_id"] for row in rest] == [
        row["conversation_id"] for row in labels if not row["topic_how"]
    ]

    check_private_and_purged(project, first["id"])
    assert project(*apply).exit_code == USAGE
    again = project("plan", str(project.folder / "second.jsonl"), "-c", "topic", "--strategy", "distilled")
    assert "There is no network for topic" in again.stderr


def run_with_networks(project: Project, card: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Planned like any other way, chosen as the agreement allows it, and run: its id, and what networks labelled."""
    data = project.write("second.jsonl", rows(N_SECOND, 2))
    second = project.plan(data, "-c", "topic", "--min-agreement", "0.95", "--deadline", "1h")
    tier = second["network"]
    assert (tier["tier"], tier["n_texts"], tier["is_measured"]) == ("realtime", N_SECOND, False)
    assert tier["coverage_low"] < tier["coverage"] < tier["coverage_high"]
    assert Decimal(tier["trained_usd"]) > 0
    assert second["alternatives"][0]["estimate"]["strategy"]["recipe"] == "distilled"
    assert n_embedded(project) == 0, "planning spends nothing"
    project.done("collect", "--wait")
    report = project.report()
    how = dict(report["classifiers"][0]["how"])
    assert how["network"] + how["exact"] == N_SECOND
    embed = next(line for line in report["lines"] if line["part"] == "embed")
    assert (embed["planned"]["n_requests"], embed["actual"]["n_requests"]) == (n_embedded(project),) * 2
    assert Decimal(report["actual"]["usd"]) <= Decimal(report["planned_high_usd"])
    assert project.sandbox.books()["requests"]["billed_twice"] == 0
    project.done("labels", second["id"], "--detail", "-o", "detailed.ndjson")
    detailed = read(project, "detailed.ndjson")
    sure = [row for row in detailed if row["topic_how"] == "network"]
    assert all(row["topic_confidence"] >= card["threshold"] - 1e-6 for row in sure)
    assert {(row["topic_origin"], row["topic_n_attempts"], row["topic_cost_usd"]) for row in sure} == {
        ("network", 0, None)
    }
    truth = [kind for _, kind in texts(N_SECOND, 2)]
    right = [row["topic"] == kind for row, kind in zip(detailed, truth, strict=True) if row["topic_how"] == "network"]
    assert sum(right) / len(right) >= 0.9  # what is certified is a share of all data like this, with 95 % confidence

    return str(second["id"]), sure


def check_private_and_purged(project: Project, learned_from: str) -> None:
    """Networks and embeddings are their owner's alone, and go with the plan that they came from."""
    models = project.folder / "state" / "models"
    made = [path for path in models.rglob("*") if path.is_file()]
    made += list((project.folder / "state" / "files").glob("*/embeddings/*"))
    assert len(made) > 3
    assert all(path.stat().st_mode & 0o077 == 0 for path in made)
    assert "leftover" not in project.done("status", "--verify").said
    said = project.done("purge", learned_from, "--keep-labels", "--yes").stdout
    assert "1 networks that learned from it" in said
    assert not list(models.rglob("*.npz"))
    assert not list((project.folder / "state" / "files" / learned_from).glob("embeddings/*"))
    project.done("status", "--verify")


def test_wrong_input_is_told_before_anything_is_paid(project: Project) -> None:
    few = project.plan(project.write("few.jsonl", rows(30, 1)), "-c", "topic", "--strategy", "naive")
    assert "no labels yet" in project("distill").stderr
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
    result = project("distill", plan["id"])
    assert result.exit_code == FAILED
    assert "text-embedding-ada-9" in result.stderr
