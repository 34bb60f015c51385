"""`status --verify`: a sound project is found sound, and of one thing changed at a time each is named."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import polars as pl
import pytest
from click.testing import CliRunner, Result

from semtel_batch import plans
from semtel_batch.audit.findings import Severity
from semtel_batch.audit.project import Audit, audit
from semtel_batch.cli import main
from semtel_batch.clock import SystemClock
from semtel_batch.compose.compress.backends import Way
from semtel_batch.compose.compress.results import Compression
from semtel_batch.config import Defaults, Settings
from semtel_batch.conversations import Columns
from semtel_batch.engines.local import Wish, make_plan
from semtel_batch.errors import Incomplete
from semtel_batch.plans import Objective, Plan
from semtel_batch.records import Endpoint, EndpointKind, Tier
from semtel_batch.runner import Runner
from semtel_batch.sandbox import settings as sandbox_settings
from semtel_batch.sandbox.local import SandboxHandle, running
from semtel_batch.store import Store
from semtel_batch.transport.endpoints import open_transport
from semtel_batch.transport.protocol import Transport

pytestmark = pytest.mark.xdist_group("audit")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RECIPE = """\
name = "small"
summary = "Packs of five, graded."
[grid]
tier = ["{tier}"]
conversations_per_request = [5]
classifiers_per_request = [0]
grade = [true]
"""
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
QUICK = sandbox_settings.Settings(
    model_behind="scripted",
    gold=str(EXAMPLES / "gold.jsonl"),
    conversations=str(EXAMPLES / "conversations.jsonl"),
    validating_s=0.01,
    in_progress_s=0.01,
    finalizing_s=0.01,
    grader_false_alarms=0.3,
    faults={"code_fence": 0.1},
)


@dataclass(frozen=True)
class Project:
    """A project's folder, and what an audit of it says."""

    folder: Path

    @property
    def plan(self) -> Plan:
        with closing(Store(self.folder, create=False)) as store:
            return store.plan()

    @property
    def files(self) -> Path:
        return next(path for path in (self.folder / "state" / "files").iterdir() if not path.name.startswith("."))

    def audit(self, now: datetime = NOW) -> Audit:
        with closing(Store(self.folder, create=False)) as store:
            return audit(store, None, now)

    def sql(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self.folder / "state" / "semtel.sqlite3")) as database, database:
            assert database.execute(statement, values).rowcount, statement

    def edit(self, pattern: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        """Rewrite the first file that fits."""
        path = self.first(pattern)
        before = pl.read_parquet(path)
        after = change(before)
        assert not after.equals(before)
        after.cast({name: before.schema[name] for name in after.columns}).write_parquet(path)

    def first(self, pattern: str) -> Path:
        return min(path for path in self.files.glob(pattern) if path.stat().st_size)


def make(folder: Path, sandbox: SandboxHandle, tier: str) -> Project:
    """Plan the examples, one of them twice, and a conversation without a word."""
    (folder / "strategies").mkdir(parents=True)
    (folder / "strategies" / "small.toml").write_text(RECIPE.format(tier=tier), encoding="utf-8")
    rows = [orjson.loads(line) for line in (EXAMPLES / "conversations.jsonl").read_bytes().splitlines()]
    rows += [{**rows[0], "conversation_id": "again"}, {"conversation_id": "silent", "turns": []}]
    data = folder / "data.jsonl"
    data.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    endpoint = Endpoint(
        name="sandbox",
        kind=EndpointKind.OPENAI,
        base_url=sandbox.base_url,
        model="gpt-6-luna",
        api_key_env="KEY",
    )
    defaults = Defaults(classifiers=("topic", "task"), max_attempts=3)
    settings = Settings(project=folder, endpoints=(endpoint,), columns=Columns(), defaults=defaults)
    wish = Wish(source=str(data), classifiers=(), objective=Objective(), recipes=("small",), columns=Columns())
    make_plan(settings, wish, SystemClock())
    return Project(folder)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxHandle]:
    with running(QUICK) as handle:
        yield handle


