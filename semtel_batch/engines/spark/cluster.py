"""A Spark session, and work spread over its executors. The only module that imports pyspark."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from semtel_batch import errors
from semtel_batch.engines.spark.places import unreadable
from semtel_batch.errors import BadData, BadInput, SemtelError, StoreError
from semtel_batch.private import make_private, make_private_folder

log = logging.getLogger("semtel_batch.spark")

T = TypeVar("T")

_GROUP = "semtel-batch"
_RESULT = "unit long, value string, kind string, message string"
_READABLE = {"parquet": "parquet", "json": "json", "jsonl": "json", "ndjson": "json", "csv": "csv", "orc": "orc"}

Work = Callable[[Any], str]
"""What an executor does with one unit; gives a short text. A function of a module, with what it is given bound."""


class Cluster:
    """Spark, as it is running already or started for us; `close` ends only what was started here."""

    def __init__(self, master: str | None, log: Path | None = None) -> None:
        """`master` as Spark names it; without one, SPARK_MASTER or all cores of this machine. Raises BadInput.

        `log` is where a Spark that is started here writes what it has to say; without it, on stderr.
        """
        running = SparkSession.getActiveSession()
        if type(running).__module__.startswith("pyspark.sql.connect"):
            raise BadInput(
                "The Spark session that is running is one of Spark Connect, whose executors can't be told what to do: "
                "use a classic session, or engine='local'."
            )
        self._is_ours = running is None
        self._log = log if self._is_ours else None
        self.spark = running or _started(master, log)

    def close(self) -> None:
        if self._is_ours:
            with _java_may_be_gone():
                self.spark.stop()

    @property
    def n_tasks(self) -> int:
        """How many tasks run beside one another."""
        return max(1, int(self.spark.sparkContext.defaultParallelism))

    @property
    def _is_local(self) -> bool:
        """Whether executors are on this machine."""
        return str(self.spark.sparkContext.master).startswith("local")

    @property
    def host(self) -> str:
        """The driver's address as executors know it."""
        if self._is_local:
            return "127.0.0.1"
        return str(self.spark.sparkContext.getConf().get("spark.driver.host", "127.0.0.1"))

    @property
    def port(self) -> int:
        """Where the driver is to be reached by our own tasks; 0: anywhere. Raises BadInput for what is no port."""
        return port_number(str(self.spark.sparkContext.getConf().get("spark.semtel.driver.port", "")))

    def each(self, work: Work, units: Sequence[Any], folder: Path) -> list[str]:
        """Do `work` to every unit, one a task, and give what it gave, in order.

        `folder` must be seen by every executor. An error of ours that one meets is raised here.
        """
        if not units:
            return []
        task = partial(_in_executor, work, list(units), str(folder))
        try:
            self.spark.sparkContext.setJobGroup(_GROUP, "semtel-batch", interruptOnCancel=True)
            with _pandas_3_allowed(), self._own_python():
                found = self.spark.range(0, len(units), 1, len(units)).mapInArrow(task, _RESULT).collect()
        except Exception as problem:
            if not isinstance(problem, PySparkException) and not _is_java_gone(problem):
                raise
            reason, where = _last_words(problem), f" in {self._log}" if self._log else ""
            if reason.startswith("ModuleNotFoundError"):
                raise BadInput(
                    f"The Python of Spark's executors lacks a package ({reason}): install semtel-batch[spark] in it as "
                    "here, or set PYSPARK_PYTHON to one that has it before the session starts."
                ) from problem
            raise StoreError(f"Spark gave up ({reason}); look at its log{where}, and run again.") from problem
        rows = sorted(found, key=lambda row: row["unit"])
        for row in rows:
            if row["kind"] is not None:
                raise getattr(errors, row["kind"], SemtelError)(row["message"])
        return [row["value"] for row in rows]

    @contextmanager
    def _own_python(self) -> Iterator[None]:
        """On this machine, have workers of a session that others began run this very Python, unless one is named."""
        context = self.spark.sparkContext
        theirs = context.pythonExec
        if self._is_local and "PYSPARK_PYTHON" not in os.environ:
            context.pythonExec = sys.executable
        try:
            yield
        finally:
            context.pythonExec = theirs

    def stop(self) -> None:
        """End what `each` has begun in another thread, which then raises."""
        with _java_may_be_gone():  # `each` raises by itself then
            self.spark.sparkContext.cancelJobGroup(_GROUP)

    def write_sorted(self, source: str, names: Sequence[str], folder: Path) -> None:
        """Have Spark read what is not among our files, and write these columns of it, by id, as parquet.

        Raises BadData, with the package that is missing where one is.
        """
        address = source if "://" in source else Path(source).resolve().as_uri()  # Spark's own files may lie elsewhere
        try:
            frame = self._read(address)
            chosen = [name for name in names if name in frame.columns]
            frame.select(*chosen).sort(names[0]).write.parquet(folder.as_uri())
        except Exception as problem:
            causes = _java_causes(problem)
            if not causes and _is_java_gone(problem):
                raise StoreError(f"Spark gave up ({_first_line(problem)}); run again.") from problem
            if not causes and not isinstance(problem, PySparkException):
                raise
            raise BadData(unreadable(source, causes, _java_words(problem))) from problem

    def _read(self, source: str) -> Any:
        kind = _READABLE.get(source.rstrip("/*").rpartition(".")[2].lower())
        if kind is None:
            kind = "delta" if self._is_there(source.rstrip("/") + "/_delta_log") else "parquet"
        reader = self.spark.read.format(kind)
        return (reader.option("header", True) if kind == "csv" else reader).load(source)

    def _is_there(self, path: str) -> bool:
        java: Any = self.spark.sparkContext._jvm
        place = java.org.apache.hadoop.fs.Path(path)
        context: Any = self.spark.sparkContext._jsc
        return bool(place.getFileSystem(context.hadoopConfiguration()).exists(place))


