"""Killed with SIGKILL at every named step and at random moments: run again, everything is answered and paid once.

The endpoint's own books are the judge. Batch plans end with the very books of a run that nobody killed; realtime plans
too, but for what was answered and not yet written down when the process died, which is counted at each kill.
"""

from __future__ import annotations

import ast
import json
import random
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import warm
from command_line import DONE, EXAMPLES, INCOMPLETE, ROOT, Project
from conftest import QUICK, check_no_key, new_project

from semtel_batch import classifiers, networks
from semtel_batch.quality.network import Card, Network
from semtel_batch.sandbox.local import SandboxHandle, running_process

CONVERSATIONS = [orjson.loads(line) for line in (EXAMPLES / "conversations.jsonl").read_bytes().splitlines()][:24]
KILLED = -9
CONCURRENCY = 4
PRICE = """\
[endpoint.price]
input_usd = 0.2
output_usd = 1.2
batch_input_usd = 0.1
batch_output_usd = 0.6
"""
SOON_S = 20.0  # sandbox time after which every batch has ended
MOST_KILLS = 40


@dataclass(frozen=True)
class Job:
    """A plan to be killed: how it asks, what goes wrong at the endpoint besides, and the steps it takes."""

    classifiers: tuple[str, ...]
    grid: dict[str, Any]
    moments: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    lost_lines: int = 0
    networks: bool = False  # label what they are sure of, before anybody is asked
    varying: tuple[str, ...] = ()  # counts of the endpoint's that are not the same each time


ALWAYS = (
    "lease.taken",
    "plan.started",
    "store.not-committed",
    "file.written",
    "file.named",
    "cut.manifest-written",
    "generation.not-cut",
    "generation.cut",
    "shard.composed",
    "intake.answers-written",
    "intake.part-written",
    "intake.part-registered",
    "shard.answered",
    "merge.written",
    "merge.replaced",
    "shard.merged",
    "shard.ended",
    "shard.files-removed",
    "plan.problems-written",
    "plan.ended",
    "lease.ended",
)
REALTIME = (*ALWAYS, "realtime.intended", "realtime.answered", "realtime.not-written")
BATCH = (
    *ALWAYS,
    "batch.intended",
    "upload.not-sent",
    "upload.not-noted",
    "upload.noted",
    "batch.not-created",
    "batch.not-noted",
    "batch.noted",
    "batch.polled",
    "batch.observed",
    "download.fetched",
)
JOBS = {
    # Three lines of the first batch fail and are asked again: two generations.
    "batch": Job(("domain", "topic"), {"tier": "batch"}, BATCH, lost_lines=3),
    "realtime": Job(("domain",), {"tier": "realtime"}, REALTIME),
    # Wrong labels that the grader finds, and that are asked again alone.
    "graded": Job(
        ("domain", "topic"),
        {"tier": "batch", "conversations_per_request": 5, "grade": True},
        tuple(moment for moment in BATCH if not moment.startswith("merge.")),
        {"error_rate": 0.15},
    ),
    # The same with packs that are lost, too small to be halved and so asked alone, and so known when the grader doubts
    # what they say. Which ones are lost is another matter each time, and so who is asked twice.
    "reused": Job(
        ("domain", "topic"),
        {"tier": "batch", "conversations_per_request": 3, "grade": True},
        ("reuse.parts-written",),
        {"error_rate": 0.5},  # so that some of the nine are doubted whichever they are
        lost_lines=3,
        varying=("by_item", "requests", "tokens", "batches_by_status", "files_uploaded"),
    ),
    # Every conversation is embedded, a network keeps some of them, and the batch asks the others.
    "distilled": Job(
        ("domain",),
        {"tier": "batch"},
        (
            "embedding.manifest-written",
            "embedding.not-cut",
            "embedding.cut",
            "vectors.written",
            "vectors.merged",
            "reuse.parts-written",
        ),
        networks=True,
    ),
    # A queue that is too small for the whole: refused, cut smaller, sent as room comes. How often a batch is sent to a
    # queue without room depends on when; such a one is not executed, nor billed.
    "refused": Job(
        ("domain",),
        {"tier": "batch"},
        ("batch.refused", "batch.rejected", "split.manifests-written", "split.registered"),
        {"enqueued_tokens": 8_000},
        varying=("batches_by_status",),
    ),
}
UNREACHED = {
    "hedge.shard-moved": "it waits for a deadline to come near: tests/unit/test_runner_crash.py",
    "background.created": "what is lost there can't be listed; how much: tests/conformance/test_background.py",
    "background.noted": "tests/acceptance/test_tiers.py",
    "background.submitted": "tests/acceptance/test_tiers.py",
    "background.looked": "tests/acceptance/test_tiers.py",
    "pilot.path-laid": "tests/acceptance/test_calibrate_command.py",
    "pilot.turn-kept": "tests/acceptance/test_calibrate_command.py",
}