@pytest.fixture(scope="module")
def finished(sandbox: SandboxHandle, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = make(tmp_path_factory.mktemp("finished") / "project", sandbox, "batch")
    sandbox.script("batch-line", "line_server_error")  # so that something is asked again
    sandbox.script("/v1/chat/completions", "drop_id", times=2)
    work(project, sandbox, lambda runner: runner.collect(wait=True))
    return project


@pytest.fixture(scope="module")
def submitted(sandbox: SandboxHandle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    sandbox.configure(validating_s=3600.0)
    project = make(tmp_path_factory.mktemp("submitted") / "project", sandbox, "batch")
    with suppress(Incomplete):
        work(project, sandbox, Runner.submit)
    sandbox.configure(validating_s=QUICK.validating_s)
    yield project


@dataclass(frozen=True)
class QuickClock(SystemClock):
    """Waiting is the sandbox's time jumping ahead."""

    sandbox: SandboxHandle

    def sleep(self, seconds: float) -> None:
        self.sandbox.advance(seconds)


def work(project: Project, sandbox: SandboxHandle, do: Callable[[Runner], object]) -> None:
    def opened(members: Sequence[Endpoint], tier: Tier) -> Transport:
        return open_transport(members, tier, {"KEY": "k"})

    with closing(Store(project.folder)) as store:
        do(Runner(store, store.plan(), opened, QuickClock(sandbox), lambda tick: None))


def copied(project: Project, to: Path) -> Project:
    shutil.copytree(project.folder, to / "copy")
    return Project(to / "copy")


# -- sound -----------------------------------------------------------------------------------------------------


def test_a_finished_plan_is_sound(finished: Project) -> None:
    found = finished.audit()
    assert found.findings == ()
    assert found.is_sound
    assert found.n_conversations == 67
    with closing(Store(finished.folder)) as store:
        parts, shards = store.parts(finished.plan.id), store.shards(finished.plan.id)
    assert (found.n_shards, found.n_requests) == (len(shards), sum(part.n_requests for part in parts))
    assert found.usd == sum(part.cost_usd for part in parts) > 0
    assert {row.shard.stage.value for row in shards} == {"classify", "grade", "reclassify"}
    assert any(row.shard.attempt for row in shards)


def test_an_audit_writes_nothing(finished: Project) -> None:
    def listing() -> list[tuple[str, int, int]]:
        files = (path for path in finished.files.rglob("*") if path.is_file())
        return sorted((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)

    before = listing()
    finished.audit()
    assert listing() == before


def test_a_plan_that_waits_is_sound(submitted: Project) -> None:
    assert submitted.audit().findings == ()


def test_a_plan_before_its_start_is_sound(sandbox: SandboxHandle, tmp_path: Path) -> None:
    assert make(tmp_path / "project", sandbox, "batch").audit().findings == ()


def test_only_the_plans_named_are_looked_at(finished: Project) -> None:
    with closing(Store(finished.folder)) as store:
        assert audit(store, set(), NOW).n_plans == 0
        assert audit(store, {finished.plan.id}, NOW).n_plans == 1


def with_compressed(project: Project, to: Path) -> Project:
    """A copy whose texts were compressed, as a recipe that compresses leaves them."""
    made = copied(project, to)
    texts = pl.concat(map(pl.read_parquet, made.files.glob("conversations/part-*.parquet")))["text"]
    Compression(made.files, Way(compressor="rules", rate=0.5, encoding="o200k_base"))(texts)
    assert pl.read_parquet(made.first("compressed/*.parquet"))["text"].null_count() < texts.len()
    return made


def test_what_was_compressed_is_sound(finished: Project, tmp_path: Path) -> None:
    assert with_compressed(finished, tmp_path).audit().findings == ()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (pl.lit(b"0" * 16).alias("text_hash"), "compressed texts of no conversation"),
        ((pl.col("text") + " more").alias("text"), "compressed texts with another number of tokens"),
        (pl.col("n_after").alias("n_before"), "compressed texts that are no shorter"),
    ],
)
def test_what_was_compressed_and_changed_since_is_named(
    finished: Project, tmp_path: Path, change: pl.Expr, what: str
) -> None:
    project = with_compressed(finished, tmp_path)
    project.edit("compressed/*.parquet", lambda frame: frame.with_columns(change))
    assert {finding.what for finding in project.audit().findings} == {what}


# -- harmless --------------------------------------------------------------------------------------------------


def only_harmless(project: Project, now: datetime = NOW) -> list[str]:
    found = project.audit(now)
    assert found.is_sound, found.findings
    assert all(finding.severity is Severity.HARMLESS for finding in found.findings)
    return [f"{finding.which}: {finding.what}" for finding in found.findings]


def test_a_kill_between_a_part_and_its_registration_leaves_harmless_files(
    sandbox: SandboxHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make(tmp_path / "project", sandbox, "realtime")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Store, "add_part", killed)
        work(project, sandbox, Runner.submit)
    told = only_harmless(project)
    assert len(told) == 2 and all("leftover of a crash" in line for line in told)
    work(project, sandbox, lambda runner: runner.collect(wait=True))
    assert project.audit().findings == ()


def test_a_kill_between_a_merge_and_its_clean_up_leaves_harmless_files(finished: Project, tmp_path: Path) -> None:
    project = copied(finished, tmp_path)
    for kind in ("answers", "labels"):
        path = project.first(f"{kind}/*.parquet")
        shutil.copy(path, path.with_name(path.name.replace(".0000", ".0007")))
    assert len(only_harmless(project)) == 2


@pytest.mark.parametrize("name", ["answers/x.tmp", "shards/old.jsonl", "shards/x.file.part", "conversations/notes.txt"])
def test_strange_files_are_harmless(finished: Project, tmp_path: Path, name: str) -> None:
    project = copied(finished, tmp_path)
    path = project.files / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"left")
    assert only_harmless(project) == [f"{project.files.name}/{name}: leftover of a crash, may be deleted"]


