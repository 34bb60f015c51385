"""Strict structured outputs: which schemas the API takes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import orjson

from semtel_batch.sandbox.errors import ApiError, bad_request

# The guide's limits (facts of the structured-outputs page).
_MAX_DEPTH, _MAX_PROPERTIES, _MAX_ENUM_VALUES, _MAX_NAME_CHARS = 10, 5_000, 1_000, 120_000
_LARGE_ENUM, _LARGE_ENUM_CHARS = 250, 15_000


def check_schema(name: str, schema: dict[str, Any]) -> None:
    """Raise the API's 400 unless a strict model could be held to this schema."""
    problem = _problem(name, orjson.dumps(schema))
    if problem is not None:
        raise bad_request(problem, param="response_format")


@lru_cache(maxsize=512)
def _problem(name: str, raw: bytes) -> str | None:
    try:
        _check_root(name, orjson.loads(raw))
    except ApiError as error:
        return str(error)
    return None


def _check_root(name: str, schema: dict[str, Any]) -> None:
    if schema.get("type") != "object":
        raise _invalid(
            name, (), f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema.get('type')}\"'"
        )
    nodes = list(_walk(schema, ()))
    for context, node in nodes:
        _check_node(name, context, node)
    _check_size(name, nodes)


def _walk(node: dict[str, Any], context: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    yield context, node
    for key in ("properties", "$defs"):
        for child, sub in (node.get(key) or {}).items():
            if isinstance(sub, dict):
                yield from _walk(sub, (*context, key, child))
    if isinstance(node.get("items"), dict):
        yield from _walk(node["items"], (*context, "items"))
    for index, sub in enumerate(node.get("anyOf") or ()):
        if isinstance(sub, dict):
            yield from _walk(sub, (*context, "anyOf", str(index)))


def _check_node(name: str, context: tuple[str, ...], node: dict[str, Any]) -> None:
    if not node.keys() & {"type", "$ref", "anyOf", "enum", "const"}:
        raise _invalid(name, context, "schema must have a 'type' key.")
    if node.get("type") == "array" and "items" not in node:
        raise _invalid(name, context, "array schema missing items.")
    if "enum" in node and not node["enum"]:
        raise _invalid(name, context, "enum must have at least one value.")
    if node.get("type") == "object":
        _check_object(name, context, node)


def _check_object(name: str, context: tuple[str, ...], node: dict[str, Any]) -> None:
    if node.get("additionalProperties") is not False:
        raise _invalid(name, context, "'additionalProperties' is required to be supplied and to be false.")
    properties = node.get("properties") or {}
    required = node.get("required")
    absent = [key for key in properties if not isinstance(required, list) or key not in required]
    if absent:
        raise _invalid(
            name,
            context,
            "'required' is required to be supplied and to be an array including every key in properties. "
            f"Missing '{absent[0]}'.",
        )
    extra = [key for key in required or () if key not in properties]
    if extra:
        raise _invalid(name, context, f"Extra required key '{extra[0]}' supplied.")


def _check_size(name: str, nodes: list[tuple[tuple[str, ...], dict[str, Any]]]) -> None:
    names = [key for _, node in nodes for key in (node.get("properties") or {})]
    enums = [[str(value) for value in node.get("enum") or ()] for _, node in nodes]
    n_values = sum(map(len, enums))
    chars = sum(map(len, names)) + sum(len(value) for values in enums for value in values)
    depth = max(context.count("properties") + context.count("items") for context, _ in nodes)
    if len(names) > _MAX_PROPERTIES:
        raise _invalid(name, (), f"schema has {len(names)} properties, more than the maximum of {_MAX_PROPERTIES}.")
    if n_values > _MAX_ENUM_VALUES:
        raise _invalid(name, (), f"schema has {n_values} enum values, more than the maximum of {_MAX_ENUM_VALUES}.")
    if chars > _MAX_NAME_CHARS:
        raise _invalid(name, (), f"names and enum values have {chars} characters, more than {_MAX_NAME_CHARS}.")
    if depth > _MAX_DEPTH:
        raise _invalid(name, (), f"schema is nested {depth} levels deep, more than the maximum of {_MAX_DEPTH}.")
    if any(len(values) > _LARGE_ENUM and sum(map(len, values)) > _LARGE_ENUM_CHARS for values in enums):
        raise _invalid(name, (), f"an enum of more than {_LARGE_ENUM} values has over {_LARGE_ENUM_CHARS} characters.")


def _invalid(name: str, context: tuple[str, ...], problem: str) -> ApiError:
    shown = "(" + ", ".join(f"'{part}'" for part in context) + ("," if len(context) == 1 else "") + ")"
    return bad_request(f"Invalid schema for response_format '{name}': In context={shown}, {problem}")
