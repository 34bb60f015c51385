"""The house's floors: what may import what, who alone may speak to the outside, and what is imported late.

`FLOORS` names every room, a module or a package. A module imports from lower floors, and inside its own package; every
other exception is listed with its reason. A module that is in no room fails.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = "semtel_batch"

FLOORS = {
    # values, tables of facts, pure text
    "__init__": 0,
    "errors": 0,
    "records": 0,
    "network_plan": 0,
    "plans": 0,
    "rows": 0,
    "measurements": 0,
    "parameters": 0,
    "resources": 0,
    "clock": 0,
    "crashpoints": 0,
    "interrupts": 0,
    "families": 0,
    "wording": 0,
    "confidence": 0,
    "salvage": 0,
    "transcripts": 0,
    "tables": 0,
    "queueing": 0,
    "private": 0,
    "traces": 1,
    "logs": 0,
    "completions": 0,
    "group": 1,
    "arguments": 1,
    "pseudonyms": 0,
    "embedders": 1,
    # one source, one format, one count each
    "keys": 1,
    "sources": 1,
    "sampling": 1,
    "tokens": 1,
    "parts": 1,
    "tabular": 1,
    "frames": 2,
    "project": 1,
    "migrate": 1,
    "mapping": 1,
    "price_lists": 0,
    "front_matter": 0,
    "prices": 1,
    "classifiers": 1,
    "strategies": 1,
    # what is made of them
    "conversations": 2,
    "pieces": 3,
    "strata": 2,
    "labels": 2,
    "quality": 2,
    "database": 2,
    "endpoint_rules": 0,
    "config": 3,
    "compose": 3,
    "decisions": 3,
    "store": 3,
    # decisions, the way out, what the store says
    "planner": 4,
    "transport": 4,
    "results": 4,
    "lease": 4,
    "status": 4,
    "throughput": 4,
    "reckoning": 4,
    "legs": 4,
    "shorter_prompts": 4,
    "offers": 5,
    "generations": 5,
    "history": 5,
    "report": 5,
    "studies": 5,
    # the run
    "checkup": 6,
    "cutting": 6,
    "shardfiles": 6,
    "spool": 6,
    "compressing": 7,
    "embeddings": 3,
    "networks": 4,
    "vectors": 2,
    "embedding_shards": 7,
    "network_labels": 8,
    "embedding": 9,
    "intake": 7,
    "reuse": 8,
    "work": 8,
    "hedging": 9,
    "batching": 10,
    "engines": 9,
    "wishes": 10,
    "purging": 8,
    "audit": 9,
    "runner": 11,
    # the user
    "console": 11,
    "page": 11,
    "session": 12,
    "spread": 12,
    "running": 13,
    "commands": 14,
    "api": 14,
    "cli": 15,
    "__main__": 16,
    # beside: a counterpart, not a mirror
    "sandbox": 0,
}

SAME_FLOOR = {
    ("page", "console"): "figures are written in one way",
    ("__init__", "api"): "only the types; the names are looked up when they are used",
    ("plans", "records"): "plans are made of records",
    ("plans", "network_plan"): "a plan's networks are a part of it",
    ("network_plan", "records"): "endpoints and prices are records",
    ("measurements", "records"): "strategies are records",
    ("parameters", "records"): "values of parameters are those of records",
    ("rows", "records"): "rows of the store are made of records",
}

LATE = {
    ("commands.around", "semtel_batch.sandbox.server"): "a web server that no other command needs",
    ("commands.comparing", "semtel_batch.page"): "a template engine and charts, which only a page needs",
    ("commands.looking", "semtel_batch.page"): "a template engine and charts, which only a page needs",
    ("commands.looking", "semtel_batch.studies.tradeoff"): "exact intervals, which other commands can do without",
    ("console.terminal", "semtel_batch.console.tradeoff_view"): "exact intervals, which no other report needs",
    ("console.terminal", "semtel_batch.studies.tradeoff"): "exact intervals, which no other report needs",
    ("commands.looking", "semtel_batch.studies.halos"): "exact tests, which only several classifiers need",
    ("quality.special", "scipy"): "a tenth of a second, which only exact tests need",
    ("page.charts", "matplotlib"): "half a second, which only a page needs",
    ("page.charts", "matplotlib.figure"): "half a second, which only a page needs",
    ("commands.around", "semtel_batch.checkup"): "only `doctor` needs it",
    ("console.terminal", "rich.markdown"): "only `explain` needs it",
    ("console.terminal", "semtel_batch.console.calibration_view"): "exact tests, which only what measures needs",
    ("console.terminal", "semtel_batch.console.board"): "live views are for terminals only, and slow to import",
    ("console.terminal", "semtel_batch.console.bars"): "live bars are for terminals only, and slow to import",
    (
        "planner.mix",
        "scipy",
    ): "its sparse matrices and optimisers take half a second to import, and only a mix needs them",
    ("planner.mix", "scipy.optimize"): "the same",
    ("planner.candidates", "scipy.optimize"): "the same",
    ("sandbox.zero_shot", "wordllama"): "the scripted model does without it",
    ("compose.compress.llmlingua2", "llmlingua"): "seconds and half a gigabyte, of an extra",
    ("compose.compress.llmlingua2", "torch"): "comes with llmlingua",
    ("compose.compress.llmlingua2", "transformers"): "comes with llmlingua",
    ("compose.compress.llmlingua2", "huggingface_hub"): "comes with llmlingua",
    ("spread", "semtel_batch.engines.spark.cluster"): "half a second and half a gigabyte, of an extra",
    ("spread", "semtel_batch.engines.spark.reading"): "the same",
    ("spread", "semtel_batch.engines.spark.sharing"): "the same",
    ("studies.training", "sklearn.exceptions"): "a second, of an extra, and only training needs it",
    ("studies.training", "sklearn.neural_network"): "a second, of an extra, and only training needs it",
    ("studies.training", "threadpoolctl"): "comes with scikit-learn",
    ("transport.endpoints", "semtel_batch.transport.background"): "only the tier that is asked for is imported",
    ("transport.endpoints", "semtel_batch.transport.realtime"): "only the tier that is asked for is imported",
    ("transport.endpoints", "semtel_batch.transport.batch"): "the SDK takes most of a second to import",
    ("transport.removal", "semtel_batch.transport.batch_api"): "the SDK takes most of a second to import",
    ("transport.model_list", "semtel_batch.transport.batch_api"): "the SDK takes most of a second to import",
}
"""What is imported inside a function, by whom, and why it can't stand at the top."""