def test_a_folder_without_a_plan_is_harmless(finished: Project, tmp_path: Path) -> None:
    project = copied(finished, tmp_path)
    (project.files.parent / "zzzz").mkdir()
    assert only_harmless(project) == ["zzzz: leftover of a crash, may be deleted"]


def test_a_done_plan_whose_folder_was_deleted_is_told(finished: Project, tmp_path: Path) -> None:
    project = copied(finished, tmp_path)
    shutil.rmtree(project.files)
    assert "its folder was deleted" in only_harmless(project)[0]


@pytest.mark.parametrize(("ends", "said"), [(1, "being worked on"), (-1, "a process that died")])
def test_leases_are_told(finished: Project, tmp_path: Path, ends: int, said: str) -> None:
    project = copied(finished, tmp_path)
    until = (NOW + ends * timedelta(minutes=1)).isoformat()
    project.sql("INSERT INTO leases VALUES (?, 'here:1:a', ?)", f"plan {project.plan.id}", until)
    assert said in only_harmless(project)[0]


def test_a_rejection_cut_in_two_is_harmless(submitted: Project, tmp_path: Path) -> None:
    project = copied(submitted, tmp_path)
    project.sql("UPDATE submissions SET state = 'rejected'")
    assert "newest submission of a shard that was sent" in only_harmless(project)[0]


def test_what_another_version_reads_otherwise_is_harmless(finished: Project, tmp_path: Path) -> None:
    project = copied(finished, tmp_path)
    said = '{"results": [{"id": 1, "topic": "Trav el and transport"}]}'
    read = pl.read_parquet(project.first(LABELS)).filter(pl.col("outcome") == "answered")
    chosen = pl.col("request") == read["request"][0]

    def odd(answers: pl.DataFrame) -> pl.DataFrame:
        return answers.with_columns(content=pl.when(chosen).then(pl.lit(said)).otherwise("content"))

    def unread(labels: pl.DataFrame) -> pl.DataFrame:
        item = chosen & (pl.col("slot") == 1) & (pl.col("classifier") == "topic")
        rest = chosen & ~item
        return labels.with_columns(
            label=pl.when(item | rest).then(None).otherwise("label"),
            how=pl.when(item | rest).then(pl.lit("")).otherwise("how"),
            outcome=pl.when(item).then(pl.lit("invalid")).when(rest).then(pl.lit("missing")).otherwise("outcome"),
        )

    project.edit(ANSWERS, odd)
    project.edit(LABELS, unread)
    found = [f for f in project.audit().findings if f.which.startswith("labels/") and "-0c0-" in f.which]
    assert [(f.what, f.severity) for f in found if f.what.startswith("labels that")] == [
        ("labels that this version reads otherwise", Severity.HARMLESS)
    ]


# -- broken: the database --------------------------------------------------------------------------------------

FIRST_SHARD = "(SELECT min(id) FROM shards)"
FIRST_PART = "(SELECT min(id) FROM parts)"

