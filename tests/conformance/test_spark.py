"""Both engines do the same: the same rows, the same requests, the same labels, and nothing is paid twice.

These tests fail where pyspark is installed and does not start; without the extra `spark` there is nothing to test.
"""

from __future__ import annotations

import shutil
import socketserver
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest
from small_job import PLAN_ID, REALTIME_NAIVE, endpoint, job, plan, price, texts

import semtel_batch
from semtel_batch import spread
from semtel_batch.clock import SystemClock
from semtel_batch.conversations import Columns, ingest, iter_parts, load_index
from semtel_batch.errors import BadData, BadInput, StoreError
from semtel_batch.parts import LABELS, read_parts
from semtel_batch.plans import Sample
from semtel_batch.pseudonyms import IdHash
from semtel_batch.records import Doubt, Endpoint, Shard, Stage, Strategy, Tier
from semtel_batch.results import fan_out, final_labels
from semtel_batch.rows import PlanState
from semtel_batch.runner import Runner
from semtel_batch.sandbox.local import SandboxHandle, running
from semtel_batch.sandbox.settings import Settings
from semtel_batch.spool import SLICE_REQUESTS, slices
from semtel_batch.spread import opened_engine
from semtel_batch.transport.endpoints import open_transport
from semtel_batch.transport.protocol import Transport

pytest.importorskip("pyspark", reason="the extra `spark` is not installed")

from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql.datasource import DataSource, DataSourceReader

from semtel_batch.engines.spark import seats, sharing
from semtel_batch.engines.spark.cluster import Cluster, port_number, quiet_server
from semtel_batch.engines.spark.queue import Queue
from semtel_batch.engines.spark.reading import SparkReader

pytestmark = pytest.mark.xdist_group("spark")

