"""Write what the documents show: run their commands against the sandbox, and put in what they really printed.

    python docs/generate.py            rewrite the blocks of README.md and docs/*.md
    python docs/generate.py --check    run everything again and fail if a document shows something else
    python docs/generate.py --check README.md    only this one

A block begins with one of these lines, ends with `<!-- end -->`, and everything between is generated:

    <!-- output: COMMAND -->           the command and what it printed, at 100 columns without colour
    <!-- output lines=20: COMMAND -->  only the first 20 lines of it
    <!-- table: NAME -->               a table made from the code: commands, classifiers, strategies, evidence

Only a block `<!-- file: NAME -->` is not generated but taken: what it shows is written into the project before the
commands after it run. Each document has a project and a sandbox of its own.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from semtel_batch import classifiers, strategies
from semtel_batch.cli import main as command_line
from semtel_batch.strategies import Bounds, Evidence, Recipe

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = 100
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_BLOCK = re.compile(
    r"^<!-- (?P<kind>output|table|file)(?: lines=(?P<lines>\d+))?: (?P<what>.+?) -->\n(?P<body>.*?)^<!-- end -->$",
    re.MULTILINE | re.DOTALL,
)
_FENCED = re.compile(r"```\w*\n(.*?)```", re.DOTALL)
_PROGRESS = re.compile(r"^requests: .*\n", re.MULTILINE)
_PATIENCE_S = 300

_VARYING = (
    (re.compile(r"\b[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"\b\d{4}-\d\d-\d\d\b"), "DATE"),
    (re.compile(r"\b\d\d:\d\d(?::\d\d)?\b"), "CLOCK"),
    (re.compile(r"127\.0\.0\.1:\d+"), "ADDRESS"),
    (re.compile(r"[\d.,]+(?: ?[kM])? (?:requests|tokens)/(?:s|min)\b"), "RATE"),
    (re.compile(r"(?:\b\d[\d.,]* ?(?:ms|s|min)\b ?)+"), "DURATION "),
    (re.compile(r"genai-prices [\d.]+"), "genai-prices"),
    (re.compile(r"─+"), "─"),
)
"""What differs from run to run, and what takes its place before two versions are compared."""


def main(arguments: list[str]) -> int:
    names = [one for one in arguments if not one.startswith("-")]
    changed = []
    for path in DOCUMENTS:
        if names and path.name not in names:
            continue
        old = path.read_text(encoding="utf-8")
        new = generated(old)
        if "--check" not in arguments:
            path.write_text(new, encoding="utf-8")
        elif comparable(old) != comparable(new):
            changed.append(path.name)
            difference = difflib.unified_diff(_lines(old), _lines(new), path.name, "what is printed now", n=2)
            sys.stdout.writelines(difference)
    if changed:
        sys.stdout.write(f"\n{', '.join(changed)}: not what the commands print; run: python docs/generate.py\n")
    return 1 if changed else 0


def generated(document: str) -> str:
    """The document with every block made anew."""
    with _project() as project:

        def fill(block: re.Match[str]) -> str:
            head = block[0].partition("\n")[0]
            return f"{head}\n{_filled(block, project).strip()}\n<!-- end -->"

        return _BLOCK.sub(fill, document)


def comparable(document: str) -> list[str]:
    """The words of a document without what varies between runs, and without where lines are broken."""
    text = _PROGRESS.sub("", document)
    for pattern, stand_in in _VARYING:
        text = pattern.sub(stand_in, text)
    return text.split()


def _lines(document: str) -> list[str]:
    return [" ".join(comparable(line)) + "\n" for line in _PROGRESS.sub("", document).splitlines()]


def _filled(block: re.Match[str], project: Project) -> str:
    if block["kind"] == "table":
        return TABLES[block["what"]]()
    if block["kind"] == "file":
        project.write(block["what"], _shown_file(block))
        return block["body"]
    return f"```console\n{project.run(block['what'], int(block['lines'] or 0))}```"


def _shown_file(block: re.Match[str]) -> str:
    fenced = _FENCED.search(block["body"])
    if fenced is None:
        raise SystemExit(f"The block of file {block['what']} shows no text between fences.")
    return fenced[1]


# ── commands ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Project:
    """A folder in which a document's commands run, and the environment they see."""

    folder: Path
    environ: Mapping[str, str]

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def run(self, command: str, n_lines: int) -> str:
        """The command, what it printed (the first lines, or all), and how it ended if not well."""
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        if "Traceback" in done.stdout:
            raise SystemExit(f"{command}\n{done.stdout}")
        text = self._without_places(_last_progress_only(done.stdout))
        lines = [f"{part}\n" for line in text.rstrip("\n").splitlines() for part in _as_a_terminal_wraps(line)]
        shown = "".join(lines[:n_lines]) + "…\n" if n_lines and n_lines < len(lines) else "".join(lines)
        ending = f"(exit code {done.returncode})\n" if done.returncode else ""
        return f"$ {command}\n{shown}{ending}"

    def _without_places(self, text: str) -> str:
        for place, name in ((str(self.folder), "~/project"), (str(ROOT), "~/semtel-batch")):
            text = text.replace(place, name)
        return text