STATEMENTS = {
    "UPDATE plans SET document = replace(document, '\"max_attempts\":3', '\"max_attempts\":4')": "hash of the document",
    "UPDATE plans SET hash = 'b2:00'": "hash of the row",
    "UPDATE plans SET document = '{}'": "the plan's document can't be read",
    "UPDATE plans SET state = 'resting'": "rows of plans can't be read",
    "UPDATE plans SET state = 'planned'": "generations of a plan that was not started",
    f"UPDATE shards SET n_requests = n_requests + 1 WHERE id = {FIRST_SHARD}": "requests are not numbered",
    f"UPDATE shards SET n_items = n_items + 1 WHERE id = {FIRST_SHARD}": "n_items of the store",
    f"UPDATE shards SET way = 'another' WHERE id = {FIRST_SHARD}": "way of asking",
    f"UPDATE shards SET state = 'cut' WHERE id = {FIRST_SHARD}": "ended, as all its shards have",
    f"UPDATE shards SET state = 'submitted' WHERE id = {FIRST_SHARD}": "newest submission of a shard that was sent",
    f"UPDATE shards SET state = 'asleep' WHERE id = {FIRST_SHARD}": "rows of its execution can't be read",
    f"UPDATE shards SET endpoint = 'elsewhere' WHERE id = {FIRST_SHARD}": "endpoint of the leg",
    f"UPDATE shards SET tier = '2h' WHERE id = {FIRST_SHARD}": "the plan has no price for it",
    f"UPDATE shards SET tier = 'realtime' WHERE id = {FIRST_SHARD}": "cost_usd of the store",
    f"UPDATE shards SET classifiers = '[\"topic\"]' WHERE id = {FIRST_SHARD}": "a classifier that was not asked",
    f"UPDATE shards SET classifiers = '[\"mood\"]' WHERE id = {FIRST_SHARD}": "classifiers that the leg has not",
    f"UPDATE shards SET key = 'x' || key WHERE id = {FIRST_SHARD}": "begins its name as its generation does",
    "UPDATE legs SET ended_at = NULL WHERE stage = 'grade'": "generations that a done plan still owes",
    "UPDATE legs SET attempt = 9 WHERE stage = 'classify' AND attempt = 0": "shards of no generation",
    "DELETE FROM legs WHERE stage = 'grade'": "shards of no generation",
    "UPDATE parts SET n_requests = n_requests - 1": "requests with an answer, of a shard that has ended",
    "UPDATE parts SET n_items = n_items + 1": "n_items of the store",
    "UPDATE parts SET n_answered = n_answered + 1": "n_answered of the store",
    "UPDATE parts SET n_tries = n_tries + 1": "n_tries of the store",
    "UPDATE parts SET prompt_tokens = prompt_tokens + 1": "prompt_tokens of the store",
    "UPDATE parts SET cached_tokens = cached_tokens + 1": "cached_tokens of the store",
    "UPDATE parts SET completion_tokens = completion_tokens - 1": "completion_tokens of the store",
    "UPDATE parts SET reasoning_tokens = 7": "reasoning_tokens of the store",
    f"UPDATE parts SET cost_usd = cost_usd || '1' WHERE id = {FIRST_PART}": "cost_usd of the store",
    f"UPDATE parts SET cost_usd = 'much' WHERE id = {FIRST_PART}": "rows of its execution can't be read",
    f"UPDATE parts SET shard_id = 999 WHERE id = {FIRST_PART}": "damage that SQLite finds",
    f"DELETE FROM parts WHERE id = {FIRST_PART}": "requests without an answer, of a shard that has ended",
    f"DELETE FROM submissions WHERE shard_id = {FIRST_SHARD}": "newest submission of a shard that has ended",
    f"UPDATE submissions SET number = 3 WHERE shard_id = {FIRST_SHARD}": "numbers of its submissions",
    f"UPDATE submissions SET state = 'asleep' WHERE shard_id = {FIRST_SHARD}": "states that no submission has",
    "UPDATE submissions SET batch_id = 'batch_1'": "batches of two submissions",
    "INSERT INTO submissions SELECT 99, shard_id, 2, 'submitted', NULL, NULL, NULL, 0, 0, 0, NULL, NULL, intended_at, "
    f"NULL, NULL, NULL FROM submissions WHERE shard_id = {FIRST_SHARD}": "submissions without the id of a batch",
    "INSERT INTO submissions SELECT 99, shard_id, 2, 'ended', NULL, 'b', NULL, 0, 0, 0, NULL, NULL, intended_at, "
    f"NULL, NULL, NULL FROM submissions WHERE shard_id = {FIRST_SHARD}": "submissions before the newest",
    "DELETE FROM problems WHERE classifier = 'task'": "items with neither a label nor a named failure",
    "UPDATE problems SET row = 0 WHERE classifier = 'topic'": "items with a label and a failure",
    "UPDATE problems SET row = 999 WHERE classifier = 'topic'": "failures of conversations that are none",
    "UPDATE problems SET classifier = 'mood' WHERE classifier = 'topic'": "failures of classifiers that the plan",
    "UPDATE problems SET attempts = attempts + 1": "failures after another number of attempts",
}


