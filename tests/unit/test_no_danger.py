"""What may not stand in the code: ways for text to become code, a command, or an unchecked connection."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "semtel_batch"

# Reading any of these runs code of whoever wrote the file. Models are kept as Parquet, JSON or plain arrays.
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "pty", "xmlrpc", "code"}
CALLS = {
    "eval": "text becomes code",
    "exec": "text becomes code",
    "compile": "text becomes code",
    "yaml.load": "safe_load, or a loader that is one",
    "yaml.unsafe_load": "safe_load",
    "yaml.full_load": "safe_load",
    "os.system": "a shell",
    "os.popen": "a shell",
    "subprocess.getoutput": "a shell",
    "torch.load": "a pickle",
    "tempfile.mktemp": "another process may be faster",
    "ssl._create_unverified_context": "nobody is checked",
}
OPTIONS = {
    "shell": True,
    "verify": False,  # of HTTP clients
    "ssl": False,
    "verify_ssl": False,
    "allow_pickle": True,
    "trust_remote_code": True,
    "markup": True,  # rich would obey what stands in a label
}

ALLOWED = {
    ("front_matter.py", "yaml.load"): "with loaders of its own, safe ones that refuse keys that stand twice",
}
"""File and call, and why it is none of these."""


def _dotted(node: ast.expr) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed([*parts, node.id])) if isinstance(node, ast.Name) else ""


def _found(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield node.module or ""
        elif isinstance(node, ast.Call):
            if _dotted(node.func) in CALLS:
                yield _dotted(node.func)
            for option in node.keywords:
                value = option.value.value if isinstance(option.value, ast.Constant) else None
                if option.arg in OPTIONS and value is OPTIONS[option.arg]:
                    yield f"{option.arg}={value}"


def test_none_of_it_is_there() -> None:
    found = {(p.name, what) for p in PACKAGE.rglob("*.py") for what in _found(p.read_text(encoding="utf-8"))}
    assert found - set(ALLOWED) == set()
    assert set(ALLOWED) <= found, "the exception is gone: take it away here"


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "yaml.load(x)",
        "run(c, shell=True)",
        "get(verify=False)",
    ],
)
def test_each_of_it_would_be_found(text: str) -> None:
    assert list(_found(text))
