"""Spark beside one machine: what reading and counting costs, and how well tasks share a limit.

python benchmarks/spark.py                  all of it
python benchmarks/spark.py read 20000       reading and counting 20,000 conversations, local[2] beside one machine
python benchmarks/spark.py share            one process beside local[4] under one limit, counted by the sandbox
python benchmarks/spark.py memory           what the driver's process takes to plan one and three million conversations
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from semtel_batch.clock import SystemClock
from semtel_batch.config import load
from semtel_batch.conversations import Columns, ingest
from semtel_batch.engines.local import Wish, make_plan
from semtel_batch.engines.spark.cluster import Cluster
from semtel_batch.engines.spark.reading import SparkReader
from semtel_batch.engines.spark.sharing import SparkAhead
from semtel_batch.plans import Objective, Plan
from semtel_batch.records import Endpoint, Tier
from semtel_batch.runner import Runner
from semtel_batch.sandbox.local import SandboxHandle, running_process
from semtel_batch.sandbox.settings import Settings
from semtel_batch.store import Store
from semtel_batch.transport.endpoints import open_transport
from semtel_batch.transport.protocol import Transport

N_FILES, WORDS = 8, 250
N_REQUESTS, RPM = 12_000, 12_000
SETTINGS = """\
[[endpoint]]
name = "sandbox"
kind = "openai"
base_url = "{url}"
model = "gpt-6-luna"
api_key_env = "SANDBOX_KEY"
rpm = {rpm}
"""


def main(arguments: Sequence[str]) -> int:
    part, n = (arguments[0] if arguments else "all"), int(arguments[1]) if arguments[1:] else 100_000
    os.environ["SANDBOX_KEY"] = "any"
    with tempfile.TemporaryDirectory() as folder:
        if part in ("all", "read"):
            read(Path(folder), n)
        if part in ("all", "memory"):
            memory(Path(folder))
        if part in ("all", "share"):
            with running_process(Settings(model_behind="scripted", rpm=RPM, burst_s=1.0, latency_s=0.05)) as sandbox:
                share(Path(folder), sandbox)
    return 0


def read(folder: Path, n: int) -> None:
    """Read and count the same files on one machine and on Spark."""
    write_data(folder / "data", n)
    source, columns = str(folder / "data"), Columns()
    here = measured(lambda: ingest(source, columns, folder / "here", "o200k_base"))
    cluster_at = time.monotonic()
    cluster = Cluster("local[2]")
    started = time.monotonic() - cluster_at
    first = measured(lambda: SparkReader(cluster).ingest(source, columns, folder / "first", "o200k_base"))
    again = measured(lambda: SparkReader(cluster).ingest(source, columns, folder / "again", "o200k_base"))
    cluster.close()
    say(f"{n:,} conversations of {WORDS} words in {N_FILES} files, read and counted")
    say(f"  one machine      {here:6.1f} s")
    say(f"  Spark, local[2]  {first:6.1f} s, and {started:.1f} s to start it")
    say(f"  Spark, again     {again:6.1f} s, {(again - here) * 100_000 / n:+.1f} s per 100,000 conversations")


def memory(folder: Path) -> None:
    """Plan short conversations in a process of their own, whose peak of memory is told; Java's and workers' is not."""
    for engine in ("local", "spark"):
        peaks = []
        for n in (1_000_000, 3_000_000):
            project, data = folder / f"{engine}-{n}", folder / f"data-{n}"
            write_short(data, n)
            arguments = ["--project", str(project), "plan", str(data), "-c", "topic", "--engine", engine]
            began = time.monotonic()
            ended = subprocess.run(
                [sys.executable, "-c", PLAN, *arguments],
                env=os.environ | {"OPENAI_API_KEY": "any"},
                stdout=subprocess.PIPE,
                check=True,
            )
            peaks.append(int(ended.stdout) * 1024)
            say(f"  {engine:6} {n:10,} conversations  {peaks[-1] / 2**20:7,.0f} MiB  {time.monotonic() - began:5.0f} s")
        say(f"  {engine:6} {(peaks[1] - peaks[0]) / 2_000_000:4.0f} bytes for each one more")


PLAN = """\
import os, resource, sys
from semtel_batch.cli import main
kept, sys.stdout = sys.stdout, open(os.devnull, "w")
main(sys.argv[1:], standalone_mode=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=kept)
"""


def write_short(folder: Path, n: int) -> None:
    """Conversations of a line, all different, in files of 250,000."""
    if folder.exists():
        return
    folder.mkdir()
    for first in range(0, n, 250_000):
        rows = pl.int_range(first, first + 250_000, eager=True)
        text = pl.format("user: conversation {} about my order", pl.lit(rows))
        frame = pl.DataFrame({"conversation_id": rows.cast(pl.String).str.zfill(12)}).with_columns(text=text)
        frame.write_parquet(folder / f"part-{first:010d}.parquet")


def share(folder: Path, sandbox: SandboxHandle) -> None:
    """Ask the same requests under the same limit by one process and by four tasks."""
    write_data(folder / "few", N_REQUESTS)
    say(f"{N_REQUESTS:,} realtime requests, {RPM:,} a minute allowed")
    one = asked(folder / "one", folder / "few", sandbox, None)
    cluster = Cluster("local[4]")
    four = asked(folder / "four", folder / "few", sandbox, SparkAhead(cluster))
    cluster.close()
    for name, found in (("one process", one), ("local[4]", four)):
        whole, between = (N_REQUESTS / seconds * 60 / RPM for seconds in (found.whole_s, found.asking_s))
        say(
            f"  {name:12} {found.whole_s:6.1f} s, {whole:.0%} of the limit; from the first request to the last "
            f"{found.asking_s:6.1f} s, {between:.0%}; {found.n_limited} of status 429"
        )


@dataclass(frozen=True)
class Asked:
    whole_s: float  # of the run, with all that is before and after
    asking_s: float  # from the first request to the last, by the sandbox's books
    n_limited: int


class Onlooker(threading.Thread):
    """Looks into the sandbox's books five times a second."""

    def __init__(self, sandbox: SandboxHandle) -> None:
        super().__init__(daemon=True)
        self._sandbox, self._ended = sandbox, threading.Event()
        self.seen: list[tuple[float, int]] = []

    def run(self) -> None:
        while not self._ended.wait(0.2):
            self.seen.append((time.monotonic(), int(self._sandbox.books()["requests"]["asked"])))

    def asking_s(self) -> float:
        self._ended.set()
        self.join()
        first = max(at for at, n in self.seen if n == 0)
        return min(at for at, n in self.seen if n >= N_REQUESTS) - first