N = 2 * SLICE_REQUESTS + 20


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxHandle]:
    with running(Settings(model_behind="scripted")) as handle:
        yield handle


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One session for all: Java takes seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "any")
        patch.delenv("PYSPARK_PYTHON", raising=False)
        made = Cluster("local[2,30]")
        yield made
        made.close()


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Two ndjson files of conversations, some the same and some empty, in several scripts."""
    folder = tmp_path / "data"
    folder.mkdir()
    said = [*texts(40), "", "user: größer, 日本語, \u2028 and more", *texts(3)]
    whole = pl.DataFrame({"conversation_id": [f"c{i:02d}" for i in range(len(said))], "text": said})
    whole[:17].write_ndjson(folder / "a.jsonl")
    whole[17:].write_ndjson(folder / "b.jsonl")
    return str(folder)


def kept(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    return load_index(folder).drop("part"), pl.concat(iter_parts(folder))


@pytest.mark.parametrize("how", [{}, {"sample": Sample(seed=3, n=9)}, {"hash_ids": IdHash(salt=b"0123456789abcdef")}])
def test_the_same_rows_are_read(how: dict[str, Any], data: str, cluster: Cluster, tmp_path: Path) -> None:
    local = ingest(data, Columns(), tmp_path / "local", "o200k_base", **how)
    spread = SparkReader(cluster).ingest(data, Columns(), tmp_path / "spark", "o200k_base", **how)
    for here, there in zip(kept(tmp_path / "local"), kept(tmp_path / "spark"), strict=True):
        assert here.equals(there)
    assert (spread.n_conversations, spread.n_population) == (local.n_conversations, local.n_population)
    assert sorted(path.name for path in (tmp_path / "spark").iterdir()) == ["index.parquet", "part-00000.parquet"]
    assert all(not path.stat().st_mode & 0o077 for path in (tmp_path / "spark").iterdir())


def test_what_only_spark_reads_comes_in_the_order_of_ids(data: str, cluster: Cluster, tmp_path: Path) -> None:
    whole = pl.read_ndjson(Path(data) / "*.jsonl").reverse().with_columns(beside=1)
    whole.write_parquet(tmp_path / "given.parquet")
    SparkReader(cluster).ingest((tmp_path / "given.parquet").as_uri(), Columns(), tmp_path / "spark", "o200k_base")
    ingest(data, Columns(), tmp_path / "local", "o200k_base")
    assert kept(tmp_path / "spark")[0].equals(kept(tmp_path / "local")[0])


def test_bad_data_is_named_by_the_driver_as_on_one_machine(data: str, cluster: Cluster, tmp_path: Path) -> None:
    reader = SparkReader(cluster)
    shutil.copy(Path(data) / "a.jsonl", Path(data) / "again.jsonl")
    with pytest.raises(BadData, match=r"Id 'c00', and 16 more ids are there more than once"):
        reader.ingest(data, Columns(), tmp_path / "spark", "o200k_base")
    (Path(data) / "b.jsonl").write_text('{"conversation_id": "x"}\n{"text": 1\n', encoding="utf-8")
    with pytest.raises(BadData, match=r"b.jsonl, row 2: it is not JSON"):
        reader.ingest(data, Columns(), tmp_path / "spark", "o200k_base")
    with pytest.raises(BadData, match="Spark can't read 'file:///nowhere"):
        reader.ingest("file:///nowhere.parquet", Columns(), tmp_path / "spark", "o200k_base")
    with pytest.raises(BadData, match="matches no parquet"):
        reader.check(str(tmp_path / "nothing"))
    assert not (tmp_path / "spark").exists()
    with pytest.raises(BadInput, match="An executor does not see /not/shared: put the project on storage"):
        cluster.each(str, [1], Path("/not/shared"))


def test_a_delta_table_is_read_where_spark_has_its_package(data: str, cluster: Cluster, tmp_path: Path) -> None:
    table = tmp_path / "table"
    (table / "_delta_log").mkdir(parents=True)
    with pytest.raises(BadData, match=r"is a Delta table, whose files also hold .* give --engine spark"):
        ingest(str(table), Columns(), tmp_path / "local", "o200k_base")
    reader, rows = SparkReader(cluster), pl.read_ndjson(Path(data) / "*.jsonl").reverse().rows()
    reader.check(str(table))
    with pytest.raises(BadData, match=r"is a Delta table, and Spark has no package for it: name it to Spark"):
        reader.ingest(str(table), Columns(), tmp_path / "spark", "o200k_base")

    class Rows(DataSourceReader):
        def read(self, partition: Any) -> Iterator[tuple[str, ...]]:
            yield from rows

    class Delta(DataSource):
        """In the place of the real package, which no registry of Python's has the Java part of."""

        @classmethod
        def name(cls) -> str:
            return "delta"

        def schema(self) -> str:
            return "conversation_id string, text string"

        def reader(self, schema: Any) -> DataSourceReader:
            assert str(self.options["path"]).endswith("/table")
            return Rows()

    cluster.spark.dataSource.register(Delta)
    reader.ingest(str(table), Columns(), tmp_path / "spark", "o200k_base")
    ingest(data, Columns(), tmp_path / "local", "o200k_base")
    assert kept(tmp_path / "spark")[0].equals(kept(tmp_path / "local")[0])


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (
            "s3a://bucket/chats",
            "no connector for 's3a://bucket/chats': name it .* such as org.apache.hadoop:hadoop-aws",
        ),
        ("abfss://c@a.dfs.core.windows.net/x", "such as org.apache.hadoop:hadoop-azure"),
        ("gs://bucket/chats.parquet", "such as com.google.cloud.bigdataoss:gcs-connector"),
        ("s3://bucket/chats.parquet", "Spark knows no 's3://'; write 's3a://bucket/chats.parquet'"),
        ("file:///nowhere/at/all", "Spark can't read 'file:///nowhere/at/all'"),
    ],
)
def test_what_is_missing_for_an_address_is_named(address: str, said: str, cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=said):
        SparkReader(cluster).ingest(address, Columns(), tmp_path / "spark", "o200k_base")
    with pytest.raises(BadData, match="is an address, which Spark reads: give --engine spark"):
        ingest(address, Columns(), tmp_path / "local", "o200k_base")


