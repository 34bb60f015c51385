"""Stores, keys and endpoints that are not as they should be: a clear sentence, and nothing lost."""

from __future__ import annotations

import shutil
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from command_line import DONE, FAILED, INCOMPLETE, USAGE, Project, Result
from conftest import check_no_key, fresh, new_project

from semtel_batch.sandbox.local import SandboxHandle

pytestmark = pytest.mark.xdist_group("store")

ROWS = [{"conversation_id": f"c{n}", "text": f"user: how do I cook rice for {n}?"} for n in range(4)]


@pytest.fixture(scope="module")
def finished(sandbox_process: SandboxHandle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with a finished plan, to be copied."""
    project = new_project(tmp_path_factory.mktemp("finished") / "project", fresh(sandbox_process))
    data = project.write("d.jsonl", ROWS)
    project.done("run", data, "--strategy", "naive", "-c", "domain", "--yes", "-q")
    yield project
    check_no_key(project.folder)


@pytest.fixture
def copy(finished: Project, tmp_path: Path) -> Project:
    shutil.copytree(finished.folder, tmp_path / "copy")
    return Project(tmp_path / "copy", finished.sandbox)


def store_of(project: Project) -> Path:
    return project.folder / "state" / "semtel.sqlite3"


def check_said(result: Result, exit_code: int, *words: str) -> None:
    assert result.exit_code == exit_code, result
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr, result.stderr


def garbage(path: Path) -> None:
    path.write_bytes(b"this was a database once " * 400)


def from_the_future(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 999")


def of_something_else(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE recipes (name TEXT)")
        database.commit()


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5_000])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (garbage, ("not a sound SQLite file", "backup")),
        (from_the_future, ("999", "pip install --upgrade")),
        (of_something_else, ("something else", "--project")),
        (cut_short, ("semtel.sqlite3",)),
    ],
)
def test_a_store_that_is_not_ours_is_left_as_it_is(copy: Project, spoil: object, words: tuple[str, ...]) -> None:
    assert callable(spoil)
    spoil(store_of(copy))
    before, listing = store_of(copy).read_bytes(), copy.listing()
    for command in (["status"], ["plan", "d.jsonl", "-c", "domain"], ["labels", "-o", "l.csv"]):
        check_said(copy(*command), FAILED, *words)
    assert store_of(copy).read_bytes() == before
    assert [line for line in copy.listing() if "-wal" not in line and "-shm" not in line] == listing


def test_a_project_that_cannot_be_written(project: Project) -> None:
    data = project.write("d.jsonl", ROWS)
    (project.folder / "state").write_text("a file where a folder should be")
    before = project.listing()
    check_said(project("plan", data, "-c", "domain"), FAILED, "state", "can't be")
    assert project.listing() == before
    check_said(project("init", "/proc/nothing"), USAGE, "/proc/nothing", "choose another")


def test_plans_are_named_by_a_prefix_that_is_one_s_own(copy: Project) -> None:
    with closing(sqlite3.connect(store_of(copy))) as database:
        (plan,) = database.execute("SELECT id FROM plans").fetchone()
        columns = [row[1] for row in database.execute("PRAGMA table_info(plans)")]
        others = ", ".join(name for name in columns if name != "id")
        database.execute(f"INSERT INTO plans (id, {others}) SELECT id || '0', {others} FROM plans")
        database.commit()
    check_said(copy("report", plan[:4]), USAGE, "More than one plan", repr(plan[:4]), "status")
    check_said(copy("report", "zzz"), USAGE, "'zzz'", "status")
    check_said(copy("cancel", "%"), USAGE, "'%'")


def test_labels_go_only_where_they_can(copy: Project) -> None:
    before = copy.listing()
    check_said(copy("labels", "-o", "labels.xlsx"), USAGE, "labels.xlsx", ".parquet")
    check_said(copy("labels", "-o", "nowhere/labels.csv"), USAGE, "nowhere/labels.csv")
    assert copy("labels", "-o", "state").exit_code == USAGE
    assert copy.listing() == before


def test_gold_must_be_there_and_fit(copy: Project) -> None:
    copy.write("other.jsonl", [{"conversation_id": "x1", "domain": "Other"}])
    copy.write("bare.jsonl", [{"conversation_id": "c1", "mood": "Good"}])
    check_said(copy("evaluate", "--gold", "gone.jsonl"), USAGE, "gone.jsonl")
    check_said(copy("evaluate", "--gold", "other.jsonl"), USAGE, "'x1'", "gold")
    check_said(copy("evaluate", "--gold", "bare.jsonl"), USAGE, "domain", "mood")


def test_a_finished_plan_cannot_be_cancelled_and_needs_no_retry(copy: Project) -> None:
    plan = copy.done("status", "--json").document[0]["plan_id"]
    check_said(copy("cancel", plan), USAGE, plan, "done")
    assert copy.done("retry", plan).stdout


@pytest.mark.parametrize("tier", ["naive", "batch"])
def test_a_wrong_or_missing_key(project: Project, sandbox: SandboxHandle, tier: str) -> None:
    project.plan(project.write("d.jsonl", ROWS), "--strategy", tier, "-c", "domain")
    check_said(project("-q", "submit", environ={"SANDBOX_KEY": ""}), USAGE, "SANDBOX_KEY", "not set")
    sandbox.configure(api_key="another")
    check_said(project("-q", "submit"), FAILED, "'sandbox'", "SANDBOX_KEY")
    assert sandbox.books()["items"]["billed"] == 0
    sandbox.configure(api_key=None)
    assert project("collect", "--wait").exit_code == DONE


def test_an_endpoint_that_is_not_there(project: Project) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        project.configure(url=url)
        project.plan(project.write("d.jsonl", ROWS), "--strategy", "batch", "-c", "domain")
        result = project("-q", "submit")
    assert result.exit_code == INCOMPLETE
    assert "'sandbox'" in result.stderr


def test_an_account_without_credit(project: Project, sandbox: SandboxHandle) -> None:
    project.plan(project.write("d.jsonl", ROWS), "--strategy", "naive", "-c", "domain")
    sandbox.configure(faults={"insufficient_quota": 1.0})
    check_said(project("-q", "submit"), FAILED, "quota or credit", "'sandbox'")
    assert sandbox.books()["paths"]["POST /v1/chat/completions"]["429"] <= len(ROWS)


def test_a_model_the_endpoint_does_not_have(project: Project, sandbox: SandboxHandle) -> None:
    project.plan(project.write("d.jsonl", ROWS), "--strategy", "naive", "-c", "domain")
    sandbox.configure(models=["gpt-5.4-mini"])
    check_said(project("-q", "submit"), FAILED, "gpt-6-luna", "semtel.toml")


def test_the_sandbox_says_when_it_cannot_start(project: Project) -> None:
    port = project.sandbox.base_url.rsplit(":", 1)[1].split("/")[0]
    check_said(project("sandbox", "--port", port), USAGE, port, "--port")
    (project.folder / "s.toml").write_text("speed = 1\n")
    check_said(project("sandbox", "--port", "0", "--config", "s.toml"), USAGE, "speed", "--config")