def asked(project: Path, data: Path, sandbox: SandboxHandle, ahead: SparkAhead | None) -> Asked:
    """Ask every conversation once, and look how fast it went."""
    sandbox.reset()
    project.mkdir()
    (project / "semtel.toml").write_text(SETTINGS.format(url=sandbox.base_url, rpm=RPM), encoding="utf-8")
    settings = load(project, os.environ)
    wish = Wish(source=str(data), classifiers=("topic",), objective=Objective(), recipes=("naive",), columns=Columns())
    plan = make_plan(settings, wish, SystemClock())
    store = Store(project)
    onlooker = Onlooker(sandbox)
    onlooker.start()
    seconds = measured(lambda: run(store, plan, ahead))
    time.sleep(0.3)
    store.close()
    return Asked(seconds, onlooker.asking_s(), int(sandbox.books()["rate_limited"]))


def run(store: Store, plan: Plan, ahead: SparkAhead | None) -> None:
    Runner(store, plan, opened, SystemClock(), lambda _tick: None, ahead).collect(wait=True)


def opened(members: Sequence[Endpoint], tier: Tier) -> Transport:
    return open_transport(members, tier, os.environ)


def write_data(folder: Path, n: int) -> None:
    """Made-up conversations: words drawn by Zipf's law, so that they compress and count like text."""
    folder.mkdir()
    random = np.random.default_rng(7)
    vocabulary = np.array([f"{chr(97 + i % 26)}{i:x}" for i in range(5_000)])
    for number, rows in enumerate(np.array_split(np.arange(n), N_FILES)):
        drawn = vocabulary[np.minimum(random.zipf(1.3, (len(rows), WORDS)) - 1, 4_999)]
        said = [f"user: conversation {row}: {' '.join(words)}" for row, words in zip(rows, drawn, strict=True)]
        pl.DataFrame({"conversation_id": [f"c{row:08d}" for row in rows], "text": said}).write_ndjson(
            folder / f"part-{number}.jsonl"
        )


def measured(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
