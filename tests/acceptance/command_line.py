"""The real command line in a process of its own, in a project whose endpoint is a sandbox."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from semtel_batch.sandbox.local import SandboxHandle

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
CANARY = "sk-canary-4f1d9a7e2b"
"""The key of every project here: it may never be seen again."""

DONE, FAILED, USAGE, INCOMPLETE, INFEASIBLE = 0, 1, 2, 3, 4
_PATIENCE_S = 120

_SETTINGS = """\
[[endpoint]]
name = "sandbox"
kind = "openai"
base_url = "{url}"
model = "gpt-6-luna"
api_key_env = "SANDBOX_KEY"
{more}
"""


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended, and what it said."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """The one JSON document of stdout; raises if there is anything else."""
        return json.loads(self.stdout)

    @property
    def said(self) -> str:
        return self.stdout + self.stderr


def environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a command sees of the world: nothing of this machine but where programs are."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(home), "LANG": "C.UTF-8", "SANDBOX_KEY": CANARY, **(more or {})}


def check_manners(result: Result) -> Result:
    """What holds for every command, whatever happens: no traceback, no key."""
    assert "Traceback" not in result.said, result.said
    assert CANARY not in result.said
    assert result.exit_code in (DONE, FAILED, USAGE, INCOMPLETE, INFEASIBLE), (result.exit_code, result.said)
    return result


def _listen_to_sigint() -> None:
    """Tests started in the background ignore SIGINT, and so would what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Project:
    """A folder with a semtel.toml, and the commands run in it."""

    folder: Path
    sandbox: SandboxHandle
    environ: Mapping[str, str] = field(default_factory=dict)

    def configure(self, more: str = "", *, url: str | None = None) -> None:
        """Write semtel.toml: the sandbox as endpoint, and more lines after it."""
        text = _SETTINGS.format(url=url or self.sandbox.base_url, more=more)
        (self.folder / "semtel.toml").write_text(text, encoding="utf-8")

    def write(self, name: str, rows: Iterable[Mapping[str, Any]]) -> str:
        """Write rows as ndjson and return the path, as a command takes it."""
        path = self.folder / name
        path.write_bytes(b"".join(orjson.dumps(dict(row), option=orjson.OPT_APPEND_NEWLINE) for row in rows))
        return str(path)

    def recipe(self, name: str, **grid: Any) -> str:
        """Write a recipe of one point and return its path."""
        lines = [f'name = "{name}"', 'summary = "One point, for a test."', "[grid]"]
        lines += [f"{key} = {json.dumps([value])}" for key, value in grid.items()]
        lines += [
            f'[[evidence]]\nlever = "{lever}"\nlabel_change = 0.0\nassumed = true\nsource = "a test"'
            for lever in ("packing", "combining", "truncating")
        ]
        path = self.folder / "strategies" / f"{name}.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(path)

    def __call__(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Result:
        """Run a command to its end."""
        process = self.start(*arguments, environ=environ)
        stdout, stderr = process.communicate(timeout=_PATIENCE_S)
        return check_manners(Result(process.returncode, stdout, stderr))

    def start(self, *arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a command, to be waited for or killed."""
        return subprocess.Popen(
            [sys.executable, "-m", "semtel_batch", *arguments],
            cwd=self.folder,
            env=environment(self.folder, {**self.environ, **(environ or {})}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            preexec_fn=_listen_to_sigint,
        )

    def done(self, *arguments: str) -> Result:
        """Run a command that must succeed."""
        result = self(*arguments)
        assert result.exit_code == DONE, (arguments, result)
        return result

    def plan(self, data: str, *arguments: str) -> dict[str, Any]:
        """Make a plan and return its document."""
        document: dict[str, Any] = self.done("plan", data, "--json", *arguments).document
        return document

    def report(self) -> dict[str, Any]:
        document: dict[str, Any] = self.done("report", "--json").document
        return document

    def labels(self, *arguments: str) -> list[dict[str, Any]]:
        """The labels as the command writes them: in the data's order."""
        path = self.folder / "labels.ndjson"
        result = self("labels", "-o", str(path), *arguments)
        assert result.exit_code == DONE, result
        return [orjson.loads(line) for line in path.read_bytes().splitlines()]

    def listing(self) -> list[str]:
        """Everything in the project, with sizes: equal before and after means that nothing was written."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(f"{path.relative_to(self.folder)} {path.stat().st_size}" for path in files)


def ended(process: subprocess.Popen[str], within_s: float) -> Result:
    """Wait for a started command."""
    stdout, stderr = process.communicate(timeout=within_s)
    return check_manners(Result(process.returncode, stdout, stderr))


def killed(process: subprocess.Popen[str]) -> None:
    """End a command as a power cut would."""
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=_PATIENCE_S)