# ── asking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class World:
    """A plan of N realtime requests in a project of its own, and the sandbox they go to."""

    def __init__(self, folder: Path, sandbox: SandboxHandle, strategy: Strategy = REALTIME_NAIVE) -> None:
        sandbox.reset()
        self.sandbox = sandbox
        at = endpoint(base_url=sandbox.base_url, concurrency=16)
        prices = tuple((at.name, price(tier)) for tier in (Tier.REALTIME, Tier.FLEX, Tier.DECISIONS))
        self.job = job(folder, plan(strategy, endpoint=at, prices=prices), texts(N))

    def run(self, ahead: sharing.SparkAhead | None = None) -> None:
        Runner(self.job.store, self.job.plan, opened, SystemClock(), lambda _tick: None, ahead).collect(wait=True)

    def books(self) -> dict[str, Any]:
        return self.sandbox.books(detail=True)

    def results(self) -> tuple[list[dict[str, Any]], set[bytes]]:
        labels = fan_out(self.job.store, self.job.plan, final_labels(self.job.store, self.job.plan))
        parts = [part.labels for part in self.job.store.parts(PLAN_ID)]
        return labels.to_dicts(), set(read_parts(parts, LABELS)["fingerprint"])

    def check_whole(self) -> None:
        """Every request is answered and registered once, and no note is left."""
        assert sum(part.n_requests for part in self.job.store.parts(PLAN_ID)) == N
        assert not self.job.store.problems(PLAN_ID)
        assert not (self.job.folder / "spool").exists()


def opened(members: Sequence[Endpoint], tier: Tier) -> Transport:
    return open_transport(members, tier, {"OPENAI_API_KEY": "any"})


def test_both_engines_ask_and_answer_the_same(cluster: Cluster, sandbox: SandboxHandle, tmp_path: Path) -> None:
    here = World(tmp_path / "here", sandbox)
    here.run()
    labels, asked = here.results(), here.books()["by_request"]
    there = World(tmp_path / "there", sandbox)
    there.run(sharing.SparkAhead(cluster))
    there.check_whole()
    assert there.results() == labels
    assert there.books()["by_request"] == asked
    assert len(asked) == N
    assert all(times == [1, 1] for times in asked.values())


def test_workers_that_are_killed_are_replaced(cluster: Cluster, sandbox: SandboxHandle, tmp_path: Path) -> None:
    """SIGKILL of a worker before its answers are written, and after they are: Spark tries again, from what is there."""
    log = tmp_path / "reached"
    passed = ["file.written", "file.named", "realtime.answered", "intake.answers-written", "intake.part-written"]
    log.write_text("\n".join([*passed, ""]), encoding="utf-8")
    told = cluster.spark.sparkContext.environment
    told |= {"SEMTEL_CRASH_AT": "new", "SEMTEL_CRASH_LOG": str(log)}
    try:
        world = World(tmp_path / "project", sandbox)
        world.run(sharing.SparkAhead(cluster))
    finally:
        del told["SEMTEL_CRASH_AT"], told["SEMTEL_CRASH_LOG"]
    assert {"realtime.not-written", "intake.part-registered"} <= set(log.read_text(encoding="utf-8").split())
    world.check_whole()
    assert world.books()["requests"]["distinct"] == N


def test_a_frame_of_sparks_is_labelled_from_python(
    cluster: Cluster, sandbox: SandboxHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", sandbox.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    given = cluster.spark.createDataFrame(
        [("b", "user: trains", 1), ("a", "user: laptops", 2)], "id string, said string, n int"
    )
    names = {"conversation_id": "id", "text": "said"}
    plan = semtel_batch.plan(given, ["topic"], project=tmp_path, columns=names, strategies=["naive"], progress=False)
    assert plan.plan.data.source == "pyspark.DataFrame"
    assert plan.collect(wait=True).state is PlanState.DONE
    labels = plan.labels()
    assert type(labels) is type(given)
    assert [row["conversation_id"] for row in labels.collect()] == ["a", "b"]
    assert all(row["topic"] for row in labels.collect())
    assert SparkSession.getActiveSession() is not None, "a session of the user's is left running"
    assert list(tmp_path.rglob("given*")) == []


class Nearby:
    """A cluster of threads in this process."""

    n_tasks, host, port = 2, "127.0.0.1", 0

    def each(self, work: Callable[[Any], str], units: Sequence[Any], _folder: Path) -> list[str]:
        with ThreadPoolExecutor(self.n_tasks) as threads:
            return list(threads.map(work, units))

    def stop(self) -> None:
        raise AssertionError("tasks end by themselves")


class Twice(Nearby):
    """One that runs every task twice at the same time, as where Spark speculates."""

    def each(self, work: Callable[[Any], str], units: Sequence[Any], folder: Path) -> list[str]:
        return super().each(work, [unit for unit in units for _ in range(2)], folder)


