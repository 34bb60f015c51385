"""`/v1/decisions`: typed questions about one text, answered with probabilities and without a written word."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from semtel_batch.sandbox.counting import Counter, text_of
from semtel_batch.sandbox.errors import bad_request, missing, unsupported_value, wrong_type, wrong_value
from semtel_batch.sandbox.families import family_of
from semtel_batch.sandbox.models import Answers
from semtel_batch.sandbox.reading import Asked, Question, blocks_in

MODEL = "gpt-6-luna"
_PARAMETERS = frozenset(
    {"input", "model", "questions", "prompt_cache_key", "prompt_cache_options", "safety_identifier"}
)
_KINDS = ("predicate", "choice", "score")
_QUESTIONS, _CHOICES, _LEVELS = (1, 400), (2, 255), (2, 10)
_ROLES = ("user", "developer", "system", "assistant")

Body = dict[str, Any]


def check_decision(body: Body, model: str) -> None:
    """Raise the API's 400 for a body that it would not take."""
    for name in body:
        if name not in _PARAMETERS:
            raise bad_request(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    if model != MODEL:
        raise unsupported_value("model", f"Unsupported value: '{model}'. Only '{MODEL}' is supported.")
    _check_input(body)
    questions = body.get("questions")
    if questions is None:
        raise missing("questions")
    if not isinstance(questions, list):
        raise wrong_type("questions", "an array of objects", questions)
    _check_length("questions", questions, _QUESTIONS)
    for index, question in enumerate(questions):
        _check_question(question, f"questions[{index}]")


def _check_input(body: Body) -> None:
    given = body.get("input")
    if given is None:
        raise missing("input")
    if isinstance(given, str):
        return
    if not isinstance(given, list):
        raise wrong_type("input", "one of a string or array of objects", given)
    for index, message in enumerate(given):
        where = f"input[{index}]"
        if not isinstance(message, dict):
            raise wrong_type(where, "an object", message)
        if message.get("role") not in _ROLES:
            raise wrong_value(f"{where}.role", message.get("role"), _ROLES)
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
            raise wrong_type(f"{where}.content", "one of a string or array of objects", content)


def _check_question(question: Any, where: str) -> None:
    if not isinstance(question, dict):
        raise wrong_type(where, "an object", question)
    kind = question.get("type")
    if kind not in _KINDS:
        raise wrong_value(f"{where}.type", kind, _KINDS)
    if not isinstance(question.get("instructions"), str) or not question["instructions"]:
        raise missing(f"{where}.instructions")
    if kind == "choice":
        _check_options(question.get("choices"), "value", f"{where}.choices", _CHOICES)
    if kind == "score":
        _check_options(question.get("levels"), "label", f"{where}.levels", _LEVELS)


def _check_options(options: Any, key: str, where: str, lengths: tuple[int, int]) -> None:
    if not isinstance(options, list):
        raise missing(where) if options is None else wrong_type(where, "an array of objects", options)
    _check_length(where, options, lengths)
    values = [option.get(key) if isinstance(option, dict) else None for option in options]
    if any(value is None or value == "" for value in values):
        raise missing(f"{where}[{values.index(None) if None in values else values.index('')}].{key}")
    if len({(type(value), value) for value in values}) != len(values):
        raise bad_request(f"Invalid '{where}': each {key} must be unique.", param=where, code="invalid_value")


def _check_length(where: str, given: list[Any], lengths: tuple[int, int]) -> None:
    low, high = lengths
    if len(given) < low:
        message = f"Invalid '{where}': array too short. Expected minimum length {low}, but got {len(given)}."
        raise bad_request(message, param=where, code="array_below_min_length")
    if len(given) > high:
        message = f"Invalid '{where}': array too long. Expected maximum length {high}, but got {len(given)}."
        raise bad_request(message, param=where, code="array_above_max_length")


def texts_in(body: Body) -> list[dict[str, Any]]:
    """The input as messages, whichever way it was given."""
    given = body["input"]
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


def asked_in(body: Body, model: str, digest: bytes, answered_before: int) -> Asked:
    """What a body asks of which text; predicates and scores are asked as choices of what they may answer."""
    user = "\n".join(text_of(message) for message in texts_in(body) if message["role"] == "user")
    questions = tuple(_question(number, question) for number, question in enumerate(body["questions"]))
    return Asked(questions, blocks_in(user)[:1], model, digest, answered_before)


def _question(number: int, question: Body) -> Question:
    options = {"choice": ("choices", "value"), "score": ("levels", "label")}.get(question["type"])
    if options is None:
        return Question(question.get("name") or str(number), ("true", "false"))
    listed = {str(option[options[1]]): option.get("description", "") for option in question[options[0]]}
    return Question(question.get("name") or str(number), tuple(listed), listed)


def tokens_in(body: Body, model: str, counter: Counter) -> int:
    """What is billed: the messages, and the questions as they were sent. How the real API counts is not published."""
    messages = sum(3 + counter.recurring(message["role"]) for message in texts_in(body))
    texts = counter.count([text_of(message) for message in texts_in(body)])
    questions = counter.recurring(orjson.dumps(body["questions"]).decode())
    return family_of(model).priming + messages + sum(texts) + questions


def decided(body: Body, model: str, answers: Answers, refused: int | None, n_tokens: int) -> Body:
    """The response body. `refused`: the one question that the model declines to answer."""
    given = answers[0] if answers else {}
    told = []
    for number, question in enumerate(body["questions"]):
        if number == refused:
            told.append({"type": "refusal", "name": question.get("name")})
        else:
            told.append(_answer(question, given.get(question.get("name") or str(number), "")))
    return {
        "answers": told,
        "model": model,
        "usage": {
            "input_tokens": n_tokens,
            "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
            "output_tokens": len(told),
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": n_tokens + len(told),
        },
    }


def _answer(question: Body, label: str) -> Body:
    name = question.get("name")
    if question["type"] == "predicate":
        return {"type": "predicate", "name": name, "probability": 0.9 if label == "true" else 0.1}
    key, value = ("choices", "value") if question["type"] == "choice" else ("levels", "label")
    options = [option[value] for option in question[key]]
    at = next((place for place, option in enumerate(options) if str(option) == label), 0)
    sure = _sure(question["instructions"], label)
    shares = [sure if place == at else (1 - sure) / (len(options) - 1) for place in range(len(options))]
    if question["type"] == "choice":
        listed = [{"value": option, "probability": share} for option, share in zip(options, shares, strict=True)]
        return {"type": "choice", "name": name, "choice": options[at], "confidence": sure, "probabilities": listed}
    levels = [
        {"label": option, "value": place, "probability": share}
        for place, (option, share) in enumerate(zip(options, shares, strict=True))
    ]
    score = sum(place * share for place, share in enumerate(shares))
    return {"type": "score", "name": name, "score": score, "confidence": sure, "probabilities": levels}


def _sure(*about: str) -> float:
    """A probability between 0.5 and 1, the same each time."""
    return 0.5 + int.from_bytes(hashlib.blake2b("\0".join(about).encode(), digest_size=4).digest()) / 2**33