DYNAMIC = {
    "__init__": "`semtel-batch --help` need not wait for what Python's users need",
    "spread": "whether an extra is there",
    "console.terminal": "whether a notebook can draw bars",
    "cli": "`--help` need not wait for Polars",
    "compose.compress.llmlingua2": "whether an extra is there, and a file of its",
    "studies.training": "whether its extra is there",
}
"""Who imports by name at run time (importlib), and why."""

DOORS = {
    "aiohttp": {"transport", "sandbox"},
    "openai": {"transport"},
    "httpx2": {"transport"},
    "sqlalchemy": {"store", "database", "tables"},
    "sqlite3": {"store", "database", "tables", "migrate", "completions"},
    "rich": {"console"},
    "click": {"cli", "group", "arguments"},
    "prompty": {"classifiers"},
    "jinja2": {"classifiers", "page"},
    "matplotlib": {"page"},
    "yaml": {"classifiers", "front_matter", "shorter_prompts"},
    "genai_prices": {"price_lists"},
    "tiktoken": {"tokens"},
    "toktok": {"tokens", "sandbox"},
    "rapidfuzz": {"labels"},
    "wordllama": {"sandbox"},
    "llmlingua": {"compose"},
    "torch": {"compose"},
    "transformers": {"compose"},
    "sklearn": {"studies"},
    "pyspark": {"engines"},
    "pyarrow": {"engines"},
}
"""Packages that only these rooms may import: what they do has one door."""