class _Killed(BaseException):
    pass


class Dying(Nearby):
    """One whose driver dies when a task has answered a slice."""

    def each(self, work: Callable[[Any], str], units: Sequence[Any], _folder: Path) -> list[str]:
        with pytest.MonkeyPatch.context() as patch:
            left = [0]
            patch.setattr(Queue, "take", lambda _queue, _seat: left.pop() if left else None)
            work(units[0])
        raise _Killed


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")


def ahead(cluster: Any) -> sharing.SparkAhead:
    return sharing.SparkAhead(cluster)


@pytest.mark.usefixtures("keyed")
def test_a_task_that_runs_twice_at_once_pays_once(sandbox: SandboxHandle, tmp_path: Path) -> None:
    world = World(tmp_path, sandbox)
    world.run(ahead(Twice()))
    world.check_whole()
    assert world.books()["requests"]["asked"] == N


@pytest.mark.usefixtures("keyed")
@pytest.mark.parametrize(
    ("strategy", "stage", "tier"),
    [
        (Strategy(recipe="flex", tier=Tier.FLEX), Stage.CLASSIFY, Tier.FLEX),
        (Strategy(recipe="decisions", tier=Tier.DECISIONS), Stage.CLASSIFY, Tier.DECISIONS),
        (replace(REALTIME_NAIVE, doubt=Doubt.GRADER), Stage.GRADE, Tier.REALTIME),
    ],
)
def test_executors_ask_whatever_is_answered_at_once(
    strategy: Strategy,
    stage: Stage,
    tier: Tier,
    sandbox: SandboxHandle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[seats.Slice] = []
    answer = seats.Seat._answer

    def watched(seat: seats.Seat, one: seats.Slice) -> bool:
        asked.append(one)
        return answer(seat, one)

    monkeypatch.setattr(seats.Seat, "_answer", watched)
    here = World(tmp_path / "here", sandbox, strategy)
    here.run()
    labels, requests = here.results(), here.books()["by_request"]
    there = World(tmp_path / "there", sandbox, strategy)
    there.run(ahead(Nearby()))
    assert there.results() == labels, "and the fingerprints are the same"
    assert there.books()["by_request"] == requests
    mine = [one for one in asked if one.row.shard.stage is stage and one.row.shard.tier is tier]
    assert sorted(one.number for one in mine) == [0, 1, 2]


@pytest.mark.usefixtures("keyed")
def test_what_executors_were_answered_outlives_the_driver(sandbox: SandboxHandle, tmp_path: Path) -> None:
    world = World(tmp_path, sandbox)
    with pytest.raises(_Killed):
        world.run(ahead(Dying()))
    assert world.books()["requests"]["asked"] == SLICE_REQUESTS
    world.run()  # on one machine, for a change
    world.check_whole()
    assert world.books()["requests"]["asked"] == N
    assert sum(pace.n_answered for pace in world.job.store.paces(PLAN_ID)) == N, "what tasks saw comes home too"


@pytest.mark.usefixtures("keyed")
def test_no_slice_is_begun_for_a_driver_that_died(
    sandbox: SandboxHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "driving", nullcontext)
    world = World(tmp_path, sandbox)
    with pytest.raises(_Killed):
        world.run(ahead(Dying()))
    assert world.books()["requests"]["asked"] == 0


@pytest.mark.usefixtures("keyed")
def test_where_no_executor_reaches_the_driver_shares_are_equal(
    sandbox: SandboxHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(_address: object) -> seats.DriverLine:
        raise seats.Lost("refused")

    told: list[int] = []

    def opened(*given: Any, tasks: int) -> Transport:
        told.append(tasks)
        return open_transport(*given, tasks=tasks)

    monkeypatch.setattr(seats, "DriverLine", refused)
    monkeypatch.setattr(seats, "open_transport", opened)
    world = World(tmp_path, sandbox)
    world.run(ahead(Nearby()))
    world.check_whole()
    assert world.books()["requests"]["asked"] == N
    assert told == [2, 2, 2], "an equal share for each that works at the same time"
    assert "No executor reaches the driver at 127.0.0.1" in caplog.text


def test_a_slice_is_a_fixed_set_of_requests() -> None:
    assert list(slices(cast(Shard, SimpleNamespace(n_requests=N)))) == [0, 1, 2]


# ── what is missing is said ─────────────────────────────────────────────────────────────────────────────────────────


def test_what_spark_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(BadInput, match="--master is of --engine spark"),
        opened_engine({"master": "local[2]"}, tmp_path),
    ):
        pass
    monkeypatch.setattr(spread, "find_spec", lambda name: None if name == "pandas" else name)
    without = pytest.raises(BadInput, match=r"needs pandas; run: pip install 'semtel-batch\[spark\]'")
    with without, opened_engine({"engine": "spark"}, tmp_path):
        pass
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr("shutil.which", lambda _name: None)
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: None)
    with pytest.raises(BadInput, match="Spark needs Java 17 or later, and there is none"):
        Cluster(None)


