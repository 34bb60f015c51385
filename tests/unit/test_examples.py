"""The examples: gold labels are valid and complete, and the promised variety is there."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from semtel_batch import classifiers
from semtel_batch.tokens import count

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CLASSIFIERS = ("topic", "domain", "task", "expertise", "satisfaction")


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EXAMPLES / name).read_text(encoding="utf-8").split("\n") if line]


CONVERSATIONS = rows("conversations.jsonl")
GOLD = rows("gold.jsonl")


def text(conversation: dict[str, Any]) -> str:
    return "\n".join(turn["content"] for turn in conversation["turns"])


def user_turns(conversation: dict[str, Any]) -> list[str]:
    return [turn["content"] for turn in conversation["turns"] if turn["role"] == "user"]


def scripts() -> Counter[str]:
    """How many conversations have at least ten letters of each script, by the letters' Unicode names."""
    found: Counter[str] = Counter()
    for conversation in CONVERSATIONS:
        letters = Counter(unicodedata.name(c, "?").split()[0] for c in text(conversation) if c.isalpha())
        found.update(script for script, n in letters.items() if n >= 10)
    return found


def test_ids_are_unique_and_gold_has_each_once() -> None:
    ids = [c["conversation_id"] for c in CONVERSATIONS]
    assert len(set(ids)) == len(ids)
    assert [g["conversation_id"] for g in GOLD] == ids


def test_there_are_some_sixty_of_many_lengths() -> None:
    n_turns = [len(c["turns"]) for c in CONVERSATIONS]
    assert 55 <= len(CONVERSATIONS) <= 70
    assert min(n_turns) == 1
    assert max(n_turns) >= 25
    assert sum(n >= 1_500 for n in count([text(c) for c in CONVERSATIONS], "o200k_base")) >= 2


def test_turns_are_plain_role_and_content() -> None:
    for conversation in CONVERSATIONS:
        assert conversation.keys() == {"conversation_id", "turns"}
        for turn in conversation["turns"]:
            assert turn.keys() == {"role", "content"}
            assert turn["role"] in {"user", "assistant"}
            assert isinstance(turn["content"], str)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_gold_labels_are_the_classifiers(name: str) -> None:
    (classifier,) = classifiers.find([name], None)
    assert {g[name] for g in GOLD} <= set(classifier.label_names)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_label_is_used(name: str) -> None:
    (classifier,) = classifiers.find([name], None)
    assert set(classifier.label_names) == {g[name] for g in GOLD}


def test_gold_has_no_other_columns() -> None:
    assert all(set(g) == {"conversation_id", *CLASSIFIERS} for g in GOLD)


def test_one_user_turn_is_never_evidence_of_satisfaction() -> None:
    """The rule that satisfaction.prompty states, so gold must keep it."""
    single = {c["conversation_id"] for c in CONVERSATIONS if len(user_turns(c)) == 1}
    assert single
    assert {g["satisfaction"] for g in GOLD if g["conversation_id"] in single} == {"Unclear"}


def test_two_are_the_same_and_labelled_the_same() -> None:
    same = [c["conversation_id"] for c in CONVERSATIONS if [text(x) for x in CONVERSATIONS].count(text(c)) > 1]
    assert len(same) == 2
    labels = [{k: v for k, v in g.items() if k != "conversation_id"} for g in GOLD if g["conversation_id"] in same]
    assert labels[0] == labels[1]


def test_many_scripts_right_to_left_among_them() -> None:
    found = scripts()
    assert {"LATIN", "ARABIC", "HEBREW", "CJK", "HIRAGANA", "DEVANAGARI"} <= set(found)
    assert any(unicodedata.bidirectional(char) in {"R", "AL"} for c in CONVERSATIONS for char in text(c))


@pytest.mark.parametrize("word", ["größer", "¿", "à Quimper", "ingressos"])
def test_latin_languages_other_than_english(word: str) -> None:
    assert any(word in text(c) for c in CONVERSATIONS)


@pytest.mark.parametrize(
    "what",
    [
        "```python",
        "```json",
        "| month |",
        "Ignore all previous instructions",
        "</conversation>",
        '<conversation id="2">',
        "\nassistant: ",
        "\nsystem: ",
        "\nuser: ",
    ],
)
def test_awkward_text_stands_in_a_users_turn_or_an_answer(what: str) -> None:
    assert any(what in turn["content"] for c in CONVERSATIONS for turn in c["turns"])


def test_one_turn_is_empty_and_one_conversation_is_emoji_only() -> None:
    assert any(turn["content"] == "" for c in CONVERSATIONS for turn in c["turns"])
    assert any(not any(char.isalnum() for char in text(c)) for c in CONVERSATIONS)
