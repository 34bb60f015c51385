"""The demo: plan, submit, collect and report the example conversations against the local sandbox.

No key, no network and no money: the sandbox answers with a tiny local model, and bills nobody.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent / "demo"
COMMAND = [sys.executable, "-m", "semtel_batch"]
INCOMPLETE = 3

SETTINGS = """\
[[endpoint]]
name = "sandbox"
kind = "openai"
base_url = "{url}"
model = "gpt-6-luna"
api_key_env = "SANDBOX_KEY"
rpm = 30_000
tpm = 10_000_000
enqueued_tokens = 2_000_000
"""


def main() -> int:
    shutil.rmtree(PROJECT, ignore_errors=True)
    PROJECT.mkdir()
    os.environ.setdefault("SANDBOX_KEY", "any key will do here")
    say(
        "This is a demo: a sandbox on this machine plays the endpoint. Prices are those of gpt-6-luna, but nothing is\n"
        "billed, and the labels come from a tiny local model (static word embeddings): expect many wrong ones."
    )
    with sandbox() as url:
        (PROJECT / "semtel.toml").write_text(SETTINGS.format(url=url), encoding="utf-8")
        data, gold = "examples/conversations.jsonl", "examples/gold.jsonl"
        semtel("plan", data, "--deadline", "30h")
        semtel("submit", may_owe=True)
        semtel("collect", "--wait")
        semtel("report")
        semtel("evaluate", "--gold", gold)
        semtel("labels", "-o", "demo/labels.csv")
        say("And the same with five conversations a prompt, graded and doubtful ones asked again, right now:")
        semtel("run", data, "--strategy", "packed-graded", "--deadline", "1h", "--yes", "-o", "demo/packed.csv")
    say("The labels are in demo/labels.csv. Look around with: .venv/bin/semtel-batch --project demo status")
    return 0


def semtel(command: str, *arguments: str, may_owe: bool = False) -> None:
    """Run a command as a user would, and show it."""
    say(f"$ semtel-batch {command} {' '.join(arguments)}".rstrip())
    done = subprocess.run([*COMMAND, "--project", str(PROJECT), command, *arguments], cwd=HERE.parent, check=False)
    if done.returncode and not (may_owe and done.returncode == INCOMPLETE):
        sys.exit(done.returncode)


@contextmanager
def sandbox() -> Iterator[str]:
    """A sandbox in its own process; yields its base URL."""
    process = subprocess.Popen([*COMMAND, "sandbox", "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield line.split()[-1]
    finally:
        process.terminate()
        process.wait(timeout=10)


def say(text: str) -> None:
    sys.stdout.write(f"\n{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
