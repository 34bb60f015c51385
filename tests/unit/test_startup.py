"""What a command must not load before it begins: nobody waits for a library that the command has no use for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "conversations.jsonl"
HEAVY = {
    "scipy",
    "sklearn",
    "matplotlib",
    "pandas",
    "pyarrow",
    "pyspark",
    "torch",
    "transformers",
    "llmlingua",
    "openai",
    "aiohttp",
    "wordllama",
    "sqlalchemy.orm",
    "semtel_batch.runner",
    "semtel_batch.intake",
    "semtel_batch.transport",
    "semtel_batch.page",
    "semtel_batch.sandbox",
}


def _loaded(code: str, folder: Path) -> set[str]:
    """The modules that a new interpreter has loaded after this."""
    told = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint('LOADED', *sys.modules)"],
        cwd=folder,
        env={"OPENAI_API_KEY": "none", "PATH": ""},
        check=True,
        capture_output=True,
        text=True,
    )
    return set(told.stdout.rpartition("LOADED")[2].split())


def test_plan_loads_no_more_than_it_needs(tmp_path: Path) -> None:
    lines = EXAMPLES.read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "data.jsonl").write_text("".join(lines[:5]), encoding="utf-8")
    code = "from semtel_batch.cli import main\nmain(['-q', 'plan', 'data.jsonl'], standalone_mode=False)"
    loaded = _loaded(code, tmp_path)
    assert "polars" in loaded
    assert (tmp_path / "state").exists(), "it has planned"
    assert loaded & HEAVY == set()


def test_help_loads_next_to_nothing(tmp_path: Path) -> None:
    loaded = _loaded("import semtel_batch.cli", tmp_path)
    assert "click" in loaded
    assert loaded & (HEAVY | {"polars", "numpy", "sqlalchemy", "pydantic", "prompty", "toktok", "rich"}) == set()
