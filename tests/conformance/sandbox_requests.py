"""Requests in the wire format, written out by hand so that they owe nothing to our composer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

LABELS = {
    "topic": {
        "Travel": "Trips, flights, hotels, trains, tickets.",
        "Food": "Recipes, cooking, baking, restaurants, meals.",
        "Money": "Banks, loans, payments, taxes, insurance.",
    },
    "mood": {"Happy": "Pleased, thankful, glad.", "Angry": "Annoyed, complaining, furious."},
}
VERDICTS = ("correct", "incorrect")


def system(*names: str) -> str:
    parts = ["You label conversations."]
    for name in names:
        lines = [f"- {label}: {definition}" for label, definition in LABELS[name].items()]
        parts.append("\n".join([f"# {name}", "Judge by the user's words.", "- Be strict.", "Labels:", *lines]))
    return "\n\n".join([*parts, "# Answer\nAnswer with one JSON object and nothing else."])


def schema(*names: str, judging: bool = False) -> dict[str, Any]:
    properties: dict[str, Any] = {"id": {"type": "integer"}}
    for name in names:
        properties[name] = {"type": "string", "enum": list(VERDICTS if judging else LABELS[name])}
    entry = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"results": {"type": "array", "items": entry}},
        "required": ["results"],
        "additionalProperties": False,
    }


def strict(wanted: dict[str, Any], name: str = "labels") -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": wanted}}


def blocks(texts: Iterable[str]) -> str:
    return "\n".join(f'<conversation id="{i}">\n{text}\n</conversation>' for i, text in enumerate(texts, start=1))


def chat(*texts: str, names: tuple[str, ...] = ("topic",), judging: bool = False, **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": "gpt-4.1-mini",
        "messages": [
            {"role": "system", "content": system(*names)},
            {"role": "user", "content": blocks(texts)},
        ],
        "response_format": strict(schema(*names, judging=judging)),
    }
    return {**body, **more}


def line(number: str, content: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A batch line; fields given as None are left out."""
    request = {
        "custom_id": number,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": content or chat(f"user: a loan, please, number {number}"),
    }
    return {name: value for name, value in {**request, **more}.items() if value is not None}


def jsonl(lines: Iterable[Any]) -> bytes:
    """Lines as a file; a string stands for itself."""
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in lines).encode()
