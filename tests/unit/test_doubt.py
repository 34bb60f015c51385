"""Which labels are doubted, by each of the three ways, and what the model's own probabilities say."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from semtel_batch.compose.pack import pack
from semtel_batch.confidence import confidences
from semtel_batch.labels import Cleaner, read_answer
from semtel_batch.quality.doubt import check, doubtful
from semtel_batch.records import Answer, Classifier, Doubt, Label, Outcome
from semtel_batch.transport.replies import answer_from

TOPIC = Classifier(
    name="topic", description="", instructions="", labels=(Label(name="Travel"), Label(name="Food")), version="1"
)
ROW = {"row": 0, "classifier": "topic", "label": "Travel", "outcome": "answered", "stage": "classify", "attempt": 0}


def read(*items: dict[str, object]) -> pl.DataFrame:
    rows = [{**ROW, "shard": 1, "confidence": None, **item} for item in items]
    return pl.DataFrame(rows, schema_overrides={"row": pl.UInt32, "label": pl.String, "confidence": pl.Float32})


def verdicts(doubt: Doubt, labels: pl.DataFrame, below: float | None = None) -> list[tuple[int, str]]:
    return check(doubt, labels, below).sort("row").select("row", "checked").rows()


def test_a_label_is_doubted_where_two_runs_differ() -> None:
    labels = read(
        *({"row": row} for row in range(4)),
        {"row": 0, "stage": "rerun"},
        {"row": 1, "stage": "rerun", "label": "Food"},
        {"row": 2, "stage": "rerun", "label": None, "outcome": "missing"},
        {"row": 4, "label": None, "outcome": "refused"},
    )
    assert verdicts(Doubt.RERUN, labels) == [(0, "agreed"), (1, "split"), (2, "unseen"), (3, "unseen")]
    assert doubtful(check(Doubt.RERUN, labels)).rows() == [(1, "topic")]


def test_the_last_answer_of_each_run_counts() -> None:
    labels = read(
        {"label": None, "outcome": "invalid"},
        {"attempt": 1, "label": "Food"},
        {"stage": "rerun", "label": None, "outcome": "missing"},
        {"stage": "rerun", "attempt": 1, "label": "Food"},
    )
    assert verdicts(Doubt.RERUN, labels) == [(0, "agreed")]


def test_a_label_is_doubted_where_it_was_given_little_probability() -> None:
    labels = read({"row": 0, "confidence": 0.95}, {"row": 1, "confidence": 0.5}, {"row": 2, "confidence": None})
    assert verdicts(Doubt.CONFIDENCE, labels, 0.9) == [(0, "sure"), (1, "unsure"), (2, "unknown")]
    assert doubtful(check(Doubt.CONFIDENCE, labels, 0.9)).rows() == [(1, "topic")]


def test_the_grader_doubts_as_before_and_nobody_doubts_nothing() -> None:
    judged = {"stage": "grade", "label": "incorrect"}
    labels = read({"row": 0}, {"row": 1}, {"row": 0, **judged}, {"row": 1, **judged, "label": "correct"})
    assert verdicts(Doubt.GRADER, labels) == [(0, "incorrect"), (1, "correct")]
    assert verdicts(Doubt.NONE, labels) == []


# -- confidence ----------------------------------------------------------------------------------------------------

TEXT = '{"results":[{"id":1,"topic":"Travel"},{"id": 2, "topic": "Food"}]}'


def tokens(text: str, width: int, odds: dict[str, float]) -> list[tuple[str, float]]:
    """Pieces of one width, however they fall; a piece that begins inside a word takes that word's log probability."""
    pieces = []
    for at in range(0, len(text), width):
        value = next((v for word, v in odds.items() if text.find(word) <= at < text.find(word) + len(word)), 0.0)
        pieces.append((text[at : at + width], value))
    return pieces


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_labels_probability_is_its_tokens_product_however_they_fall(width: int) -> None:
    pieces = tokens(TEXT, width, {"Travel": math.log(0.9), "Food": math.log(0.5)})
    within = {w: sum(v != 0 and math.isclose(v, math.log(p)) for _, v in pieces) for w, p in (("T", 0.9), ("F", 0.5))}
    found = confidences(pieces, ["topic"], 2)
    assert found == pytest.approx({(1, "topic"): 0.9 ** within["T"], (2, "topic"): 0.5 ** within["F"]})


