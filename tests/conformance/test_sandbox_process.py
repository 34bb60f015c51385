"""The sandbox as a process of its own, and what it may import."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from pathlib import Path

from openai import OpenAI
from sandbox_requests import chat

import semtel_batch.sandbox
from semtel_batch.sandbox.local import running_process
from semtel_batch.sandbox.settings import Settings

_FOLDER = Path(semtel_batch.sandbox.__file__).parent


def test_it_imports_nothing_of_ours() -> None:
    for path in _FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            ours = [name for name in names if name.split(".")[0] == "semtel_batch"]
            assert all(name.startswith("semtel_batch.sandbox") for name in ours), f"{path.name} imports {ours}"


def test_it_runs_as_a_process_with_its_settings() -> None:
    settings = Settings(model_behind="scripted", api_key="sk-only-this", rpm=60, faults={"prose": 1.0})
    with running_process(settings) as sandbox:
        with OpenAI(base_url=sandbox.base_url, api_key="sk-only-this", max_retries=0) as client:
            answer = client.chat.completions.with_raw_response.create(**chat("user: a"))
        assert answer.headers["x-ratelimit-limit-requests"] == "60"
        assert b"Here are the labels" in answer.content
        assert sandbox.books()["requests"]["billed"] == 1


def test_it_stops_cleanly_when_interrupted() -> None:
    command = [sys.executable, "-m", "semtel_batch.sandbox", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:")
        assert line.endswith("/v1\n")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, "")


def test_an_unusable_config_is_told_in_a_sentence(tmp_path: Path) -> None:
    config = tmp_path / "sandbox.toml"
    config.write_text("rpmm = 3\n")
    command = [sys.executable, "-m", "semtel_batch.sandbox", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("unknown setting 'rpmm'")
    assert "Traceback" not in done.stderr
