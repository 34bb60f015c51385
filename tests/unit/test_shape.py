"""Files and functions that can be read at once, and nothing left for later."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
FOLDERS = ("semtel_batch", "tests", "examples", "benchmarks", "docs")

FILE_LINES = 400
FUNCTION_LINES = 60

LONGER = {
    "semtel_batch/store.py": 605,  # one door to SQLite: many small methods, each one transaction
}
"""Files that may be longer, how long, and why."""

TEST_LINES = 700
"""A test file is a list of cases: it is looked up, not read through."""

LATER = ("todo".upper(), "fixme".upper())  # so that this file is not found itself


def _python_files() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (PROJECT / folder).rglob("*.py"))


def _texts() -> list[Path]:
    beside = (path for name in ("prompts", "strategies", "state", "docs", "examples") for path in _texts_in(name))
    return [*_python_files(), *beside, *PROJECT.glob("*.md"), *PROJECT.glob("*.toml"), PROJECT / "Makefile"]


def _texts_in(folder: str) -> Iterator[Path]:
    kinds = {".md", ".toml", ".prompty", ".sql"}
    return (path for path in (PROJECT / folder).rglob("*") if path.suffix in kinds)


def _name(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


def _longest(path: Path) -> int:
    return LONGER.get(_name(path), TEST_LINES if _name(path).startswith("tests/") else FILE_LINES)


def test_a_file_can_be_read_at_once() -> None:
    lines = {path: path.read_text(encoding="utf-8").count("\n") for path in _python_files()}
    assert len(lines) > 100
    assert {_name(path): n for path, n in lines.items() if n > _longest(path)} == {}


def test_no_two_test_files_have_one_name() -> None:
    """Collected together, the second would be taken for the first."""
    names = [path.name for path in (PROJECT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted(set(names)) == sorted(names)


def test_no_exception_has_outlived_its_file() -> None:
    long_still = {name for name in LONGER if (PROJECT / name).read_text(encoding="utf-8").count("\n") > FILE_LINES}
    assert long_still == set(LONGER)


def test_a_function_can_be_read_at_once() -> None:
    assert [found for path in _python_files() for found in _long_functions(path)] == []


def _long_functions(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            n_lines = node.end_lineno - node.lineno + 1
            if n_lines > FUNCTION_LINES:
                yield f"{_name(path)}: {node.name} has {n_lines} lines"


def test_nothing_is_left_for_later() -> None:
    left = [f"{_name(path)}: {word}" for path in _texts() for word in LATER if word in path.read_text(encoding="utf-8")]
    assert left == []
