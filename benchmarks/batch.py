"""Plan, submit and collect many requests against the sandbox, beside a plain script: `python benchmarks/batch.py`.

Every command is a process of its own, as users run it, and so are the sandbox and the plain script. Of each the time by
the clock, the CPU seconds (user and system) and the largest resident set are shown, as the kernel counted them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import plain_batch

from semtel_batch.sandbox.local import SandboxHandle, running_process
from semtel_batch.sandbox.settings import Settings

HERE = Path(__file__).resolve().parent
INCOMPLETE = 3

SETTINGS = """\
[[endpoint]]
name = "sandbox"
kind = "openai"
base_url = "{url}"
model = "gpt-6-luna"
api_key_env = "SANDBOX_KEY"
"""

PROMPT = f"""\
---
name: mood
description: How satisfied the user is.
inputs:
  - name: conversations
    kind: string
outputs:
  - name: mood
    kind: string
    enumValues: [{", ".join(plain_batch.LABELS)}]
template:
  format: {{kind: jinja2}}
  parser: {{kind: prompty}}
---
system:
{plain_batch.INSTRUCTIONS}

user:
{{{{conversations}}}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one process took, or several: times add up, and of memory the largest counts."""

    wall_s: float
    cpu_s: float
    peak_mb: float

    def __add__(self, other: Measured) -> Measured:
        return Measured(
            wall_s=self.wall_s + other.wall_s,
            cpu_s=self.cpu_s + other.cpu_s,
            peak_mb=max(self.peak_mb, other.peak_mb),
        )


def main() -> None:
    arguments = _arguments()
    os.environ["SANDBOX_KEY"] = "any"
    with tempfile.TemporaryDirectory(prefix="semtel-benchmark-", dir=arguments.folder) as folder:
        data = Path(folder) / "conversations.jsonl"
        # In a process of its own: the peak of a process is never less than that of the one that started it.
        make = [str(HERE / "conversation_data.py"), str(arguments.n), str(data)]
        measured([*make, "--median-tokens", str(arguments.median_tokens)], (0,))
        say(f"{arguments.n:,} conversations, {data.stat().st_size / arguments.n:,.0f} bytes each, in {data.suffix[1:]}")
        say(f"{'':8}{'wall s':>10}{'CPU s':>10}{'peak MB':>10}")
        with fresh_sandbox() as sandbox:
            ours = our_steps(Path(folder) / "project", data, sandbox, plan_only=arguments.plan_only)
            if not arguments.plan_only:
                check_books(sandbox, arguments.n)
        if not arguments.plan_only:
            show("in sum", ours)
            with fresh_sandbox() as sandbox:
                plain = measured([str(HERE / "plain_batch.py"), sandbox.base_url, str(data)], (0,))
                check_books(sandbox, arguments.n)
            show("plain", plain)
            wall, cpu = ours.wall_s / plain.wall_s, ours.cpu_s / plain.cpu_s
            say(f"{'ratio':8}{wall:10.2f}{cpu:10.2f}{ours.peak_mb / plain.peak_mb:10.2f}")


def our_steps(project: Path, data: Path, sandbox: SandboxHandle, *, plan_only: bool) -> Measured:
    """Run the commands as a user would, and show each."""
    (project / "prompts").mkdir(parents=True)
    (project / "semtel.toml").write_text(SETTINGS.format(url=sandbox.base_url), encoding="utf-8")
    (project / "prompts" / "mood.prompty").write_text(PROMPT, encoding="utf-8")
    command = ["-m", "semtel_batch", "--project", str(project), "-q"]
    plan = measured([*command, "plan", str(data), "-c", "mood", "--strategy", "batch", "--deadline", "30h"], (0,))
    show("plan", plan)
    if plan_only:
        return plan
    submit = measured([*command, "submit"], (0, INCOMPLETE))
    show("submit", submit)
    lines = [path.stat() for path in project.glob("state/files/*/shards/*.jsonl")]
    collect = measured([*command, "collect", "--wait"], (0,))
    show("collect", collect)
    say(f"({sum(line.st_size for line in lines) / 1e6:,.0f} MB of requests in {len(lines)} batches)")
    return plan + submit + collect


def measured(arguments: Sequence[str], may_end: Sequence[int]) -> Measured:
    """Run Python with these arguments and say what it took."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.perf_counter() - started
    if process.returncode not in may_end:
        sys.exit(f"{' '.join(arguments)} ended with {process.returncode}:\n{said.decode(errors='replace')}")
    # Linux counts in KiB, macOS in bytes.
    peak_mb = used.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e6 / 1024)
    return Measured(wall_s=wall_s, cpu_s=used.ru_utime + used.ru_stime, peak_mb=peak_mb)


@contextmanager
def fresh_sandbox() -> Iterator[SandboxHandle]:
    """A sandbox without faults and limits, that answers as fast as it can."""
    quick = Settings(model_behind="scripted", validating_s=0.0, in_progress_s=0.0, finalizing_s=0.0)
    with running_process(quick) as sandbox:
        yield sandbox


def check_books(sandbox: SandboxHandle, n: int) -> None:
    """Figures of a run in which something was left out, or asked twice, would be worth nothing."""
    requests = sandbox.books()["requests"]
    if (requests["distinct"], requests["billed"]) != (n, n):
        sys.exit(f"the sandbox should have billed {n} requests once each: {json.dumps(requests)}")


def show(step: str, took: Measured) -> None:
    say(f"{step:8}{took.wall_s:10.1f}{took.cpu_s:10.2f}{took.peak_mb:10.0f}")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100_000, help="conversations, one a request")
    parser.add_argument("--median-tokens", type=int, default=400)
    parser.add_argument("--plan-only", action="store_true")
    parser.add_argument("--folder", type=Path, help="where to work: needs some 10 kB a conversation")
    return parser.parse_args()


if __name__ == "__main__":
    main()