def _as_a_terminal_wraps(line: str) -> list[str]:
    """Messages are one line, however long, where nobody looks."""
    return [line] if len(line) <= COLUMNS else textwrap.wrap(line, COLUMNS, break_on_hyphens=False)


def _last_progress_only(text: str) -> str:
    *earlier, _ = _PROGRESS.findall(text) or [""]
    for line in earlier:
        text = text.replace(line, "", 1)
    return text


@contextmanager
def _project() -> Iterator[Project]:
    """A folder with the examples in it, and a sandbox as its endpoint."""
    with tempfile.TemporaryDirectory(prefix="semtel-docs-") as home, _sandbox(Path(home)) as url:
        folder = Path(home).resolve() / "project"
        folder.mkdir()
        shutil.copytree(ROOT / "examples", folder / "examples")
        yield Project(folder, _environ(home) | {"OPENAI_API_KEY": "any", "OPENAI_BASE_URL": url})


def _environ(home: str) -> dict[str, str]:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    keys = {"AZURE_OPENAI_API_KEY": "any", "GATEWAY_KEY": "any"}
    return {"PATH": path, "HOME": home, "LANG": "C.UTF-8", "NO_COLOR": "1", "COLUMNS": str(COLUMNS), **keys}


@contextmanager
def _sandbox(home: Path) -> Iterator[str]:
    """A sandbox in its own process, whose batches hurry; yields its base URL."""
    settings = home / "sandbox.toml"
    settings.write_text("validating_s = 0.05\nin_progress_s = 0.1\nfinalizing_s = 0.05\n", encoding="utf-8")
    command = [sys.executable, "-m", "semtel_batch", "sandbox", "--port", "0", "--config", str(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


# ── tables ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines: list[Sequence[str]] = [head, ["---" for _ in head], *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _commands() -> str:
    rows = [
        (f"`{_usage(name, one)}`", one.get_short_help_str(200), _options(one))
        for name, one in command_line.commands.items()
    ]
    return _table(("command", "what it does", "options"), rows)


def _usage(name: str, command: click.Command) -> str:
    pieces = [piece for piece in command.collect_usage_pieces(click.Context(command)) if piece != "[OPTIONS]"]
    return " ".join([name, *pieces])


def _options(command: click.Command) -> str:
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    return "below" if len(options) > 3 else ", ".join(f"`{one.opts[-1]}`" for one in options)


def _classifiers() -> str:
    found = (classifiers.load(path) for _, path in sorted(classifiers.known(None).items()))
    rows = [(f"`{one.name}`", one.description, str(len(one.labels)), ", ".join(one.label_names)) for one in found]
    return _table(("name", "asks", "labels", "which"), rows)


def _strategies() -> str:
    rows = [(f"`{one.name}`", one.summary, _grid(one), _range(one)) for one in strategies.find(())]
    return _table(("recipe", "how it asks", "grid", "labels it may change"), rows)


def _grid(recipe: Recipe) -> str:
    return "<br>".join(f"`{name}` {', '.join(_value(one) for one in values)}" for name, values in recipe.grid)


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _range(recipe: Recipe) -> str:
    """Least and most of what is known for each lever; all of it is in the table of evidence."""
    known: dict[str, list[float]] = {}
    for one in recipe.evidence:
        known.setdefault(one.lever, []).append(one.label_change)
    if not known and any(one.escalate for one in recipe.strategies()):
        return "whatever your two models differ in, unmeasured"
    if not known:
        return "none, by construction: the same requests"
    return "<br>".join(f"{lever} {_span(min(shares), max(shares))}, assumed" for lever, shares in known.items())


def _span(low: float, high: float) -> str:
    return f"{low * 100:g} %" if low == high else f"{low * 100:g}–{high * 100:g} %"


def _evidence() -> str:
    """Every figure once, with the recipes that carry it."""
    carried: dict[Evidence, list[str]] = {}
    for recipe in strategies.find(()):
        for one in recipe.evidence:
            carried.setdefault(one, []).append(f"`{recipe.name}`")
    rows = [
        (one.lever, _when(one.when), f"{one.label_change * 100:g} %", str(one.n or "–"), one.source, ", ".join(names))
        for one, names in carried.items()
    ]
    return _table(("lever", "for", "labels changed", "n", "source", "recipes"), rows)


def _when(bounds: tuple[Bounds, ...]) -> str:
    return ", ".join(f"`{one.parameter}` {_between(one.low, one.high)}" for one in bounds) or "any"


def _between(low: float, high: float) -> str:
    return f"{low:g} and more" if high >= 1_000_000 else f"{low:g} to {high:g}"


TABLES = {
    "commands": _commands,
    "classifiers": _classifiers,
    "strategies": _strategies,
    "evidence": _evidence,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
