"""Counts are tiktoken's; cuts keep to their limit and to characters."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import polars as pl
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from semtel_batch import tokens
from semtel_batch.errors import BadConfig

ODD = [
    "",
    "hello world",
    "<|endoftext|><|im_start|>",
    "a\ud800b",
    "\udc00\ud83d\ude00",
    "🧠👩‍👩‍👧",
    "ב\u202eabc",
    "z\u0300" * 50,
    "\0\x01\x85\u2028",
    " \n\t \r\n" * 40,
    "12345678901234567890",
    "naïve café — …",
    "用户：你好",
]
ENCODINGS = ["o200k_base", "cl100k_base"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_counts_equal_tiktoken(reference: dict[str, tiktoken.Encoding], encoding: str) -> None:
    expected = [len(reference[encoding].encode_ordinary(text)) for text in ODD]
    assert tokens.count(ODD, encoding).tolist() == expected


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(codec=None), max_size=80), encoding=st.sampled_from(ENCODINGS))
def test_any_text_counts_as_tiktoken_counts_it(text: str, encoding: str) -> None:
    expected = len(tiktoken.get_encoding(encoding).encode_ordinary(text))
    assert tokens.count([text], encoding).tolist() == [expected]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", ["naughty_strings", "qmsum_long_a", "arena_hard_v2", "crosswoz_zh"])
def test_real_texts_count_equal(
    reference: dict[str, tiktoken.Encoding], shared_data: Path, encoding: str, name: str
) -> None:
    lines = [line for line in (shared_data / f"{name}.jsonl").read_bytes().split(b"\n") if line][:120]
    texts = ["\n".join(turn["content"] or "" for turn in json.loads(line)["turns"]) for line in lines]
    expected = [len(reference[encoding].encode_ordinary(text)) for text in texts]
    assert tokens.count(texts, encoding).tolist() == expected


def test_many_texts_are_counted_like_few() -> None:
    many = [f"number {n}" * (n % 7) for n in range(500)]
    assert tokens.count(many, "o200k_base").tolist() == [int(tokens.count([text], "o200k_base")[0]) for text in many]


def test_a_series_and_its_nulls() -> None:
    counted = tokens.count(pl.Series(["a b", None, ""], dtype=pl.String), "o200k_base")
    assert counted.tolist() == [2, 0, 0]
    assert counted.dtype.name == "uint32"
    assert tokens.count([], "o200k_base").tolist() == []


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-6-luna", "o200k_base"),
        ("gpt-5.4-mini-2026-03-17", "o200k_base"),
        ("gpt-4o-mini", "o200k_base"),
        ("gpt-4.1", "o200k_base"),
        ("gpt-4.5", "o200k_base"),
        ("o1", "o200k_base"),
        ("o3-mini", "o200k_base"),
        ("o4-mini", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("gpt-3.5-turbo", "cl100k_base"),
        ("gpt-35-turbo", "cl100k_base"),
        ("text-embedding-3-small", "cl100k_base"),
        ("text-embedding-ada-002", "cl100k_base"),
        ("gpt-oss-20b", "o200k_harmony"),
        ("gpt-oss", "o200k_harmony"),
        ("openai/gpt-oss-120b", "o200k_harmony"),
        ("ft:gpt-4.1-mini:team::abc", "o200k_base"),
        ("ft:gpt-3.5-turbo:team::abc", "cl100k_base"),
        ("GPT-4o", "o200k_base"),
        ("text-davinci-003", "p50k_base"),
    ],
)
def test_encoding_of_known_models(model: str, encoding: str) -> None:
    assert tokens.encoding_of(model) == encoding
    assert tokens.is_known_model(model)


@pytest.mark.parametrize("model", ["my-deployment", "claude-5", ""])
def test_unknown_models_fall_back_and_say_so(model: str) -> None:
    assert tokens.encoding_of(model) == "o200k_base"
    assert not tokens.is_known_model(model)


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(BadConfig, match="'no_base' is not known"):
        tokens.count(["x"], "no_base")


def test_a_vocabulary_that_cannot_be_loaded_says_what_to_do() -> None:
    with pytest.raises(BadConfig, match=r"p50k_base.*TIKTOKEN_CACHE_DIR"):
        tokens.count(["x"], "p50k_base")


def test_what_toktok_lacks_is_counted_by_tiktoken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "COMPILED_IN", frozenset())
    monkeypatch.setattr(tokens.toktok, "batch_count", None)
    assert tokens.count(["hello world", "a\ud800b"], "o200k_base").tolist() == [2, 3]
    assert tokens.truncate("hello big world", 2, "o200k_base") == "hello big"
    assert tokens.truncate("hello 🧠", 2, "o200k_base") == "hello "
    assert tokens.truncate("hello", 5, "o200k_base") == "hello"


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=60), limit=st.integers(0, 25), encoding=st.sampled_from(ENCODINGS))
def test_a_cut_is_a_prefix_within_its_limit(text: str, limit: int, encoding: str) -> None:
    cut = tokens.truncate(text, limit, encoding)
    assert text.startswith(cut)
    assert tokens.count([cut], encoding)[0] <= limit
    if tokens.count([text], encoding)[0] <= limit:
        assert cut == text


def test_a_cut_mends_lone_surrogates() -> None:
    assert tokens.truncate("a\ud800b", 10, "o200k_base") == "a\ufffdb"
    assert tokens.truncate("hello 🧠", 2, "o200k_base") == "hello "


def test_the_tests_have_no_network() -> None:
    with pytest.raises(OSError, match="tests have no network"):
        socket.create_connection(("192.0.2.1", 80), timeout=0.01)
    with pytest.raises(OSError, match="tests have no network"):
        socket.getaddrinfo("example.invalid", 80)