def broken(project: Project) -> list[str]:
    found = project.audit()
    assert not found.is_sound
    assert all(finding.which and finding.expected != finding.found for finding in found.findings)
    return [finding.what for finding in found.findings if finding.severity is Severity.BROKEN]


def names(told: list[str], what: str) -> bool:
    return any(line.startswith(what) for line in told)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_changed_row_is_named(finished: Project, tmp_path: Path, statement: str) -> None:
    project = copied(finished, tmp_path)
    project.sql(statement)
    told = broken(project)
    assert names(told, STATEMENTS[statement]), told


def test_answers_paid_twice_are_named(finished: Project, tmp_path: Path) -> None:
    project = copied(finished, tmp_path)
    columns = "plan_id, shard_id, answers, labels, n_requests, n_items, n_answered, n_tries, prompt_tokens, "
    columns += "cached_tokens, cache_write_tokens, completion_tokens, reasoning_tokens, cost_usd, written_at"
    project.sql(f"INSERT INTO parts ({columns}) SELECT {columns} FROM parts WHERE id = {FIRST_PART}")
    told = broken(project)
    for what in ("parts that are registered twice", "requests answered twice", "conversations answered twice"):
        assert names(told, what), told


def test_a_frozen_document_with_another_version_is_named(finished: Project, tmp_path: Path) -> None:
    project = copied(finished, tmp_path)
    plan = project.plan
    topic = replace(plan.classifiers[0], instructions="Something else.")
    changed = plans.seal(replace(plan, classifiers=(topic, *plan.classifiers[1:])))
    project.sql("UPDATE plans SET document = ?, hash = ?", plans.to_json(changed), changed.hash)
    told = broken(project)
    assert names(told, "version") and names(told, "way of asking") and not names(told, "hash of")


def test_planned_figures_are_counted_again(finished: Project, tmp_path: Path) -> None:
    project = copied(finished, tmp_path)
    plan = project.plan
    changed = plans.seal(replace(plan, data=replace(plan.data, text_tokens=1, n_unique=2, max_tokens=3)))
    project.sql("UPDATE plans SET document = ?, hash = ?", plans.to_json(changed), changed.hash)
    assert len(broken(project)) == 3


# -- broken: the files -----------------------------------------------------------------------------------------


