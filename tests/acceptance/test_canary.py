"""A key that a command prints: used, and nowhere to be seen, whatever is said, written, refused or broken off."""

from __future__ import annotations

import pytest
from command_line import CANARY, DONE, EXAMPLES, FAILED, USAGE, Project
from conftest import check_no_key

pytestmark = pytest.mark.xdist_group("purge")


def use_a_command(project: Project, program: str) -> None:
    """Let the endpoint's key come from a program in a file of its own, outside the project."""
    script = project.folder.parent / "key.sh"
    script.write_text(f"#!/bin/sh\n{program}\n")
    script.chmod(0o700)
    settings = (project.folder / "semtel.toml").read_text()
    (project.folder / "semtel.toml").write_text(
        settings.replace('api_key_env = "SANDBOX_KEY"', f"api_key_cmd = ['{script}', 'an argument']")
    )


def test_the_key_is_used_and_never_seen(project: Project) -> None:
    project.sandbox.configure(api_key=CANARY)
    use_a_command(project, f"echo {CANARY} >&2; echo {CANARY}")
    data = str(EXAMPLES / "conversations.jsonl")
    assert project("-v", "doctor").exit_code == DONE
    project.done("-v", "plan", data, "-c", "topic", "--sample", "8", "--strategy", "batch", "--json")
    process = project.start("-v", "submit", environ={"SEMTEL_CRASH_AT": "upload.not-noted"})
    said = process.communicate(timeout=60)
    assert process.returncode < 0, "killed on the way"
    assert CANARY not in "".join(said)
    check_no_key(project.folder)
    project.done("-v", "--log-json", "collect", "--wait")
    project.done("-v", "run", data, "-c", "topic", "--sample", "8", "--strategy", "naive", "--yes")
    for how in (
        ["report"],
        ["report", "--json"],
        ["report", "--html", "r.html"],
        ["labels", "-o", "l.csv", "--detail"],
    ):
        project.done("-v", *how)
    project.done("-v", "status", "--verify")
    check_no_key(project.folder)

    project.sandbox.configure(api_key="another")  # a refusal that quotes the key, as providers do
    refused = project("-v", "run", data, "-c", "topic", "--fresh", "--yes", "--strategy", "naive")
    assert refused.exit_code == FAILED
    assert "api_key_cmd of 'sandbox'" in refused.stderr
    use_a_command(project, f"echo {CANARY}; exit 4")
    failed = project("-v", "run", data, "-c", "topic", "--fresh", "--yes", "--strategy", "naive")
    assert failed.exit_code == USAGE
    assert "exit code 4" in failed.stderr
