"""Where a job's work is done: on this machine, or on Spark's executors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semtel_batch.engines.local import LOCAL, Reader
from semtel_batch.errors import BadInput

if TYPE_CHECKING:  # only its name is needed, and `plan` runs nothing
    from semtel_batch.runner import Ahead

_NEEDED = ("pyspark", "pandas", "pyarrow")


@dataclass(frozen=True, slots=True)
class Engine:
    """Who reads a job's data, and who does a run's work ahead of it, if anybody."""

    reader: Reader
    ahead: Ahead | None = None


@contextmanager
def opened_engine(options: Mapping[str, Any], project: Path) -> Iterator[Engine]:
    """The engine that `engine` and `master` of the options name; Spark is stopped at the end if it was started here.

    What Spark has to say it then writes into `state/spark.log` of the project.

    Raises BadInput where Spark can't be had, with what to install.
    """
    if options.get("engine", "local") == "local":
        if options.get("master"):
            raise BadInput("--master is of --engine spark; say both, or neither.")
        yield Engine(LOCAL)
        return
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise BadInput(f"--engine spark needs {', '.join(missing)}; run: pip install 'semtel-batch[spark]'")
    from semtel_batch.engines.spark.cluster import Cluster  # half a second and half a gigabyte, of an extra
    from semtel_batch.engines.spark.reading import SparkReader  # the same
    from semtel_batch.engines.spark.sharing import SparkAhead  # the same

    cluster = Cluster(options.get("master"), project / "state" / "spark.log")
    try:
        yield Engine(SparkReader(cluster), SparkAhead(cluster, options.get("tasks", 1)))
    finally:
        cluster.close()