@dataclass
class Ground:
    """A planned project to be copied for each kill, a sandbox of its own, and what a run that nobody killed left."""

    name: str
    job: Job
    handle: SandboxHandle
    template: Path
    n_projects: int = 0
    books: dict[str, Any] = field(default_factory=dict)
    labels: list[dict[str, Any]] = field(default_factory=list)
    moments: list[str] = field(default_factory=list)

    def project(self) -> Project:
        """The planned project, at an endpoint that has not yet heard of it."""
        self.handle.reset()
        self.handle.configure(**self.job.settings)
        if self.job.lost_lines:
            self.handle.script("batch-line", "line_server_error", self.job.lost_lines)
        self.n_projects += 1
        folder = self.template.with_name(f"project{self.n_projects}")
        shutil.copytree(self.template, folder)
        return Project(folder, self.handle)


@dataclass
class Killed:
    """A run and the kills it suffered."""

    project: Project
    n_kills: int = 0
    n_lost: int = 0  # requests answered and billed, but not yet written down when the process died

    def note(self) -> None:
        self.n_kills += 1
        self.n_lost = billed_in_the_end(self.project.sandbox) - n_registered(self.project)


def n_registered(project: Project) -> int:
    """Answered requests that the store knows."""
    with closing(sqlite3.connect(project.folder / "state" / "semtel.sqlite3")) as database:
        parts = [project.folder / "state" / row[0] for row in database.execute("SELECT answers FROM parts")]
        (n,) = database.execute("SELECT coalesce(sum(n_requests), 0) FROM parts").fetchone()
    assert all(path.is_file() for path in parts), "a part that the store names is not there"
    return int(n)


def billed_in_the_end(handle: SandboxHandle) -> int:
    """Requests billed, when nothing is on its way any more."""
    before = -1
    while before != (now := int(handle.books()["requests"]["billed"])):
        before = now
        time.sleep(0.03)
    return now


def run_to_the_end(ground: Ground, kills: Iterable[Mapping[str, str]] = ()) -> Killed:
    """`submit`, then `collect` until nothing is owed; each command that is killed is given once more, as users do."""
    run, waiting, command = Killed(ground.project()), iter(kills), "submit"
    kill = next(waiting, {})
    for _ in range(4 * MOST_KILLS):
        result = warm.run(run.project, command, environ=kill)
        if result.exit_code == KILLED:
            run.note()
            kill = next(waiting, {})
        elif result.exit_code == DONE:
            return run
        else:
            assert result.exit_code == INCOMPLETE, result
            command = "collect"
            ground.handle.advance(SOON_S)
    raise AssertionError("it does not come to an end")


def check(ground: Ground, run: Killed) -> None:
    """Everything is labelled, everything was paid once, and the store says the same as the endpoint's books."""
    project, books = run.project, ground.handle.books(detail=True)
    if ground.job.grid["tier"] == "batch":
        for count in ("by_item", "requests", "tokens", "batches_by_status", "files_uploaded"):
            assert count in ground.job.varying or books[count] == ground.books[count], count
        assert books["requests"]["billed_twice"] == 0
    else:
        assert books["requests"]["billed"] == len(CONVERSATIONS) + run.n_lost
        assert books["items"]["distinct"] == len(CONVERSATIONS)
    labels = project.folder / "labels.ndjson"
    assert warm.run(project, "labels", "-o", str(labels)).exit_code == DONE
    assert [orjson.loads(line) for line in labels.read_bytes().splitlines()] == ground.labels
    check_report(project, books, run)
    audit = warm.run(project, "status", "--verify")
    assert audit.exit_code == DONE, audit
    check_nothing_is_left_over(project)
    check_no_key(project.folder)


def check_report(project: Project, books: dict[str, Any], run: Killed) -> None:
    report = json.loads(warm.run(project, "report", "--json").stdout)
    items = report["items"]
    assert (items["labelled"] + items["failed"], items["owed"]) == (items["total"], 0)
    if "batch" in books["tokens"] or not run.n_lost:
        billed = sum(tokens["prompt"] for tokens in books["tokens"].values())
        assert report["actual"]["usage"]["prompt_tokens"] == billed


def check_nothing_is_left_over(project: Project) -> None:
    """No file of lines, no part that the store does not name, nothing half written."""
    (files,) = (project.folder / "state" / "files").iterdir()
    with closing(sqlite3.connect(project.folder / "state" / "semtel.sqlite3")) as database:
        named = {Path(path).name for row in database.execute("SELECT answers, labels FROM parts") for path in row}
        assert database.execute("SELECT count(*) FROM leases").fetchone() == (0,)
    assert {path.name for kind in ("answers", "labels") for path in (files / kind).iterdir()} == named
    assert list((files / "shards").glob("*")) == []
    assert [path for path in files.rglob("*") if path.suffix in (".tmp", ".part")] == []