def test_workers_run_the_drivers_python_in_a_session_that_others_began(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYSPARK_PYTHON")
    monkeypatch.setattr(cluster.spark.sparkContext, "pythonExec", "python-without-our-packages")
    assert cluster.each(str, [3, 4], tmp_path) == ["3", "4"]
    assert cluster.spark.sparkContext.pythonExec == "python-without-our-packages", "the user's own work is as before"


def test_a_package_that_executors_lack_is_named(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = """An exception was thrown from the Python worker: Traceback (most recent call last):
  File "worker.py", line 4207, in invoke_udf
    func = read()
ModuleNotFoundError: No module named 'semtel_batch'
 SQLSTATE: 38000
\tat org.apache.spark.api.python.BasePythonRunner.read(PythonRunner.scala:145)"""

    def failing(*_: object) -> None:
        raise PySparkException(said)

    monkeypatch.setattr(cluster.spark, "range", failing)
    with pytest.raises(
        BadInput, match=r"lacks a package \(ModuleNotFoundError: No module named 'semtel_batch'\): inst"
    ):
        cluster.each(str, [1], tmp_path)


def test_a_master_that_spark_refuses_ends_in_one_sentence(tmp_path: Path, data: str) -> None:
    """Java's own words, a trace of fifty lines, are in the log that it names."""
    named = ["--project", str(tmp_path), "plan", data, "-c", "topic", "--engine", "spark", "--master", "nowhere://x"]
    ended = subprocess.run(
        [sys.executable, "-m", "semtel_batch", *named], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1), ended.stderr
    log = tmp_path / "state" / "spark.log"
    assert "Spark can't be started with master 'nowhere://x' (Master must" in ended.stderr
    assert str(log) in ended.stderr
    assert "\tat org.apache.spark" in log.read_text(encoding="utf-8")
    assert not log.stat().st_mode & 0o077


def test_a_port_that_is_none_is_named() -> None:
    assert (port_number(""), port_number("7078")) == (0, 7078)
    for said in ("7078 ", "any", "-1", "65536"):
        with pytest.raises(BadInput, match=f"'{said}', which is no port"):
            port_number(said)


class _GoneError(Exception):
    """As py4j raises it, of whose errors pyspark hands none on by a name."""


def test_a_spark_whose_java_is_gone_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_GoneError, "__module__", "py4j.protocol")

    def fail(*_: object, **__: object) -> None:
        raise _GoneError("An error occurred while trying to connect to the Java server")

    context = SimpleNamespace(setJobGroup=fail, cancelJobGroup=fail)
    cluster = Cluster.__new__(Cluster)
    cluster.spark, cluster._is_ours, cluster._log = (
        cast(Any, SimpleNamespace(sparkContext=context, stop=fail)),
        True,
        None,
    )
    with pytest.raises(StoreError, match=r"Spark gave up .*run again"):
        cluster.each(str, [1], tmp_path)
    cluster.stop()
    cluster.close()


def test_no_traceback_is_printed_by_a_server_of_pysparks(capsys: pytest.CaptureFixture[str]) -> None:
    server = socketserver.BaseServer(("", 0), socketserver.BaseRequestHandler)
    quiet_server(SimpleNamespace(_accumulatorServer=server))
    quiet_server(SimpleNamespace())
    try:
        raise EOFError
    except EOFError:
        server.handle_error(cast(Any, None), None)
    assert capsys.readouterr().err == ""
