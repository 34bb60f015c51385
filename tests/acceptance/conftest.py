"""A sandbox a module, in a process of its own; a project a test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from command_line import CANARY, EXAMPLES, Project

from semtel_batch.sandbox.local import SandboxHandle, running_process
from semtel_batch.sandbox.settings import Settings

QUICK = Settings(
    validating_s=0.02,
    in_progress_s=0.05,
    finalizing_s=0.02,
    cancelling_s=0.02,
    model_behind="scripted",
    gold=str(EXAMPLES / "gold.jsonl"),
    conversations=str(EXAMPLES / "conversations.jsonl"),
)


@pytest.fixture(scope="module")
def sandbox_process() -> Iterator[SandboxHandle]:
    with running_process(QUICK) as handle:
        yield handle


def fresh(handle: SandboxHandle) -> SandboxHandle:
    """The same sandbox with new books and its first settings."""
    handle.reset()
    handle.configure(**asdict(QUICK))
    return handle


def new_project(folder: Path, handle: SandboxHandle) -> Project:
    folder.mkdir(parents=True, exist_ok=True)
    project = Project(folder, handle)
    project.configure()
    return project


def check_no_key(folder: Path) -> None:
    """The key is in no file that we wrote, nor in a file's name. semtel.toml is the user's: one case puts it there."""
    for path in folder.rglob("*"):
        assert CANARY not in path.name
        if path.is_file() and path.name != "semtel.toml":
            assert CANARY.encode() not in path.read_bytes(), path


@pytest.fixture
def sandbox(sandbox_process: SandboxHandle) -> SandboxHandle:
    return fresh(sandbox_process)


@pytest.fixture
def project(tmp_path: Path, sandbox: SandboxHandle) -> Iterator[Project]:
    made = new_project(tmp_path / "project", sandbox)
    yield made
    check_no_key(made.folder)
