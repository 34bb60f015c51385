"""Typed decisions: how they are asked, read and priced, and what they can't ask."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest
from openai.types.decision_create_params import DecisionCreateParams
from pydantic import TypeAdapter
from small_job import EXPERTISE, TOPIC, classifier, endpoint
from test_planner import NOW, job

from semtel_batch.compose.bodies import Delivery
from semtel_batch.compose.prompt import Block, batch_line, user_content, word
from semtel_batch.decisions import read_decisions, reader_of
from semtel_batch.labels import Cleaner, Verdict, read_answer
from semtel_batch.legs import way_of_asking
from semtel_batch.planner.optimize import choose
from semtel_batch.prices import price_of
from semtel_batch.records import Answer, Outcome, Stage, Strategy, Tier
from semtel_batch.transport.replies import answer_from

BOTH = (TOPIC, EXPERTISE)
DELIVERY = Delivery(tier=Tier.DECISIONS)
CLEANERS = {one.name: Cleaner(one) for one in BOTH}


def asked(*classifiers: Any) -> dict[str, Any]:
    prompt = word(classifiers or BOTH, Stage.CLASSIFY, endpoint(), None, delivery=DELIVERY)
    assert prompt.url == "/v1/decisions"
    found: dict[str, Any] = orjson.loads(prompt.body(user_content([Block(text='user: "hi"')]), 1))
    return found


def read(*answers: Any, content: str | None = None) -> list[Verdict]:
    text = orjson.dumps(answers).decode() if content is None else content
    return read_decisions(Answer(custom_id="r-0", outcome=Outcome.ANSWERED, content=text), 1, CLEANERS)


def choice(name: str | None, label: object, confidence: object = 0.75) -> dict[str, object]:
    return {"type": "choice", "name": name, "choice": label, "confidence": confidence, "probabilities": []}


def test_the_body_is_what_the_sdk_would_send() -> None:
    body = asked()
    TypeAdapter(DecisionCreateParams).validate_python(body)
    assert set(body) == {"model", "input", "questions", "prompt_cache_options"}
    assert [question["name"] for question in body["questions"]] == ["topic", "expertise"]
    assert body["questions"][0]["choices"][0] == {"value": "Technology", "description": "it is Technology"}
    assert body["input"][1]["content"] == '<conversation id="1">\nuser: "hi"\n</conversation>'
    line = orjson.loads(batch_line("k-1", orjson.dumps(body), "/v1/decisions"))
    assert line["url"] == "/v1/decisions"


def test_it_is_another_question_than_the_chats() -> None:
    strategy = Strategy(recipe="decisions", tier=Tier.DECISIONS)
    prompts = [word((TOPIC,), Stage.CLASSIFY, endpoint(), None, delivery=Delivery(tier=tier)) for tier in Tier]
    assert len({way_of_asking(prompt, endpoint(), strategy, per_request=1) for prompt in prompts}) == 2
    assert strategy.changes_labels


def test_choices_are_read_to_the_letter_with_their_probability() -> None:
    topic, expertise = read(choice("expertise", "Expert", 0.5), choice("topic", "Travel"))
    assert (topic.label, topic.how, topic.confidence) == ("Travel", "exact", 0.75)
    assert (expertise.label, expertise.confidence) == ("Expert", 0.5)


@pytest.mark.parametrize(
    ("answers", "outcomes"),
    [
        ([choice("topic", "Travel"), {"type": "refusal", "name": "expertise"}], (Outcome.ANSWERED, Outcome.REFUSED)),
        ([choice("topic", "Travel")], (Outcome.ANSWERED, Outcome.MISSING)),
        ([choice(None, "Travel"), choice(None, "Novice")], (Outcome.ANSWERED, Outcome.ANSWERED)),
        ([choice("topic", "travel"), choice("expertise", True)], (Outcome.INVALID, Outcome.INVALID)),
        ([None, 3], (Outcome.INVALID, Outcome.INVALID)),
        ([], (Outcome.MISSING, Outcome.MISSING)),
    ],
)
def test_what_else_may_come_back(answers: list[Any], outcomes: tuple[Outcome, ...]) -> None:
    assert tuple(verdict.outcome for verdict in read(*answers)) == outcomes


@pytest.mark.parametrize("content", ["", "no json", "{}", "7"])
def test_a_reply_that_is_none_leaves_all_owed(content: str) -> None:
    assert [verdict.outcome for verdict in read(content=content)] == [Outcome.MISSING] * 2


@pytest.mark.parametrize("confidence", [None, "high", True, -1, 2, float("nan")])
def test_a_confidence_that_is_none_is_left_out(confidence: object) -> None:
    text = "NaN" if confidence != confidence else None
    assert text is not None or read(choice("topic", "Travel", confidence))[0].confidence is None


def test_a_reply_becomes_an_answer_with_its_usage() -> None:
    usage = {
        "input_tokens": 90,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 92,
    }
    answer = answer_from("r-0", 200, {"answers": [choice("topic", "Travel")], "model": "gpt-6-luna", "usage": usage})
    assert answer.outcome is Outcome.ANSWERED and answer.usage.prompt_tokens == 90
    assert reader_of(Tier.DECISIONS) is read_decisions and reader_of(Tier.FLEX) is read_answer


def test_input_alone_is_paid_for() -> None:
    price = price_of(endpoint(), Tier.DECISIONS, NOW)
    assert (price.input_usd, price.output_usd) == (Decimal("0.1"), 0)
    assert price.cached_usd == price.cache_write_usd == price.input_usd


def test_too_many_or_too_few_labels_leave_it_out() -> None:
    wide = classifier("wide", *(f"label {n}" for n in range(256)))
    at = (endpoint(tiers=(Tier.REALTIME, Tier.DECISIONS)),)
    plan = choose(job(recipes=["naive", "decisions"], classifiers=(TOPIC, wide), endpoints=at, named=True))
    assert plan.chosen.strategy.recipe == "naive"
    assert any("2 to 255 labels, unlike wide" in warning for warning in plan.warnings)
    assert choose(job(recipes=["naive", "decisions"], endpoints=at, named=True)).chosen.strategy.recipe == "decisions"
