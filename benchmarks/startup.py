"""How long a command takes to begin: `python benchmarks/startup.py [N]`.

CPU seconds (user and system, of the whole process, least and median of N runs) of `--help`, `import semtel_batch`,
`status` and `plan` of 60 conversations, beside the bare imports of what `plan` stands on with the vocabulary read: on a
loaded machine only the ratio to that line says anything. Spends nothing, asks nobody.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "conversations.jsonl"
BARE = "import polars, numpy, sqlalchemy, pydantic, rich.console, prompty, click, genai_prices, toktok"
VOCABULARY = "; toktok.batch_count([''], 'o200k_base', 1)"


@dataclass(frozen=True)
class Timed:
    cpu_s: float
    wall_s: float


def timed(command: list[str], folder: Path) -> Timed:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environ = {**os.environ, "OPENAI_API_KEY": "none"}
    subprocess.run(command, cwd=folder, env=environ, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Timed(cpu, time.perf_counter() - started)


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    us = [sys.executable, "-m", "semtel_batch"]
    commands = {
        "bare imports": [sys.executable, "-c", BARE],
        "bare, and the vocabulary": [sys.executable, "-c", BARE + VOCABULARY],
        "import semtel_batch": [sys.executable, "-c", "import semtel_batch"],
        "--help": [*us, "--help"],
        "plan of 60": [*us, "plan", "data.jsonl"],
        "status": [*us, "status"],
    }
    with tempfile.TemporaryDirectory() as folder:
        lines = EXAMPLES.read_text(encoding="utf-8").splitlines(keepends=True)
        (Path(folder) / "data.jsonl").write_text("".join(lines[:60]), encoding="utf-8")
        sys.stdout.write(f"least and median of {n} runs; load {os.getloadavg()[0]:.1f}\n")
        for name, command in commands.items():
            timed(command, Path(folder))  # compiles, and fills the disk's cache
            runs = [timed(command, Path(folder)) for _ in range(n)]
            cpu, wall = [one.cpu_s for one in runs], [one.wall_s for one in runs]
            sys.stdout.write(
                f"  {name:26s} CPU {min(cpu):5.2f} {statistics.median(cpu):5.2f} s   "
                f"wall {min(wall):5.2f} {statistics.median(wall):5.2f} s\n"
            )


if __name__ == "__main__":
    main()