def put(column: str, value: object, at: int | None = None) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Change one value: at a row, or at the first that was answered."""

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        values = frame[column].to_list()
        place = at if at is not None else first_answered(frame)
        values[place] = value(values[place]) if callable(value) else value
        return frame.with_columns(pl.Series(column, values, dtype=frame.schema[column]))

    return change


def first_answered(frame: pl.DataFrame) -> int:
    if "how" in frame.columns:
        return int((frame["how"] == "exact").arg_max() or 0)
    return int((frame["outcome"] == "answered").arg_max() or 0) if "outcome" in frame.columns else 0


def without_first(frame: pl.DataFrame) -> pl.DataFrame:
    return frame[1:]


def without_last(frame: pl.DataFrame) -> pl.DataFrame:
    return frame[:-1]


def first_twice(frame: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([frame[:1], frame])


def swapped(column: str) -> Callable[[pl.DataFrame], pl.DataFrame]:
    def change(frame: pl.DataFrame) -> pl.DataFrame:
        values = frame[column].to_list()
        return frame.with_columns(pl.Series(column, [values[1], values[0], *values[2:]], dtype=frame.schema[column]))

    return change


TEXTS, INDEX = "conversations/part-*.parquet", "conversations/index.parquet"
ANSWERS, LABELS, MANIFEST = "answers/*-0c0-*.parquet", "labels/*-0c0-*.parquet", "manifests/*-0c0-*.parquet"
EDITS: list[tuple[str, Callable[[pl.DataFrame], pl.DataFrame], str]] = [
    (TEXTS, put("text", lambda text: text + "."), "text_hash is not the hash of the text"),
    (TEXTS, put("text", lambda text: text + "."), "n_bytes is not the size of the text"),
    (TEXTS, swapped("text"), "fingerprint is not the item's"),
    (TEXTS, put("text_hash", b"\0" * 16), "text_hash is not the hash of the text"),
    (TEXTS, put("text", None), "texts that are missing"),
    (TEXTS, without_last, "rows are not those of the index"),
    (TEXTS, lambda frame: frame.drop("text_hash"), "the file has other columns"),
    (INDEX, put("n_tokens", lambda n: n + 1), "n_tokens is not what counting gives"),
    (INDEX, put("n_bytes", lambda n: n - 1), "n_bytes is not the size of the text"),
    (INDEX, put("first_row", 0, at=1), "first_row is not the first with the text"),
    (INDEX, put("first_row", 65, at=65), "first_row is not the first with the text"),
    (INDEX, put("conversation_id", "again"), "conversation_id is missing or there twice"),
    (INDEX, put("conversation_id", None), "conversation_id is missing or there twice"),
    (INDEX, without_first, "rows are not numbered"),
    (INDEX, without_last, "rows are not those of the index"),
    (MANIFEST, swapped("row"), "row is not the item's"),
    (MANIFEST, swapped("slot"), "requests whose slots are not 1, 2, 3"),
    (MANIFEST, put("row", 999), "rows that the data has not"),
    (MANIFEST, without_last, "n_items of the store"),
    (MANIFEST, lambda frame: frame.filter(pl.col("request") != 1), "requests are not numbered"),
    (MANIFEST, lambda frame: frame.with_columns(row=pl.lit(frame["row"][0])), "conversations asked twice in one"),
    (MANIFEST, lambda frame: frame.with_columns(row=pl.lit(frame["row"][0])), "conversations that nobody asked"),
    (MANIFEST, put("row", 66), "conversations asked that are empty or repeat another"),
    (ANSWERS, without_first, "n_requests of the store"),
    (ANSWERS, without_first, "requests without an answer, of a shard that has ended"),
    (ANSWERS, without_first, "items that no answered request holds"),
    (ANSWERS, first_twice, "requests answered twice"),
    (ANSWERS, put("request", 999), "answers to requests that the shard has not"),
    (ANSWERS, put("outcome", "pondered"), "outcomes that are none"),
    (ANSWERS, put("outcome", "refused"), "labels that their answers do not say"),
    (ANSWERS, put("content", '{"results": []}'), "labels that their answers do not say"),
    (ANSWERS, put("prompt_tokens", lambda n: n + 1), "prompt_tokens of the store"),
    (ANSWERS, put("prompt_tokens", lambda n: n + 1), "cost_usd of the store"),
    (ANSWERS, put("n_tries", 9), "n_tries of the store"),
    (ANSWERS, put("endpoint", "stranger"), "answers of endpoints that were not to be asked"),
    (LABELS, without_first, "items of answered requests without a line"),
    (LABELS, first_twice, "items read twice"),
    (LABELS, put("label", "Weather on Mars"), "labels that are not of the label set"),
    (LABELS, put("outcome", "missing"), "labels that are not of the label set"),
    (LABELS, put("outcome", "missing"), "n_answered of the store"),
    (LABELS, put("fingerprint", b"\1" * 16), "fingerprint is not the item's"),
    (LABELS, put("row", lambda row: (row + 1) % 60), "row is not the item's"),
    (LABELS, put("classifier", "mood"), "a classifier that was not asked"),
    (LABELS, put("permanent", lambda is_so: not is_so), "labels that their answers do not say"),
]


def test_parts_of_an_earlier_version_are_sound(finished: Project, tmp_path: Path) -> None:
    project = copied(finished, tmp_path)
    project.edit(ANSWERS, lambda frame: frame.drop("endpoint", "tier"))
    assert project.audit().findings == ()


@pytest.mark.parametrize(("pattern", "change", "what"), EDITS, ids=[f"{i}: {e[2]}" for i, e in enumerate(EDITS)])
def test_a_changed_file_is_named(
    finished: Project, tmp_path: Path, pattern: str, change: Callable[[pl.DataFrame], pl.DataFrame], what: str
) -> None:
    project = copied(finished, tmp_path)
    project.edit(pattern, change)
    told = broken(project)
    assert names(told, what), told


def test_a_label_changed_to_another_of_its_set_is_named(finished: Project, tmp_path: Path) -> None:
    project = copied(finished, tmp_path)
    labels = pl.read_parquet(project.first(LABELS))
    at = first_answered(labels)
    name = labels["classifier"][at]
    others = project.plan.classifier(name).label_names
    project.edit(LABELS, put("label", lambda label: next(other for other in others if other != label), at))
    told = broken(project)
    assert names(told, "labels that their answers do not say"), told
    assert any("graded" in line or "fingerprint" in line for line in told)  # the grader judged the old one


@pytest.mark.parametrize("pattern", [TEXTS, INDEX, MANIFEST, ANSWERS, LABELS])
@pytest.mark.parametrize("torn", [True, False])
def test_a_file_that_is_gone_or_torn_is_named(finished: Project, tmp_path: Path, pattern: str, torn: bool) -> None:
    project = copied(finished, tmp_path)
    path = project.first(pattern)
    content = path.read_bytes()
    path.unlink()
    if torn:
        path.write_bytes(content[: len(content) // 2])
    found = [f for f in project.audit().findings if f.which == f"{path.parent.name}/{path.name}"]
    assert [f.what for f in found] == ["the file can't be read" if torn else "the file is gone"]


def test_an_answered_item_that_was_asked_again_is_named(finished: Project, tmp_path: Path) -> None:
    project = copied(finished, tmp_path)
    first = pl.read_parquet(project.first(LABELS))
    answered = first.filter(pl.col("outcome") == "answered")["row"][0]
    project.edit("manifests/*-0c1-*.parquet", put("row", answered))
    assert names(broken(project), "conversations asked again that were answered")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda lines: lines[:-1], "lines"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "custom_id of a line"),
        (lambda lines: [lines[0][:50] + b"\n", *lines[1:]], "the file can't be read"),
    ],
)
def test_lines_that_wait_are_held_against_the_shard(
    submitted: Project, tmp_path: Path, change: Callable[[list[bytes]], list[bytes]], what: str
) -> None:
    project = copied(submitted, tmp_path)
    path = project.first("shards/*.jsonl")
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    assert broken(project) == [what]


def test_a_shard_that_is_gone_is_missed(submitted: Project, tmp_path: Path) -> None:
    project = copied(submitted, tmp_path)
    project.sql("DELETE FROM submissions")
    project.sql("DELETE FROM shards")
    told = broken(project)
    assert names(told, "conversations that nobody asked") and names(told, "ended, as all its shards have")


# -- the command -----------------------------------------------------------------------------------------------


def verify(project: Project, *options: str) -> Result:
    return CliRunner().invoke(main, ["--project", str(project.folder), "status", "--verify", *options])


def test_the_command_says_what_it_looked_at(finished: Project) -> None:
    told = verify(finished)
    assert (told.exit_code, told.stderr) == (0, "")
    assert told.stdout.startswith("sound: 1 plan, 67 conversations, ")
    assert orjson.loads(verify(finished, "--json", finished.plan.id[:6]).stdout)["findings"] == []


def test_the_command_names_what_is_broken_and_fails(finished: Project, tmp_path: Path) -> None:
    project = copied(finished, tmp_path)
    project.sql("UPDATE parts SET n_tries = n_tries + 1")
    told = verify(project)
    assert told.exit_code == 1
    assert "n_tries of the store" in told.stdout and "disagree" in told.stderr
    document = orjson.loads(verify(project, "--json").stdout)
    assert document["is_sound"] is False
    assert {"severity", "which", "what", "expected", "found"} == set(document["findings"][0])


def test_a_plan_that_is_none_is_bad_input(finished: Project) -> None:
    assert verify(finished, "nothing-like-it").exit_code == 2