@dataclass(frozen=True)
class Import:
    """One import statement's target, as a module's full name, and whether it stands inside a function."""

    importer: str  # without the package's name: "compose.pack"
    target: str
    late: bool
    line: int

    @property
    def place(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"

    @property
    def ours(self) -> str | None:
        """The target without the package's name, if it is ours."""
        if self.target == PACKAGE:
            return "__init__"
        return self.target.removeprefix(f"{PACKAGE}.") if self.target.startswith(f"{PACKAGE}.") else None


def _modules() -> dict[str, Path]:
    found = {}
    for path in sorted((PROJECT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(PROJECT / PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


MODULES = _modules()


def _room(module: str) -> str:
    return module.partition(".")[0]


def _imports(module: str) -> Iterator[Import]:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)]
    late = {id(inner) for function in functions for inner in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports relatively"
            targets = [_target(node.module or "", alias.name) for alias in node.names]
        else:
            continue
        for target in targets:
            yield Import(module, target, id(node) in late, node.lineno)


def _target(source: str, name: str) -> str:
    """`from a import b` is of a.b if that is a module of ours, else of a."""
    whole = f"{source}.{name}"
    return whole if whole.removeprefix(f"{PACKAGE}.") in MODULES and source.startswith(PACKAGE) else source


IMPORTS = [one for module in MODULES for one in _imports(module)]
OURS = [(one, one.ours) for one in IMPORTS if one.ours is not None]


def test_the_walk_sees_the_imports_that_are_known_to_be_there() -> None:
    seen = {(one.importer, one.target, one.late) for one in IMPORTS}
    assert ("plans", "semtel_batch.records", False) in seen
    assert ("commands.around", "semtel_batch.sandbox.server", True) in seen
    assert ("database", "sqlalchemy", False) in seen


def test_every_module_has_a_floor_and_every_floor_a_module() -> None:
    rooms = {_room(module) for module in MODULES}
    assert rooms - set(FLOORS) == set(), "give the new room a floor"
    assert set(FLOORS) - rooms == set(), "the room is gone: take its floor away"


def test_imports_go_down() -> None:
    wrong = [one.place for one, target in OURS if not _goes_down(one.importer, target)]
    assert wrong == []


def _goes_down(importer: str, target: str) -> bool:
    above, below = _room(importer), _room(target)
    return above == below or (above, below) in SAME_FLOOR or FLOORS[above] > FLOORS[below]


def test_every_exception_on_one_floor_is_used() -> None:
    used = {(_room(one.importer), _room(target)) for one, target in OURS}
    assert set(SAME_FLOOR) <= used


def test_no_module_imports_itself_by_a_detour() -> None:
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for one, target in OURS:
        if not one.late:
            graph[one.importer].add(target)
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def test_the_sandbox_and_the_rest_know_nothing_of_each_other() -> None:
    inside = [one.place for one, target in OURS if _room(one.importer) == "sandbox" and _room(target) != "sandbox"]
    assert inside == []
    outside = {(one.importer, target) for one, target in OURS if _room(target) == "sandbox" != _room(one.importer)}
    assert outside == {("commands.around", "sandbox.server")}


@pytest.mark.parametrize("package", DOORS)
def test_a_package_has_one_door(package: str) -> None:
    users = {_room(one.importer) for one in IMPORTS if one.target.partition(".")[0] == package}
    assert users, f"nobody imports {package}: take it away here and in pyproject.toml"
    assert users <= DOORS[package]


def test_what_is_imported_late_has_its_reason() -> None:
    assert {(one.importer, one.target) for one in IMPORTS if one.late} == set(LATE)


def test_who_imports_by_name_has_its_reason() -> None:
    dynamic = {one.importer for one in IMPORTS if one.target.partition(".")[0] == "importlib"}
    assert dynamic == set(DYNAMIC)
    built_in = [module for module, path in MODULES.items() if "__import__(" in path.read_text(encoding="utf-8")]
    assert built_in == []


def _declared() -> dict[str, set[str]]:
    """Names of distributions in pyproject.toml, of the plain dependencies ("") and of each extra."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {group: {_canonical(re.split(r"[^\w.-]", line)[0]) for line in lines} for group, lines in groups.items()}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


PROVIDERS = packages_distributions()


def _distributions(one: Import) -> set[str]:
    top = one.target.partition(".")[0]
    return {_canonical(name) for name in PROVIDERS.get(top, [top])}


def _third_party() -> list[Import]:
    return [one for one in IMPORTS if one.ours is None and one.target.partition(".")[0] not in sys.stdlib_module_names]


EXTRAS = {module: "sandbox" for module in MODULES if _room(module) == "sandbox"}
EXTRAS |= {"compose.compress.llmlingua2": "compress", "studies.training": "distill", "page.charts": "plots"}
EXTRAS |= {"engines.spark.cluster": "spark"}
"""Modules that may import what an extra brings."""


def test_what_is_imported_is_declared() -> None:
    declared = _declared()
    wrong = [
        one.place
        for one in _third_party()
        if not _distributions(one) & (declared[""] | declared.get(EXTRAS.get(one.importer, ""), set()))
    ]
    assert wrong == []


def test_what_is_declared_is_imported() -> None:
    imported = {name for one in _third_party() for name in _distributions(one)}
    assert _declared()[""] - imported == set()
