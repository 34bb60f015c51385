"""`explain`, `completion` and `init` in this process: what a new user meets first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from semtel_batch import cli, completions
from semtel_batch.commands.explaining import ALIASES
from semtel_batch.errors import Exit
from semtel_batch.resources import shipped
from semtel_batch.store import Store

PAGES = sorted(shipped("docs").glob("*.md"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, list(arguments))


def test_every_page_can_be_shown_by_its_name_and_its_other_words() -> None:
    listed = run("explain").output
    for path in PAGES:
        assert path.stem in listed
        shown = run("explain", path.stem)
        assert shown.exit_code == Exit.DONE
        assert shown.output.startswith("# ")
        assert "<!--" not in shown.output
        assert "](" not in shown.output
    for alias, page in ALIASES.items():
        if any(path.stem == page for path in PAGES):
            assert run("explain", alias).output == run("explain", page).output
    assert run("explain", "security", "--json").output.startswith('{\n  "topic": "security"')
    assert set(json.loads(run("explain", "--json").output)) == {path.stem for path in PAGES}


def test_what_is_not_written_about_is_said_with_the_nearest() -> None:
    refused = run("explain", "tierz")
    assert refused.exit_code == Exit.USAGE
    assert "did you mean tiers?" in refused.output
    assert "endpoints" in run("explain", "zebra crossings").output


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_shells_get_their_completion(shell: str) -> None:
    shown = run("completion", shell)
    assert shown.exit_code == Exit.DONE
    assert f"_SEMTEL_BATCH_COMPLETE={shell}_complete" in shown.output


def test_plans_are_completed_and_nothing_breaks_where_there_are_none(tmp_path: Path) -> None:
    assert completions.plan_ids(tmp_path) == []
    Store(tmp_path).close()
    assert completions.plan_ids(tmp_path) == []
    (tmp_path / "bad" / "state").mkdir(parents=True)
    (tmp_path / "bad" / "state" / "semtel.sqlite3").write_text("not a database")
    assert completions.plan_ids(tmp_path / "bad") == []
    environ = {"_SEMTEL_BATCH_COMPLETE": "zsh_complete", "COMP_WORDS": "semtel-batch purg", "COMP_CWORD": "1"}
    shown = CliRunner().invoke(cli.main, prog_name="semtel-batch", env=environ)
    assert "purge" in shown.output


def test_init_says_what_comes_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "export its key, and run:\n  semtel-batch --project one doctor" in run("init", "one").output
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    (tmp_path / "chats.jsonl").touch()
    said = run("init").output
    assert "semtel-batch run chats.jsonl --sample 20" in said
    assert "sk-secret" not in said
    assert "--project two run chats.jsonl" in run("init", "two").output


def test_help_shows_examples_that_can_be_given() -> None:
    for name in ("plan", "run", "collect", "labels", "purge"):
        assert "Examples:" in run(name, "--help").output, name


def test_help_loads_nothing_that_takes_time() -> None:
    code = "import sys; from semtel_batch.cli import main; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    slow = {"polars", "numpy", "sqlalchemy", "pydantic", "rich", "openai", "aiohttp", "prompty", "jinja2", "scipy"}
    assert "click" in done.stdout.split()
    assert slow & set(done.stdout.split()) == set()


def test_looking_loads_nothing_that_decides_or_measures() -> None:
    code = "import sys; import semtel_batch.commands.looking; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    slow = {"scipy.special", "semtel_batch.planner.optimize", "openai", "aiohttp", "prompty", "matplotlib", "jinja2"}
    assert "semtel_batch.report" in loaded
    assert slow & loaded == set()
