"""The documents show what the commands really print, and leave none of them out."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import MagicMock

import click
import pytest
from click.testing import CliRunner

from semtel_batch import cli
from semtel_batch.errors import Exit

ROOT = Path(__file__).resolve().parents[2]
GENERATED = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = [*GENERATED, ROOT / "CHANGELOG.md", ROOT / "state" / "README.md", ROOT / "examples" / "README.md"]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [path.name for path in GENERATED])
def test_documents_show_what_is_printed(name: str) -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_change_that_matters_is_seen_and_one_that_varies_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    generate = importlib.import_module("generate")
    said = "Plan 14b49a8494c8 costs $0.014, took 1.2 s at 17.7 requests/s and 1.1 M tokens/min on 2026-11-22"
    varied = "Plan c274ab610e7d  costs $0.014, took 1 min 3 s at 8 requests/s and 393,910 tokens/min\non 2027-01-02"
    assert generate.comparable(said) == generate.comparable(varied)
    assert generate.comparable(said) != generate.comparable(said.replace("$0.014", "$0.015"))
    assert generate.comparable("ready within 24 h") != generate.comparable("ready within 48 h")


def test_readme_names_every_command_and_option() -> None:
    for name, command in cli.main.commands.items():
        assert re.search(rf"^\| `{name}[ `]", README, re.MULTILINE), name
        for option in command.params:
            if isinstance(option, click.Option):
                assert any(f"`{text}" in README for text in option.opts), (name, option.opts)


def test_readme_says_what_each_exit_code_means() -> None:
    said = dict(re.findall(r"^\| (\d) \| (\w+)", README, re.MULTILINE))
    assert set(said) == {str(int(code)) for code in Exit}
    assert said["3"].upper() == Exit.INCOMPLETE.name
    assert said["4"].upper() == Exit.INFEASIBLE.name


def _commands(text: str) -> Iterator[str]:
    """Every command of ours that a document shows: after a prompt, or in a code span."""
    yield from re.findall(r"^\$ (?:\S*/)?semtel-batch (.+)$", text, re.MULTILINE)
    yield from re.findall(r"`(?:\S*/)?semtel-batch\s([^`\n]+(?:\n[^`\n]+)?)`", text)


SHOWN = sorted({command for path in DOCUMENTS for command in _commands(path.read_text(encoding="utf-8"))})


def test_there_are_commands_to_check() -> None:
    assert {shlex.split(command, comments=True)[0] for command in SHOWN} >= {
        "plan",
        "submit",
        "collect",
        "report",
        "labels",
    }


@pytest.mark.parametrize("command", SHOWN)
def test_every_command_shown_can_be_given(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_commands", lambda _kind: MagicMock())  # parse, and do nothing
    result = CliRunner().invoke(cli.main, shlex.split(command, comments=True))
    assert result.exit_code == 0, result.output


def test_a_command_that_is_not_there_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_commands", lambda _kind: MagicMock())
    assert CliRunner().invoke(cli.main, ["plan", "data", "--no-such-option"]).exit_code == Exit.USAGE


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        file, _, heading = target.partition("#")
        other = (path.parent / file) if file else path
        assert other.exists(), target
        assert not heading or heading in _anchors(other.read_text(encoding="utf-8")), target


def _anchors(text: str) -> set[str]:
    """Headings as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    section = README[README.index("## Dependencies") : README.index("## Glossary")]
    for line in project["dependencies"]:
        assert f"| `{_name(line)}`" in section, line
    for extra, lines in project["optional-dependencies"].items():
        for line in lines:
            assert re.search(rf"^\| `{extra}` \|[^|]*`{_name(line)}`", section, re.MULTILINE), (extra, line)


def _name(requirement: str) -> str:
    return re.split(r"[^\w-]", requirement)[0]


def test_every_recipe_and_classifier_is_in_readme() -> None:
    for path in (*(ROOT / "strategies").glob("*.toml"), *(ROOT / "prompts").glob("*.prompty")):
        assert f"`{path.stem}" in README or f"{path.stem}.prompty" in README, path.name
