"""The sandbox's typed decisions, held against the SDK's types and the limits that these name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.decision import Decision
from sandbox_requests import LABELS

from semtel_batch.sandbox.local import SandboxHandle, running
from semtel_batch.sandbox.settings import Settings

PATH = "/v1/decisions"
CHOICES = [{"value": value, "description": about} for value, about in LABELS["topic"].items()]
TOPIC = {"type": "choice", "name": "topic", "instructions": "What is it about?", "choices": CHOICES}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxHandle]:
    with running(Settings(model_behind="scripted", models=("gpt-6-luna", "gpt-5.4-mini"))) as handle:
        yield handle


@pytest.fixture
def client(sandbox: SandboxHandle) -> Iterator[OpenAI]:
    sandbox.reset()
    with OpenAI(base_url=sandbox.base_url, api_key="sk-any", max_retries=0) as client:
        yield client


def body(**changes: Any) -> dict[str, Any]:
    return {"model": "gpt-6-luna", "input": "user: book a flight", "questions": [TOPIC], **changes}


def test_all_kinds_of_questions_have_the_shapes_of_the_sdk(client: OpenAI, sandbox: SandboxHandle) -> None:
    score = {"type": "score", "instructions": "How glad?", "levels": [{"label": "not"}, {"label": "very"}]}
    predicate = {"type": "predicate", "name": "is_rude", "instructions": "The user is rude."}
    given = [{"type": "message", "role": "user", "content": "user: book a flight"}]
    made = client.decisions.create(**body(input=given, questions=[TOPIC, predicate, score]))
    checked = Decision.model_validate(made.model_dump(), strict=True)
    choice, truth, level = checked.answers
    assert choice.type == "choice" and choice.choice in LABELS["topic"] and choice.name == "topic"
    assert sum(one.probability for one in choice.probabilities) == pytest.approx(1.0)
    assert truth.type == "predicate" and 0 <= truth.probability <= 1
    assert level.type == "score" and 0 <= level.score <= 1
    assert checked.usage.total_tokens == checked.usage.input_tokens + checked.usage.output_tokens
    books = sandbox.books()
    assert books["tokens"] == {
        "decisions": {
            "prompt": checked.usage.input_tokens,
            "completion": 3,
            "cached": 0,
            "cache_write": 0,
            "reasoning": 0,
        }
    }


def test_one_question_may_be_refused_alone(client: OpenAI, sandbox: SandboxHandle) -> None:
    sandbox.script(PATH, "refusal")
    made = client.decisions.create(**body(questions=[TOPIC, {**TOPIC, "name": "again"}]))
    assert sorted(answer.type for answer in made.answers) == ["choice", "refusal"]


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"model": "gpt-5.4-mini"}, "model", "unsupported_value"),
        ({"questions": []}, "questions", "array_below_min_length"),
        ({"questions": [TOPIC] * 401}, "questions", "array_above_max_length"),
        ({"questions": [{**TOPIC, "choices": CHOICES[:1]}]}, "questions[0].choices", "array_below_min_length"),
        (
            {"questions": [{**TOPIC, "choices": [{"value": str(i)} for i in range(256)]}]},
            "questions[0].choices",
            "array_above_max_length",
        ),
        ({"questions": [{**TOPIC, "choices": [CHOICES[0], CHOICES[0]]}]}, "questions[0].choices", "invalid_value"),
        ({"questions": [{**TOPIC, "type": "essay"}]}, "questions[0].type", "invalid_value"),
        ({"temperature": 0}, "temperature", "unknown_parameter"),
        ({"stream": True}, "stream", "unknown_parameter"),
    ],
)
def test_what_it_does_not_take(client: OpenAI, changes: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/decisions", body=body(**changes), cast_to=object)
    assert isinstance(caught.value.body, dict)
    assert (caught.value.body["param"], caught.value.body["code"]) == (param, code)


def test_azure_has_no_decisions() -> None:
    settings = Settings(dress="azure", deployments={"d": "gpt-6-luna"}, model_behind="scripted")
    with (
        running(settings) as handle,
        OpenAI(base_url=handle.base_url, api_key="k", max_retries=0) as client,
        pytest.raises(openai.NotFoundError),
    ):
        client.decisions.create(**body(model="d"))


def test_they_are_in_no_batch(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.post(
            "/batches",
            body={"input_file_id": "file-1", "endpoint": PATH, "completion_window": "24h"},
            cast_to=object,
        )
