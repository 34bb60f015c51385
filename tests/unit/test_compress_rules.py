"""What must stay stays, byte for byte; what is not English keeps its words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semtel_batch import conversations, tokens
from semtel_batch.compose.compress.compressor import Compressed, compress_texts
from semtel_batch.compose.compress.rules import Rules
from semtel_batch.compose.compress.spans import are_kept, gaps, protected

ENCODING = "o200k_base"
PRECIOUS = ["48213-AX", "$1,299.50", "12 March 2027", "https://example.com/a?b=c&d=1#the", "anna@example.com"]
PRECIOUS += [
    "```\nif a is b:\n    pass\n```",
    "`the a of`",
    '{"is": {"the": [1, 2]}}',
    "<b>",
    '"the quick one"',
    "“of the”",
]
PRECIOUS += ["/usr/share/the.txt", "order_id", "getValue", "Paris", "NASA", "3½", "१२३", "C:\\the\\of", "$\\alpha$"]
PROSE = ["the ", "of ", "really ", "please ", "I want ", "it is ", "and then ", "that ", "  ", "!!!! ", ", ", "\n"]


def _shortened(texts: Sequence[str], rate: float = 0.3) -> Compressed:
    return compress_texts(Rules(ENCODING), texts, rate, ENCODING)


def _once(text: str, rate: float = 0.3) -> str:
    return Rules(ENCODING).compress([text], rate)[0] or ""


@pytest.mark.parametrize("precious", PRECIOUS)
def test_what_must_stay_stays_in_english_prose(precious: str) -> None:
    text = f"user: I want that it is really the one of the {precious} that you have, and it is also very good."
    assert precious in _once(text)
    assert tokens.count([_once(text)], ENCODING)[0] < tokens.count([text], ENCODING)[0]


@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(st.sampled_from(PRECIOUS + PROSE), max_size=30))
def test_spans_survive_any_mixture_in_their_order(pieces: list[str]) -> None:
    text = " ".join(pieces)
    assert are_kept(text, protected(text), _once(text))


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=400))
def test_any_text_ends_well(text: str) -> None:
    spans = protected(text)
    assert all(start < end for start, end in spans)
    assert [text[a:b] for a, b in sorted([*spans, *gaps(text, spans)])] == [
        text[a:b] for a, b in sorted({*spans, *gaps(text, spans)})
    ]
    assert "".join(text[a:b] for a, b in sorted([*spans, *gaps(text, spans)])) == text
    made = _shortened([text])
    assert are_kept(text, spans, made.texts[0])
    assert made.tokens_after <= made.tokens_before


@pytest.mark.parametrize(
    "text",
    [
        "user: Was ist das für ein Text, und wie will man das in der Zeit schaffen, so dass es an die Leute geht?",
        "user: Il a dit que la maison est a nous, on y va as soon que possible, et do re mi fa sol la si do.",
        "user: 嗨，您听过将太无二这个餐馆吗？周边有啥旅游的地儿？",
        "user: Он сказал, что это был действительно очень хороший день, и мы пошли домой.",
        "user: I hope an do that at in was die so on are het een of de kat in de boom.",
    ],
)
def test_other_languages_keep_every_word(text: str) -> None:
    assert _once(text) == text


def test_words_that_turn_a_meaning_stay() -> None:
    text = (
        "user: I do not want to go from the office to the airport without my bag, never before the 5th, can you help?"
    )
    for word in ("not", "from", "to", "without", "never", "before", "can", "my", "you", "I"):
        assert re.search(rf"\b{word}\b", _once(text)), word


def test_capitals_that_may_be_names_stay() -> None:
    assert "Will Smith" in _once("user: I saw Will Smith and The Who there, it was really the best that you can get.")
    assert _once("user: It is the best. The way you want it is good for you.") == "user: best. way you want good you."


def test_repetition_goes_and_the_speaker_stays() -> None:
    assert (
        _once("user: no no no no no, this is    wrong!!!!!!\n\n\n\n\nassistant: ok", 1.0)
        == "user: no, this is wrong!\n\nassistant: ok"
    )


def test_it_stops_at_the_step_that_reaches_the_rate() -> None:
    text = "user: I would really like to know how the trains of this city are, please, and what they cost. " * 4
    assert _once(text, 0.97) != _once(text, 0.3)
    assert " the " in _once(text, 0.9)


class _Broken:
    name, version, is_cheap = "broken", "1", True

    def compress(self, texts: Sequence[str], rate: float) -> list[str | None]:
        return [None, "", texts[2] + " and more", texts[3].replace("7", "8")[:-20], texts[4][:-20]]


def test_the_original_is_sent_and_counted_where_a_compressor_fails() -> None:
    texts = ["short", *(f"text number {i} with the number 7 in it; " + "and some words more " * 12 for i in range(5))]
    made = compress_texts(_Broken(), texts, 0.5, ENCODING)
    assert made.texts[:5] == texts[:5]
    assert made.texts[5] == texts[5][:-20]
    assert made.kept_whole == {"short": 1, "failed": 1, "empty": 1, "no shorter": 1, "changed what must stay": 1}
    assert made.tokens_after == int(tokens.count(made.texts, ENCODING).sum())


_DIGITS = re.compile(r"\d+")
_URLS = re.compile(r"https?://\S+")
_CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)


@pytest.mark.parametrize("name", ["qmsum_long_a", "arena_hard_v2", "crosswoz_zh", "naughty_strings"])
def test_no_digit_address_or_code_changes_in_real_conversations(shared_data: Path, name: str) -> None:
    texts = pl.concat(conversations.read(str(shared_data / f"{name}.jsonl")))["text"][:60].to_list()
    for before, after in zip(texts, _shortened(texts).texts, strict=True):
        for kind in (_DIGITS, _URLS, _CODE):
            assert kind.findall(before) == kind.findall(after)
