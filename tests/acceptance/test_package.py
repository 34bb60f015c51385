"""What is built is what a user needs and nothing else; installed by itself, it plans from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 600

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("package")]


def _run(*command: str | Path, cwd: Path, environ: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(one) for one in command],
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive and the wheel built from it, as an index would get them."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


def _texts(folder: str, pattern: str) -> set[str]:
    found = {path.name for path in (ROOT / folder).glob(pattern)}
    assert found
    return found


def test_the_wheel_holds_the_program_and_its_texts(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = "semtel_batch/_shipped"
    assert {f"{shipped}/prompts/{name}" for name in _texts("prompts", "*.prompty")} <= names
    assert {f"{shipped}/strategies/{name}" for name in _texts("strategies", "*.toml")} <= names
    assert {f"{shipped}/docs/{name}" for name in _texts("docs", "*.md")} <= names
    assert {f"{shipped}/migrations/{name}" for name in _texts("state/migrations", "*.sql")} <= names
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "semtel_batch").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules


def test_the_wheel_puts_nothing_generic_among_the_users_packages(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"semtel_batch", "semtel_batch-0.1.0.dist-info"}
    kinds = {Path(name).suffix for name in names if name.startswith("semtel_batch/")}
    # .md: what `explain` shows; .html: the template of report pages.
    assert kinds == {".py", ".prompty", ".toml", ".sql", ".typed", ".md", ".html"}


def test_the_source_archive_is_enough_to_build_test_and_read(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    texts = ("README.md", "CHANGELOG.md", "LICENSE", "Makefile", "constraints.txt", "pyproject.toml", "state/README.md")
    folders = {"prompts", "strategies", "state", "tests", "docs", "examples", "benchmarks", "semtel_batch"}
    assert set(texts) <= names
    assert folders <= {name.partition("/")[0] for name in names}
    assert not [name for name in names if name.endswith((".sqlite3", ".pyc")) or name.startswith(("demo/", ".venv/"))]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment in which only the wheel was installed. Takes a minute, and an index."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    pins = ROOT / "constraints.txt"
    quiet = ("--quiet", "--disable-pip-version-check")
    _run(programs / "python", "-m", "pip", "install", *quiet, "-c", pins, wheel, cwd=folder)
    return programs


def test_the_installed_wheel_plans_from_another_folder(installed: Path, tmp_path: Path) -> None:
    project = tmp_path / "elsewhere"
    project.mkdir()
    environ = {"OPENAI_API_KEY": "any", "NO_COLOR": "1", "PYTHONPATH": "", "COLUMNS": "100"}
    command = installed / "semtel-batch"
    said = _run(command, "plan", ROOT / "examples" / "conversations.jsonl", cwd=project, environ=environ)
    assert "Nothing is spent yet." in said
    assert (project / "state" / "semtel.sqlite3").is_file()
    assert "classifiers  topic" in said
    again = _run(command, "status", cwd=project, environ=environ)
    assert "planned" in again


def test_the_installed_wheel_stands_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = "import semtel_batch.resources as r; print(r.__file__, *(r.shipped(k) for k in ('prompts', 'migrations')))"
    places = _run(installed / "python", "-c", code, cwd=tmp_path, environ={"PYTHONPATH": ""}).split()
    assert places and all(place.startswith(str(installed.parent)) for place in places)


def test_the_sandbox_without_its_extra_says_what_to_install(installed: Path, tmp_path: Path) -> None:
    command = [str(installed / "semtel-batch"), "sandbox", "--port", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done
    assert "semtel-batch[sandbox]" in done.stderr
