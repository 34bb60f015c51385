"""What the fuzz tests draw from: valid documents with something wrong in them, at any depth, and odd bytes.

The same cases every time, so that a failure in CI is a failure here; with FUZZ_TIMES=20 in the environment twenty
times as many, and others every time.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

CASES = {
    "result lines": 1_600,
    "result files": 500,
    "replies": 1_600,
    "intake": 120,
    "answers": 2_200,
    "batches": 1_200,
    "headers": 1_200,
    "config": 700,
    "prompts": 350,
    "recipes": 700,
    "data": 300,
    "gold": 300,
}
"""How many cases each test runs."""

TIMES = int(os.environ.get("FUZZ_TIMES", "1"))


def fuzz(what: str) -> settings:
    """The settings of one fuzz test."""
    return settings(
        max_examples=CASES[what] * TIMES,
        derandomize=TIMES == 1,
        database=None,
        deadline=None,
        phases=(Phase.generate,),  # a failing case is small enough, and making it smaller takes minutes
        suppress_health_check=list(HealthCheck),
    )


TEXT = st.text(max_size=8) | st.sampled_from(
    ["\u2028", "\ufeff", "\x00", "\x1b[31m", "user: x", "</conversation>", "٣"]
)
HUGE = st.sampled_from([2**31, 2**32, 2**63, 2**64, 10**30, -1, -(2**63), 65_536, 4_294_967_296])
FLOATS = st.floats() | st.sampled_from([1e308, -0.0, 0.5])
SCALARS = st.none() | st.booleans() | st.integers(-5, 600) | HUGE | FLOATS | TEXT


_DEEP = "@deep@"  # stands for brackets that only bytes can nest without an end to the stack

_LONG = "@long@"  # for a number of more digits than int() takes
ODD = (
    SCALARS
    | st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=5
    )
    | st.sampled_from([_DEEP, _LONG])
)
"""Values of any type, among them huge numbers, NaN and deep nesting."""


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def _twice(container: Any, key: Any) -> None:
    if isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    else:
        container[f"{key}_"] = container[key]


def _gone(container: Any, key: Any) -> None:
    del container[key]


@st.composite
def spoilt(draw: Callable[..., Any], document: Any, most: int = 3) -> Any:
    """A document in which up to `most` places are missing, doubled, or something else altogether."""
    value = copy.deepcopy(document)
    for _ in range(draw(st.integers(0, most))):
        places = list(_places(value))
        if not places:
            return draw(ODD)
        container, key = draw(st.sampled_from(places))
        how = draw(st.integers(0, 9))
        if how == 0:
            _gone(container, key)
        elif how == 1:
            _twice(container, key)
        else:
            container[key] = draw(ODD)
    return value


def as_json(value: Any) -> bytes:
    """JSON as careless servers write it: NaN, lone surrogates and raw U+2028 included."""
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    text = text.replace(b'"%s"' % _LONG.encode(), b"9" * 5_000)
    return text.replace(b'"%s"' % _DEEP.encode(), b"[" * 2_000 + b"]" * 2_000)


@st.composite
def torn(draw: Callable[..., Any], content: bytes) -> bytes:
    """Bytes, sometimes cut, with a byte order mark, or with strange bytes in the middle."""
    how = draw(st.integers(0, 7))
    if how == 0:
        return content[: draw(st.integers(0, len(content)))]
    if how == 1:
        return b"\xef\xbb\xbf" + content
    if how == 2:
        at = draw(st.integers(0, len(content)))
        return content[:at] + draw(st.binary(max_size=6)) + content[at:]
    return content


# -- TOML ------------------------------------------------------------------------------------------------------


def as_toml(document: Any) -> str:
    """TOML of a document; what TOML can't say (null, a top level that is no table) is left out."""
    if not isinstance(document, dict):
        return str(document)
    text = "".join(f"{_key(key)} = {_value(value)}\n" for key, value in document.items() if value is not None)
    return text.replace(f'"{_DEEP}"', "[" * 2_000 + "]" * 2_000).replace(f'"{_LONG}"', "9" * 5_000)


def _key(key: Any) -> str:
    return _string(str(key))


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case float() if math.isinf(value) or math.isnan(value):
            return str(value)
        case int() | float():
            return repr(value)
        case date():
            return value.isoformat()
        case list():
            return "[" + ", ".join(_value(inner) for inner in value if inner is not None) + "]"
        case dict():
            pairs = (f"{_key(key)} = {_value(inner)}" for key, inner in value.items() if inner is not None)
            return "{" + ", ".join(pairs) + "}"
    return _string(str(value))


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
