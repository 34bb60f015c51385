"""Whatever a user's files hold: each is read, or refused with one of our errors that names it; never a traceback."""

from __future__ import annotations

import io
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from fuzzing import ODD, TEXT, as_json, as_toml, fuzz, spoilt, torn
from hypothesis import given
from hypothesis import strategies as st

from semtel_batch import classifiers, config, strategies
from semtel_batch.config import Settings
from semtel_batch.conversations import Columns, ingest, iter_parts, load_index
from semtel_batch.errors import BadConfig, BadData, BadPrompt, BadStrategy, SemtelError
from semtel_batch.studies.gold import read_gold


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def read_or_refused(read: Callable[[], Any], error: type[SemtelError], named: str) -> Any:
    """What was read; None if it was refused in one sentence that names the file."""
    try:
        return read()
    except error as refusal:
        assert named in str(refusal)
        assert "Traceback" not in str(refusal)
        return None


# -- semtel.toml -----------------------------------------------------------------------------------------------

SETTINGS: dict[str, Any] = {
    "endpoint": [
        {
            "name": "main",
            "kind": "openai",
            "base_url": "https://api.openai.com/v1",
            "model": "gpt-6-luna",
            "api_key_env": "KEY",
            "rpm": 500,
            "tpm": 200_000,
            "enqueued_tokens": 2_000_000,
            "tiers": ["realtime", "batch"],
            "concurrency": 32,
            "timeout": "120s",
            "answer_format": "json_schema",
            "encoding": "o200k_base",
            "price": {"input_usd": 0.1, "output_usd": "0.5", "batch_input_usd": 0.05, "batch_output_usd": 0.25},
        },
        {"name": "other", "kind": "azure", "base_url": "https://x.openai.azure.com", "deployment": "d"},
    ],
    "columns": {"conversation_id": "id", "turns": "messages", "text": "text", "role": "role", "content": "content"},
    "defaults": {
        "classifiers": ["topic"],
        "deadline": "24h",
        "budget_usd": 12.5,
        "min_agreement": 0.95,
        "max_attempts": 4,
    },
}
URLS = ["http://[::1", "https://[x]/", "https://a:b@c/", "https://h:99999/", "http://h", "//", "https://\u2100.com"]


def with_url(url: str) -> str:
    return as_toml({"endpoint": [{**SETTINGS["endpoint"][0], "base_url": url}]})


@fuzz("config")
@given(
    (spoilt(SETTINGS).map(as_toml) | st.sampled_from(URLS).map(with_url)).map(str.encode).flatmap(torn)
    | st.binary(max_size=40)
)
def test_settings_are_read_or_refused(folder: Path, content: bytes) -> None:
    (folder / config.FILE).write_bytes(content)
    settings = read_or_refused(lambda: config.load(folder, {}), BadConfig, config.FILE)
    assert settings is None or isinstance(settings, Settings)


# -- prompts ---------------------------------------------------------------------------------------------------

FRONT: dict[str, Any] = {
    "name": "mood",
    "description": "How the user feels.",
    "inputs": [{"name": "conversations", "kind": "string"}],
    "outputs": [{"name": "mood", "kind": "string", "enumValues": ["Happy", "Sad"]}],
    "metadata": {
        "labels": {"Happy": {"definition": "Glad.", "synonyms": ["joyful"], "examples": ["yay"]}, "Sad": "No."}
    },
    "template": {"format": {"kind": "jinja2"}, "parser": {"kind": "prompty"}},
}
BODIES = st.sampled_from(
    [
        "system:\nPick the mood.\n\nuser:\n{{conversations}}\n",
        "system:\n{{ 1/0 }}\nuser:\n{{conversations}}\n",
        "system:\n{% for i in range(3) %}{{ i }}{% endfor %}\nuser:\n{{conversations}}",
        "system:\n{{ conversations.__class__.__mro__ }}\nuser:\n{{conversations}}",
        "system:\n{{ x }} {% if %}\nuser:\n{{conversations}}",
        "system:\n{% include 'x' %}\nuser:\n{{conversations}}",
        "system:\n{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}\nuser:\n{{conversations}}",
        "system[x=1]:\na\nuser:\n{{conversations}}",
        "assistant:\na",
        "user:\n{{conversations}}",
        "",
    ]
)


def prompt(front: Any, body: str) -> bytes:
    try:
        text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    except (yaml.YAMLError, RecursionError):
        text = str(front)
    return f"---\n{text}---\n{body}".encode("utf-8", "surrogatepass")


@fuzz("prompts")
@given(
    st.one_of(
        spoilt(FRONT).map(lambda front: prompt(front, "system:\nPick.\n\nuser:\n{{conversations}}\n")),
        st.tuples(st.just(FRONT), BODIES | TEXT).map(lambda pair: prompt(*pair)),
        spoilt(FRONT).map(lambda front: prompt(front, "system:\nPick.\nuser:\n{{conversations}}\n")).flatmap(torn),
        st.text(max_size=40).map(lambda text: f"---\n{text}\n---\nsystem:\na\nuser:\n{{{{conversations}}}}".encode()),
    )
)
def test_prompts_are_read_or_refused(folder: Path, content: bytes) -> None:
    path = folder / "mood.prompty"
    path.write_bytes(content)
    read = read_or_refused(lambda: classifiers.load(path), BadPrompt, "mood.prompty")
    if read is not None:
        assert read.name == "mood" and read.labels and read.instructions
        assert read.version == classifiers.version_of(read.name, read.instructions, read.labels)