def prepared(name: str, dress: str, folder: Path, handle: SandboxHandle) -> Ground:
    """Plan once, and run it once undisturbed."""
    job = JOBS[name]
    project = new_project(folder / "template", handle)
    if dress == "azure":
        settings = project.folder / "semtel.toml"
        settings.write_text(settings.read_text(encoding="utf-8").replace('"openai"', '"azure"'), encoding="utf-8")
    with (project.folder / "semtel.toml").open("a", encoding="utf-8") as file:
        file.write(f"concurrency = {CONCURRENCY}\n{PRICE}")
    data = project.write("chats.jsonl", CONVERSATIONS)
    chosen = [word for classifier in job.classifiers for word in ("-c", classifier)]
    if job.networks:
        keep_networks(project.folder)
        chosen += ["--strategy", "distilled"]
    made = warm.run(project, "plan", data, "--strategy", project.recipe("mine", **job.grid), *chosen)
    assert made.exit_code == DONE, made
    ground = Ground(f"{name}-{dress}", job, handle, project.folder)
    log = folder / "moments"
    undisturbed = run_to_the_end(ground, repeat({"SEMTEL_CRASH_LOG": str(log)})).project
    ground.books = handle.books(detail=True)
    ground.moments = log.read_text(encoding="utf-8").split()
    labels = undisturbed.folder / "labels.ndjson"
    assert warm.run(undisturbed, "labels", "-o", str(labels)).exit_code == DONE
    assert warm.run(undisturbed, "status", "--verify").exit_code == DONE
    ground.labels = [orjson.loads(line) for line in labels.read_bytes().splitlines()]
    return ground


def keep_networks(folder: Path) -> None:
    """A network that nobody trained: it is sure of some conversations and not of others, which is all that matters."""
    (classifier,) = classifiers.find(("domain",), folder / "prompts")
    n = len(classifier.labels)
    drawn = np.random.default_rng(1)
    network = Network(
        card=Card(
            classifier=classifier.name,
            labels=classifier.label_names,
            classifier_version=classifier.version,
            embedding_model="text-embedding-3-small",
            dimensions=1536,
            data_hash="none",
            reference="plan none",
            seed=1,
            created_at="2026-11-26T10:00:00+00:00",
            n_trained=100,
            n_calibrated=100,
            temperature=1.0,
            min_similarity=-1.0,
            threshold=0.5,
            n_kept=50,
            coverage=0.5,
        ),
        layers=((drawn.normal(0, 2, (1536, n)).astype(np.float32), np.zeros(n, np.float32)),),
        kinds=np.ones((1, 1536), np.float32),
    )
    networks.keep(folder / "state" / networks.FOLDER, network)


def known_moments() -> set[str]:
    """Every moment that the program names."""
    calls = (
        node
        for path in (ROOT / "semtel_batch").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reach"
    )
    return {argument.value for call in calls for argument in call.args if isinstance(argument, ast.Constant)}


GROUNDS = [
    pytest.param((job, dress), id=f"{job}-{dress}", marks=pytest.mark.xdist_group(f"{job}-{dress}"))
    for job in JOBS
    for dress in ("openai", "azure")
    if dress == "openai" or job in ("batch", "realtime")
]


@pytest.fixture(scope="module", params=GROUNDS)
def ground(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    name, dress = request.param
    with running_process(replace(QUICK, dress=dress)) as handle:
        yield prepared(name, dress, tmp_path_factory.mktemp(f"{name}-{dress}"), handle)


def test_no_moment_is_left_out() -> None:
    """The steps that are killed below are all that the program names."""
    assert known_moments() == {moment for job in JOBS.values() for moment in job.moments} | set(UNREACHED)


def test_the_steps_are_those_of_a_run(ground: Ground) -> None:
    assert set(ground.job.moments) <= set(ground.moments)


def test_killed_once_at_a_step(ground: Ground) -> None:
    """A kill, and a run to the end: for each step on its own."""
    if ground.name not in ("batch-openai", "realtime-openai"):
        pytest.skip("the next test kills these at every step of one run")
    wrong = []
    for name in ground.job.moments:
        run = run_to_the_end(ground, [{"SEMTEL_CRASH_AT": name}])
        try:
            assert run.n_kills == 1
            check(ground, run)
        except AssertionError as error:
            wrong.append(f"killed at {name}: {error}")
    assert not wrong, "\n\n".join(wrong)


def test_killed_at_every_step_of_one_run(ground: Ground, tmp_path: Path) -> None:
    """Each process lives until it comes to a step that none before it came to."""
    log = tmp_path / "moments"
    run = run_to_the_end(ground, repeat({"SEMTEL_CRASH_AT": "new", "SEMTEL_CRASH_LOG": str(log)}))
    missed = set(ground.job.moments) - set(log.read_text(encoding="utf-8").split())
    # Who dies at the end of the only shard leaves its files to the end of the plan.
    assert missed <= {"shard.files-removed"}
    # Two threads may come to two new steps at once, and die of the first.
    assert run.n_kills >= len(ground.job.moments) - 3
    check(ground, run)


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_again_and_again_anywhere(ground: Ground, seed: int) -> None:
    """Later rounds of a step too: the same steps in the same order, the moment drawn."""
    drawn = random.Random(seed)
    run = run_to_the_end(ground, ({"SEMTEL_CRASH_AT": f"*:{drawn.randint(1, 90)}"} for _ in range(MOST_KILLS)))
    assert run.n_kills >= 1
    check(ground, run)