def test_one_token_that_holds_a_label_and_more_counts_whole() -> None:
    pieces = [('{"results":[{"id":1,"topic"', 0.0), (':"Travel"}', math.log(0.25)), ("]}", math.log(0.1))]
    assert confidences(pieces, ["topic"], 1) == pytest.approx({(1, "topic"): 0.25})


def test_the_quote_that_ends_a_label_is_part_of_it() -> None:
    pieces = [('{"id":1,"topic":"', 0.0), ("Travel", math.log(0.9)), ('"', math.log(0.5)), ("}", math.log(0.1))]
    assert confidences(pieces, ["topic"], 1) == pytest.approx({(1, "topic"): 0.45})


def test_what_is_not_told_for_sure_is_left_out() -> None:
    twice = [('[{"id":1,"topic":"Travel"},{"id":1,"topic":"Food"}]', -0.1)]
    assert confidences(twice, ["topic"], 2) == {}
    assert confidences([('{"topic":"Food"}', -0.1)], ["topic"], 2) == {}
    assert confidences([("no JSON at all", -0.1)], ["topic"], 1) == {}
    assert confidences([], ["topic"], 1) == {}


def test_a_reply_with_logprobs_becomes_labels_with_confidence() -> None:
    pieces = [('{"results":[{"id":1,"topic":"', 0.0), ("Food", math.log(0.8)), ('"}]}', 0.0)]
    listed = [{"token": t, "logprob": v, "bytes": list(t.encode()), "top_logprobs": []} for t, v in pieces]
    message = {"role": "assistant", "content": "".join(t for t, _ in pieces)}
    body = {"choices": [{"message": message, "finish_reason": "stop", "logprobs": {"content": listed}}]}
    (verdict,) = read_answer(answer_from("a-0", 200, body), 1, {"topic": Cleaner(TOPIC)})
    assert (verdict.label, verdict.confidence) == ("Food", pytest.approx(0.8))
    listed[1]["logprob"] = None
    (verdict,) = read_answer(answer_from("a-0", 200, body), 1, {"topic": Cleaner(TOPIC)})
    assert (verdict.label, verdict.confidence) == ("Food", None)


def test_an_unlabelled_item_has_no_confidence() -> None:
    answer = Answer(custom_id="a-0", outcome=Outcome.ANSWERED, content='{"id":1,"topic":"zz"}')
    told = Answer(
        custom_id="a-0", outcome=Outcome.ANSWERED, content=answer.content, logprobs=((answer.content or "", -1),)
    )
    (verdict,) = read_answer(told, 1, {"topic": Cleaner(TOPIC)})
    assert (verdict.outcome, verdict.confidence) == (Outcome.INVALID, None)


# -- a second run's packs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cap", "items"), [(10**6, 16), (8_000, 20)])
def test_a_second_run_has_other_packs_and_hardly_more_of_them(cap: int, items: int) -> None:
    lengths = np.random.default_rng(3).lognormal(np.log(400), 0.8, 4_000).astype(np.int64)
    first = pack(lengths, max_tokens=cap, max_items=items, seed=1)
    second = pack(lengths, max_tokens=cap, max_items=items, seed=2, other_packs=True)
    assert len(second) <= 1.01 * len(first) + 1
    of_first = np.empty(len(lengths), dtype=int)
    for number, members in enumerate(first):
        of_first[members] = number
    together = sum(len(members) - len(set(of_first[members])) for members in second)
    assert together < 0.03 * len(lengths), "as few meet again as if packs were drawn at random"
    again = pack(lengths, max_tokens=cap, max_items=items, seed=2, other_packs=True)
    assert [a.tolist() for a in again] == [a.tolist() for a in second]