def port_number(said: str) -> int:
    """What Spark's settings say of a port; 0 if nothing. Raises BadInput for what is none."""
    if said and not (said.isascii() and said.isdecimal() and int(said) < 1 << 16):
        raise BadInput(f"spark.semtel.driver.port is '{said}', which is no port; give a number up to 65535.")
    return int(said or 0)


def _is_java_gone(problem: Exception) -> bool:
    """Whether that is what became of a call into Spark: py4j's errors, of which pyspark hands none on by a name."""
    return isinstance(problem, OSError) or type(problem).__module__.partition(".")[0] == "py4j"


@contextmanager
def _java_may_be_gone() -> Iterator[None]:
    try:
        yield
    except Exception as problem:
        if not _is_java_gone(problem):
            raise


@contextmanager
def _pandas_3_allowed() -> Iterator[None]:
    """pyspark 4.3 warns of pandas 3, which it wants to be there for Arrow and which nothing here comes near."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        yield


def _with_retries(master: str) -> str:
    """A local master that tries a task again whose worker has died, as every other master does (Spark's default: 4)."""
    return re.sub(r"^local\[([\d*]+)\]$", r"local[\1,4]", master)


def _started(master: str | None, log: Path | None) -> SparkSession:
    # Left alone, executors take whatever python3 is found first, which has none of our packages.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    if not os.environ.get("JAVA_HOME") and shutil.which("java") is None:
        raise BadInput(
            "Spark needs Java 17 or later, and there is none: install it (Debian: openjdk-17-jre-headless) "
            "or set JAVA_HOME."
        )
    master = _with_retries(master or os.environ.get("SPARK_MASTER", "local[*]"))
    if master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")  # nobody else has to reach it
    conf = SparkConf().setAppName("semtel-batch").setMaster(master).setAll(list(_SETTINGS.items()))
    began = log.stat().st_size if log and log.exists() else 0
    try:
        with _pandas_3_allowed():
            context = SparkContext(conf=conf, gateway=_gateway(conf, log))
            builder: Any = SparkSession.builder  # which takes up the context that runs
            session: SparkSession = builder.getOrCreate()
    except Exception as problem:
        where = f", and look into {log}" if log else ""
        raise BadInput(
            f"Spark can't be started with master '{master}' ({_reason(problem, log, began)}); "
            f"check --master and that Java is 17 or later{where}."
        ) from problem
    context.setLogLevel("ERROR")
    quiet_server(context)
    return session


def quiet_server(context: Any) -> None:
    """Keep pyspark's own server from printing a traceback when Java dies: `each` says it in a sentence."""
    server = getattr(context, "_accumulatorServer", None)
    if server is not None:
        server.handle_error = lambda *_: log.debug("Spark's Java is gone", exc_info=True)


def _gateway(conf: SparkConf, log: Path | None) -> Any:
    """Start Java, which otherwise writes on our stderr; None where Spark starts it itself, or has."""
    if log is None or SparkContext._gateway is not None:
        return None
    make_private_folder(log.parent)
    make_private(log)
    with log.open("ab") as file:
        return launch_gateway(conf, {"stdout": file, "stderr": file})


def _reason(problem: Exception, log: Path | None, began: int) -> str:
    """Why Spark did not start, in its own words: of its log, else of the exception, without where in Java it was."""
    if log is not None and log.exists():
        said = _JAVA_SAYS.findall(log.read_bytes()[began:].decode("utf-8", "replace"))
        if said:
            return str(said[0])[:300]
    return _java_words(problem)


def _java_words(problem: Exception) -> str:
    """What Java said, without where in it that was."""
    found: Any = getattr(problem, "java_exception", None)
    return _first_line(problem) if found is None else str(found.getMessage()).partition("\n")[0][:300]


def _java_causes(problem: Exception) -> list[str]:
    """The names of Java's exceptions behind one, from the outermost to the first; none if it is not of Java."""
    found: Any = getattr(problem, "java_exception", None)
    names: list[str] = []
    while found is not None and len(names) < 10:
        names.append(str(found.getClass().getName()))
        found = found.getCause()
    return names


_JAVA_SAYS = re.compile(r"(?:^Exception in thread \S+ [\w.$]+: |^Error: |\bReason: )(\S.*)$", re.MULTILINE)

_SETTINGS = {
    "spark.ui.showConsoleProgress": "false",
    "spark.ui.enabled": "false",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "10000",
}


def _in_executor(
    work: Work, units: list[Any], folder: str, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for unit in batch.column(0).to_pylist():
            value, kind, message = _tried(work, units[unit], folder)
            columns = {"unit": [unit], "value": [value], "kind": [kind], "message": [message]}
            schema = pa.schema([("unit", pa.int64()), *((name, pa.string()) for name in ("value", "kind", "message"))])
            yield pa.RecordBatch.from_pydict(columns, schema=schema)


def _tried(work: Work, unit: Any, folder: str) -> tuple[str | None, str | None, str | None]:
    """What came out, or which error of ours. Any other is Spark's to try again."""
    if not Path(folder).is_dir():
        return (
            None,
            "BadInput",
            (f"An executor does not see {folder}: put the project on storage that the driver and all executors share."),
        )
    try:
        return work(unit), None, None
    except SemtelError as problem:
        return None, type(problem).__name__, str(problem)


def _last_words(problem: BaseException) -> str:
    """The last line of what was raised in a worker, above where in Java that was; else the first."""
    python, _, _ = str(problem).partition("\n\tat ")
    _, found, trace = python.partition("Traceback (most recent call last):")
    lines = [line for line in trace.splitlines() if line.strip() and not line.startswith(" ")]
    return lines[-1][:300] if found and lines else _first_line(problem)


def _first_line(problem: BaseException) -> str:
    return str(problem).strip().partition("\n")[0][:300] or type(problem).__name__
