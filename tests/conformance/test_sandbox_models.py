"""The models behind the sandbox: how the scripted one errs, and that the zero-shot one is a classifier."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sandbox_requests import chat

from semtel_batch.sandbox.gold import Gold, load
from semtel_batch.sandbox.reading import Asked, read
from semtel_batch.sandbox.scripted import Scripted
from semtel_batch.sandbox.settings import Settings, SettingsError, from_toml
from semtel_batch.sandbox.zero_shot import ZeroShot

TEXTS = [f"user: question number {number} about something\nassistant: fine" for number in range(400)]
TRUE = "Food"


def gold(texts: list[str] = TEXTS) -> Gold:
    known = Gold()
    for number, text in enumerate(texts):
        known.add(str(number), text, {"topic": TRUE})
    return known


def asked(*texts: str, names: tuple[str, ...] = ("topic",), model: str = "gpt-4.1-mini", **more: Any) -> Asked:
    body = chat(*texts, names=names, **more)
    found = read(body, model, json.dumps(body).encode(), 0)
    assert found is not None
    return found


def labels(model: Scripted | ZeroShot, *requests: Asked, name: str = "topic") -> list[str]:
    return [answer[name] for answers in model.answer(requests) for answer in answers]


def singles(settings: Settings, **more: Any) -> list[str]:
    return labels(Scripted(settings, gold()), *(asked(text, **more) for text in TEXTS))


def packs(settings: Settings, size: int, shift: int = 0) -> list[str]:
    turned = TEXTS[shift:] + TEXTS[:shift]
    told = labels(Scripted(settings, gold()), *(asked(*turned[i : i + size]) for i in range(0, len(turned), size)))
    return told[-shift:] + told[:-shift] if shift else told


def test_packs_flip_each_item_at_its_own_rate() -> None:
    shaky = Settings(packed_flip=0.2, packed_flip_correlation=0.4)
    assert set(singles(shaky)) == {TRUE}
    runs = [[label != TRUE for label in packs(shaky, 16, shift=shift)] for shift in range(8)]
    mean = sum(map(sum, runs)) / (8 * len(TEXTS))
    both = sum(a and b for x in range(8) for y in range(x) for a, b in zip(runs[x], runs[y], strict=True))
    both_share = both / (28 * len(TEXTS))
    correlation = (both_share - mean**2) / (mean - mean**2)
    assert 0.15 < mean < 0.25
    assert 0.3 < correlation < 0.5


@pytest.mark.parametrize("correlation", [0.0, 1.0])
def test_at_the_ends_of_correlation_packs_flip_by_chance_or_always_the_same(correlation: float) -> None:
    settings = Settings(packed_flip=0.3, packed_flip_correlation=correlation)
    first, second = packs(settings, 16), packs(settings, 16, shift=5)
    assert 0.2 < sum(label != TRUE for label in first) / len(TEXTS) < 0.4
    assert (first == second) is (correlation == 1.0)


def test_flipped_labels_are_less_sure() -> None:
    model = Scripted(Settings(packed_flip=0.3, unsure_flips=1.0, unsure_others=0.0), gold())
    request = asked(*TEXTS[:60])
    (given,) = model.answer([request])
    for labels_given, sure in zip(given, model.sure(request, given), strict=True):
        assert (sure["topic"] < 0.9) == (labels_given["topic"] != TRUE)
    (probability,) = ZeroShot().sure(asked(TEXTS[0]), ZeroShot().answer([asked(TEXTS[0])])[0])
    assert 0 < probability["topic"] <= 1


def test_a_model_is_less_sure_of_its_own_errors() -> None:
    settings = Settings(model_error_rates={"gpt-6-luna": 0.3}, unsure_flips=1.0, unsure_others=0.0)
    model, request = Scripted(settings, gold()), asked(*TEXTS[:60], model="gpt-6-luna")
    (given,) = model.answer([request])
    assert {labels_given["topic"] == TRUE for labels_given in given} == {True, False}
    for labels_given, sure in zip(given, model.sure(request, given), strict=True):
        assert (sure["topic"] < 0.9) == (labels_given["topic"] != TRUE)


def test_without_noise_gold_is_answered() -> None:
    assert set(singles(Settings())) == {TRUE}
    assert set(packs(Settings(), 20)) == {TRUE}


def test_errors_stay_with_their_items_whatever_the_pack() -> None:
    noisy = Settings(error_rate=0.2)
    alone = singles(noisy)
    assert 0.14 < sum(label != TRUE for label in alone) / len(TEXTS) < 0.26
    assert packs(noisy, 10) == alone == singles(noisy)
    assert singles(Settings(error_rate=0.2, seed=1)) != alone
    assert set(singles(Settings(error_rates={"mood": 0.5}))) == {TRUE}
    assert set(singles(Settings(model_error_rates={"gpt-6-luna": 0.5}))) == {TRUE}
    assert set(singles(Settings(model_error_rates={"gpt-6-luna": 0.5}), model="gpt-6-luna")) != {TRUE}


def test_packs_flip_labels_the_more_the_larger_and_partly_the_same_ones() -> None:
    shaky = Settings(pack_flip=0.05)
    assert set(singles(shaky)) == {TRUE}

    def flipped(told: list[str]) -> set[int]:
        return {index for index, label in enumerate(told) if label != TRUE}

    few, many, others = flipped(packs(shaky, 2)), flipped(packs(shaky, 16)), flipped(packs(shaky, 16, shift=200))
    assert 0.02 < len(few) / len(TEXTS) < 0.09
    assert 0.14 < len(many) / len(TEXTS) < 0.27
    assert packs(shaky, 16) == packs(shaky, 16)
    apart = flipped(packs(shaky, 16, shift=1))
    assert apart != many  # another pack, another answer
    expected_by_chance = len(many) * len(apart) / len(TEXTS)
    assert len(many & apart) > 1.3 * expected_by_chance  # but some items are unstable
    assert others


def test_combining_and_truncating_cost_labels_too() -> None:
    both = labels(
        Scripted(Settings(combine_flip=0.3), gold()), *(asked(text, names=("topic", "mood")) for text in TEXTS)
    )
    assert 0.2 < sum(label != TRUE for label in both) / len(TEXTS) < 0.4
    long = [
        "".join(f"user: turn {turn} of conversation {n} and more words\n" for turn in range(20)) for n in range(200)
    ]
    cut = Scripted(Settings(truncation_flip=0.5), gold(long))
    whole = labels(cut, *(asked(text) for text in long))
    heads = labels(cut, *(asked(text[: len(text) // 4]) for text in long))
    tails = labels(cut, *(asked(text[-len(text) // 4 :]) for text in long))
    assert set(whole) == {TRUE}
    for part in (heads, tails):
        assert 0.25 < sum(label != TRUE for label in part) / len(long) < 0.5


def test_a_rerun_may_differ() -> None:
    model = Scripted(Settings(rerun_flip=0.5), gold())
    first = [asked(text) for text in TEXTS]
    again = [Asked(a.questions, a.blocks, a.model, a.digest, 1) for a in first]
    assert set(labels(model, *first)) == {TRUE}
    assert 0.4 < sum(label != TRUE for label in labels(model, *again)) / len(TEXTS) < 0.6


def judged(given: str, *, misses: float = 0.0, alarms: float = 0.0) -> Counter[str]:
    settings = Settings(grader_misses=misses, grader_false_alarms=alarms)
    requests = [asked(f"{text}\n<labels>\ntopic: {given}\n</labels>", judging=True) for text in TEXTS]
    return Counter(labels(Scripted(settings, gold()), *requests))


def test_the_grader_knows_gold_but_for_its_own_errors() -> None:
    assert judged(TRUE) == {"correct": 400}
    assert judged("Money") == {"incorrect": 400}
    assert 40 < judged(TRUE, alarms=0.2)["incorrect"] < 120
    assert 40 < judged("Money", misses=0.2)["correct"] < 120


def test_what_gold_does_not_know_is_answered_all_the_same() -> None:
    known, unknown = (Scripted(Settings(), Gold()) for _ in range(2))
    told = labels(known, *(asked(text) for text in TEXTS))
    assert told == labels(unknown, *(asked(text) for text in TEXTS))
    assert set(told) == {"Travel", "Food", "Money"}


def test_gold_is_read_with_or_without_its_texts(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    whole, bare, texts = tmp_path / "whole.jsonl", tmp_path / "bare.jsonl", tmp_path / "texts.jsonl"
    whole.write_text(json.dumps({"conversation_id": "a", "turns": turns, "labels": {"topic": "Food"}}) + "\n")
    bare.write_text(json.dumps({"conversation_id": "a", "topic": "Food"}) + "\n")
    texts.write_text(json.dumps({"conversation_id": "a", "turns": turns}) + "\n")
    for known in (load(whole), load(bare, texts)):
        assert labels(Scripted(Settings(), known), asked("user: hello\nassistant: hi")) == ["Food"]
        assert labels(Scripted(Settings(), known), asked("[[id:a]] whatever else")) == ["Food"]
    with pytest.raises(ValueError, match="line 1: neither `turns` nor `text`"):
        load(bare)


def test_settings_are_read_from_toml(tmp_path: Path) -> None:
    config = tmp_path / "sandbox.toml"
    config.write_text('model_behind = "scripted"\ngold = "gold.jsonl"\nrpm = 60\n[faults]\nserver_error = 0.1\n')
    settings = from_toml(config)
    assert (settings.rpm, settings.gold) == (60, str(tmp_path / "gold.jsonl"))
    assert dict(settings.faults) == {"server_error": 0.1}
    config.write_text("rpm = ")
    with pytest.raises(SettingsError, match="cannot be read"):
        from_toml(config)


SAID = {
    "user: I need a hotel and a flight to Lisbon for May": "Travel",
    "user: how long do I bake sourdough bread?\nassistant: 45 minutes": "Food",
    "user: what is the interest on a bank loan": "Money",
}


def test_the_zero_shot_model_picks_the_nearest_label() -> None:
    assert labels(ZeroShot(), asked(*SAID)) == list(SAID.values())


def test_the_zero_shot_model_reads_words_where_there_is_no_schema() -> None:
    body = chat(*SAID, names=("topic", "mood"))
    del body["response_format"]
    request = read(body, "gpt-4.1-mini", b"", 0)
    assert request is not None
    assert [question.name for question in request.questions] == ["topic", "mood"]
    assert request.questions[0].choices == ("Travel", "Food", "Money")
    assert labels(ZeroShot(), request) == list(SAID.values())


@pytest.mark.parametrize("in_words", [False, True])
def test_the_zero_shot_model_grades_by_its_own_choice(in_words: bool) -> None:
    texts = [f"{text}\n<labels>\ntopic: {label}\n</labels>" for text, label in SAID.items()]
    texts.append(f"{next(iter(SAID))}\n<labels>\ntopic: Money\n</labels>")
    body = chat(*texts, judging=True)
    if in_words:
        del body["response_format"]
    request = read(body, "gpt-4.1-mini", b"", 0)
    assert request is not None
    assert labels(ZeroShot(), request) == ["correct", "correct", "correct", "incorrect"]


def test_a_text_without_words_is_answered_too() -> None:
    assert labels(ZeroShot(), asked("", "user: ", "\u2028 \x00"))[0] in {"Travel", "Food", "Money"}
