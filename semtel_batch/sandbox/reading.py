"""Reads a request the way a model would: what is asked, of which conversations."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson

from semtel_batch.sandbox.counting import schema_text, text_of

VERDICTS = ("correct", "incorrect")

_BLOCK = re.compile(r'<conversation id="(\d+)">\n?(.*?)\n?</conversation>', re.DOTALL)
_JUDGED = re.compile(r"\n?<labels>\n(.*?)\n?</labels>\s*$", re.DOTALL)
_HEADING = re.compile(r"^#+\s*`?([\w .-]+?)`?\s*:?\s*$")


@dataclass(frozen=True, slots=True)
class Question:
    """One classifier as the request tells of it: what may be answered, and its labels with their definitions."""

    name: str
    choices: tuple[str, ...]
    definitions: Mapping[str, str] = field(default_factory=dict)
    judges: bool = False  # the grader's: `choices` are verdicts on one of the labels


@dataclass(frozen=True, slots=True)
class Block:
    """One conversation of a request, with the labels to be judged if it carries any."""

    id: int
    text: str
    digest: bytes
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request in the wire format. `digest` is the whole body's, `answered_before` how often it was."""

    questions: tuple[Question, ...]
    blocks: tuple[Block, ...]
    model: str
    digest: bytes
    answered_before: int = 0


def read(
    body: dict[str, Any], model: str, digest: bytes, answered_before: int, schema: str | None = None
) -> Asked | None:
    """What a chat body asks, or None if it is not in the wire format. `schema` spares the writing of it."""
    messages = body["messages"]
    user = "\n".join(text_of(message) for message in messages if message["role"] == "user")
    blocks = tuple(_block(int(match[1]), match[2]) for match in _BLOCK.finditer(user))
    if not blocks:
        return None
    system = "\n".join(text_of(message) for message in messages if message["role"] in ("system", "developer"))
    schema = schema_text(body) if schema is None else schema
    questions = _by_schema(system, schema) if schema else _by_words(system, bool(blocks[0].labels))
    return Asked(questions, blocks, model, digest, answered_before) if questions else None


def blocks_in(text: str) -> tuple[Block, ...]:
    """The conversations of a user's message; where there are no blocks, all of it is one."""
    found = tuple(_block(int(match[1]), match[2]) for match in _BLOCK.finditer(text))
    return found or (Block(1, text, digest_of(text)),)


def digest_of(text: str) -> bytes:
    """What a conversation is known by: its text, however its white space was laid out."""
    return hashlib.blake2b(" ".join(text.split()).encode("utf-8", "replace"), digest_size=16).digest()


def _block(number: int, inside: str) -> Block:
    judged = _JUDGED.search(inside) if "<labels>" in inside else None
    if judged is None:
        return Block(number, inside, digest_of(inside))
    pairs = (line.partition(":") for line in judged[1].splitlines() if ":" in line)
    text = inside[: judged.start()]
    return Block(number, text, digest_of(text), {name.strip(): label.strip() for name, _, label in pairs})


@lru_cache(maxsize=1_024)
def _by_schema(system: str, schema: str) -> tuple[Question, ...]:
    """The questions of a request with an answer schema: the schema names them, the words define their labels."""
    listed = _sections(system)
    questions = []
    for name, choices in _enums(schema).items():
        judges = sorted(choices) == sorted(VERDICTS)
        lines = listed.get(name, {})
        definitions = lines if judges else {choice: lines.get(choice, "") for choice in choices}
        questions.append(Question(name, choices, definitions, judges))
    return tuple(questions)


@lru_cache(maxsize=1_024)
def _by_words(system: str, judged: bool) -> tuple[Question, ...]:
    """The questions of a request that only words ask."""
    return tuple(
        Question(name, VERDICTS if judged else tuple(labels), labels, judged)
        for name, labels in _sections(system).items()
    )


def _enums(schema: str) -> dict[str, tuple[str, ...]]:
    """Classifier names and what may be answered, of a schema of the wire format; empty for any other schema."""
    try:
        properties = orjson.loads(schema)["properties"]["results"]["items"]["properties"]
        return {
            name: tuple(str(value) for value in wanted["enum"])
            for name, wanted in properties.items()
            if name != "id" and "enum" in wanted
        }
    except (KeyError, TypeError):
        return {}


def _sections(system: str) -> dict[str, dict[str, str]]:
    """Labels and definitions by heading: its `- Label: definition` lines, those after `Labels:` if it has one."""
    found: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in system.splitlines():
        heading = _HEADING.match(line)
        if heading:
            current = found.setdefault(heading[1], {})
        elif line.strip().lower() == "labels:":
            current.clear()
        elif line.startswith("- "):
            name, _, definition = line[2:].partition(": ")
            current[name.strip()] = definition.strip()
    return {name: labels for name, labels in found.items() if labels}