# -- recipes ---------------------------------------------------------------------------------------------------

RECIPE: dict[str, Any] = {
    "name": "mine",
    "summary": "A grid.",
    "grid": {
        "tier": ["realtime", "batch"],
        "conversations_per_request": [5, 10],
        "classifiers_per_request": [1, 0],
        "truncate_to": [0, 512],
        "keep": ["head", "tail"],
        "grade": [True, False],
    },
    "evidence": [
        {
            "lever": "packing",
            "label_change": 0.1,
            "n": 269,
            "assumed": True,
            "source": "somebody",
            "when": {"conversations_per_request": [2, 16]},
        }
    ],
}


@fuzz("recipes")
@given(spoilt(RECIPE).map(as_toml).map(str.encode).flatmap(torn) | st.binary(max_size=40))
def test_recipes_are_read_or_refused(folder: Path, content: bytes) -> None:
    path = folder / "mine.toml"
    path.write_bytes(content)
    recipe = read_or_refused(lambda: strategies.load(path), BadStrategy, "mine.toml")
    if recipe is not None:
        assert recipe.strategies()
        assert all(0 <= recipe.label_change(one).label_change <= 1 for one in recipe.strategies())


def test_what_is_drawn_from_is_sound(folder: Path) -> None:
    """Else all the cases above would only ever be refused."""
    for name, text in ((config.FILE, as_toml(SETTINGS)), ("mine.toml", as_toml(RECIPE))):
        (folder / name).write_text(text, encoding="utf-8")
        tomllib.loads(text)
    (folder / "mood.prompty").write_bytes(prompt(FRONT, "system:\nPick.\n\nuser:\n{{conversations}}\n"))
    assert len(config.load(folder, {}).endpoints) == 2
    assert len(strategies.load(folder / "mine.toml").strategies()) > 10
    assert classifiers.load(folder / "mood.prompty").label_names == ("Happy", "Sad")


# -- data ------------------------------------------------------------------------------------------------------

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "what?\u2028yes"}]
DATA = [
    {"conversation_id": "a", "turns": TURNS},
    {"conversation_id": "b", "text": "user: hello"},
    {"conversation_id": 3, "turns": '[{"role": "user", "content": "x"}]'},
    {"conversation_id": "d", "turns": [], "more": {"deep": [1, None]}},
]


def lines(rows: Any) -> bytes:
    return b"\n".join(as_json(row) for row in rows) if isinstance(rows, list) else as_json(rows)


def table(rows: Any) -> bytes:
    """Parquet of whatever can be one."""
    file = io.BytesIO()
    try:
        pl.DataFrame(rows, strict=False).write_parquet(file)
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError, pl.exceptions.PanicException):
        return b"PAR1 no PAR1"
    return file.getvalue()


CSV = b'conversation_id,text,turns\na,"user: hi\nthere",\nb,,"[{""role"": ""user"", ""content"": ""x""}]"\n'
SOURCES = st.one_of(
    st.tuples(st.just("data.jsonl"), spoilt(DATA).map(lines).flatmap(torn)),
    st.tuples(st.just("data.jsonl"), st.lists(ODD, max_size=3).map(lines)),
    st.tuples(st.just("data.ndjson.gz"), st.binary(max_size=30)),
    st.tuples(st.just("data.csv"), torn(CSV) | st.binary(max_size=60)),
    st.tuples(st.just("data.parquet"), spoilt(DATA[:1] * 2).map(table).flatmap(torn)),
)


@fuzz("data")
@given(SOURCES)
def test_data_is_kept_or_refused(folder: Path, source: tuple[str, bytes]) -> None:
    name, content = source
    path, kept = folder / name, folder / "kept"
    path.write_bytes(content)
    found = read_or_refused(lambda: ingest(str(path), Columns(), kept, "o200k_base"), BadData, "data.")
    if found is not None:
        index = load_index(kept)
        assert index.height == found.n_conversations == sum(part.height for part in iter_parts(kept)) > 0
        assert index["conversation_id"].is_unique().all() and index["conversation_id"].null_count() == 0
    assert not [left for left in folder.iterdir() if left.name.startswith(".kept")]


GOLD = [
    {"conversation_id": "a", "labels": {"topic": "Travel", "task": ["Planning", "Other"]}},
    {"conversation_id": "b", "topic": 3, "task": None},
    {"conversation_id": 7, "topic": True},
]


@fuzz("gold")
@given(
    st.one_of(
        st.tuples(st.just("gold.jsonl"), spoilt(GOLD).map(lines).flatmap(torn)),
        st.tuples(st.just("gold.csv"), torn(b"conversation_id,topic\na,Travel\nb,\n") | st.binary(max_size=40)),
        st.tuples(st.just("gold.parquet"), spoilt(GOLD[:1] * 2).map(table).flatmap(torn)),
    )
)
def test_gold_is_read_or_refused(folder: Path, source: tuple[str, bytes]) -> None:
    name, content = source
    path = folder / name
    path.write_bytes(content)
    frame = read_or_refused(lambda: read_gold(path), BadData, name)
    assert frame is None or "conversation_id" in frame.columns
