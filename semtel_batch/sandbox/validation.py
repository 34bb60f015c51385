"""What a request body must be before a model sees it, with the refusals the real API gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from semtel_batch.sandbox.errors import bad_request, missing, unsupported_value, wrong_type, wrong_value
from semtel_batch.sandbox.families import Family, family_of
from semtel_batch.sandbox.json_schema import check_schema

Body = dict[str, Any]

_CHAT_PARAMETERS = frozenset(
    [
        "messages",
        "model",
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "metadata",
        "modalities",
        "moderation",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    ]
)
_EMBEDDING_PARAMETERS = frozenset({"model", "input", "dimensions", "encoding_format", "user"})
_ROLES = ("system", "assistant", "user", "function", "tool", "developer")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_TIERS = ("auto", "default", "flex", "scale", "priority", "fast")
_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_FULL_DIMENSIONS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072}


def model_of(body: Body) -> str:
    """The model a body names, or the API's refusal of a body that names none."""
    model = body.get("model")
    if model is None or model == "":
        raise bad_request("you must provide a model parameter")
    if not isinstance(model, str):
        raise wrong_type("model", "a string", model)
    return model


def check_chat(body: Body, model: str) -> None:
    """Raise the real API's 400 for a chat body that `model` would not take."""
    for name in body:
        if name not in _CHAT_PARAMETERS:
            raise bad_request(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    _check_messages(body)
    family = family_of(model)
    _check_token_caps(body, family)
    _check_effort(body, family)
    _check_sampling(body, family)
    if body.get("response_format") is not None:
        _check_response_format(body)
    _check_rest(body, family)
    _check_caching(body, family)


def _check_messages(body: Body) -> None:
    messages = body.get("messages")
    if messages is None:
        raise missing("messages")
    if not isinstance(messages, list):
        raise wrong_type("messages", "an array of objects", messages)
    if not messages:
        message = (
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead."
        )
        raise bad_request(message, param="messages", code="empty_array")
    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]")


def _check_message(message: Any, where: str) -> None:
    if not isinstance(message, dict):
        raise wrong_type(where, "an object", message)
    role = message.get("role")
    if role is None:
        raise missing(f"{where}.role")
    if role not in _ROLES:
        raise wrong_value(f"{where}.role", role, _ROLES)
    content = message.get("content")
    if isinstance(content, str):
        return
    if content is None:
        if role == "assistant":
            return
        message_text = "Invalid value for 'content': expected a string, got null."
        raise bad_request(message_text, param=f"{where}.content")
    if not isinstance(content, list):
        raise wrong_type(f"{where}.content", "one of a string or array of objects", content)
    for index, part in enumerate(content):
        _check_part(part, f"{where}.content[{index}]")


def _check_part(part: Any, where: str) -> None:
    if not isinstance(part, dict):
        raise wrong_type(where, "an object", part)
    if part.get("type") is None:
        raise missing(f"{where}.type")
    if part["type"] != "text":
        raise wrong_value(f"{where}.type", part["type"], ("text",))
    if not isinstance(part.get("text"), str):
        raise missing(f"{where}.text") if "text" not in part else wrong_type(f"{where}.text", "a string", part["text"])


def _check_token_caps(body: Body, family: Family) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(name, "an integer", value)
        if value < 1:
            _out_of_range(name, value, "below minimum", ">= 1", "integer_below_min_value")
    if body.get("max_tokens") is None:
        return
    if not family.max_tokens_allowed:
        message = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        raise bad_request(message, param="max_tokens", code="unsupported_parameter")
    if body.get("max_completion_tokens") is not None:
        message = (
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported. "
            "'max_tokens' is deprecated. Use 'max_completion_tokens' instead."
        )
        raise bad_request(message, param="max_tokens", code="invalid_parameter_combination")


def _check_effort(body: Body, family: Family) -> None:
    effort = body.get("reasoning_effort")
    if effort is None:
        return
    if not family.efforts:
        raise bad_request("Unrecognized request argument supplied: reasoning_effort")
    if effort not in _EFFORTS:
        raise wrong_value("reasoning_effort", effort, _EFFORTS)
    if effort not in family.efforts:
        quoted = [f"'{name}'" for name in family.efforts]
        names = ", ".join(quoted[:-1]) + f", and {quoted[-1]}"
        raise unsupported_value(
            "reasoning_effort",
            f"Unsupported value: 'reasoning_effort' does not support '{effort}' with this model. "
            f"Supported values are: {names}.",
        )


_RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
}


def _check_sampling(body: Body, family: Family) -> None:
    for name, (low, high) in _RANGES.items():
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise wrong_type(name, "a decimal", value)
        if value < low:
            _out_of_range(name, value, "below minimum", f">= {low}", "decimal_below_min_value")
        if value > high:
            _out_of_range(name, value, "above maximum", f"<= {high}", "decimal_above_max_value")
    if not family.samples_at(body.get("reasoning_effort") or family.default_effort):
        _check_no_sampling(body)


def _check_no_sampling(body: Body) -> None:
    for name in ("temperature", "top_p"):
        value = body.get(name)
        if value is not None and value != 1:
            raise unsupported_value(
                name,
                f"Unsupported value: '{name}' does not support {value} with this model. "
                "Only the default (1) value is supported.",
            )
    for name in ("logprobs", "top_logprobs"):
        if body.get(name):
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            raise bad_request(message, param=name, code="unsupported_parameter")


def _out_of_range(name: str, value: float, which: str, expected: str, code: str) -> None:
    kind = code.split("_")[0]
    message = f"Invalid '{name}': {kind} {which} value. Expected a value {expected}, but got {value} instead."
    raise bad_request(message, param=name, code=code)


def _check_response_format(body: Body) -> None:
    wanted = body["response_format"]
    if not isinstance(wanted, dict):
        raise wrong_type("response_format", "an object", wanted)
    kind = wanted.get("type")
    if kind is None:
        raise missing("response_format.type")
    if kind not in {"text", "json_object", "json_schema"}:
        raise wrong_value("response_format.type", kind, ("json_object", "json_schema", "text"))
    if kind == "json_object" and not _mentions_json(body["messages"]):
        message = (
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
        )
        raise bad_request(message, param="messages")
    if kind == "json_schema":
        _check_json_schema(wanted.get("json_schema"))


def _check_json_schema(wanted: Any) -> None:
    where = "response_format.json_schema"
    if wanted is None:
        raise missing(where)
    if not isinstance(wanted, dict):
        raise wrong_type(where, "an object", wanted)
    name = wanted.get("name")
    if name is None:
        raise missing(f"{where}.name")
    if not isinstance(name, str):
        raise wrong_type(f"{where}.name", "a string", name)
    if not _NAME.fullmatch(name):
        message = (
            f"Invalid '{where}.name': string does not match pattern. "
            "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
        )
        raise bad_request(message, param=f"{where}.name", code="invalid_value")
    if len(name) > 64:
        message = (
            f"Invalid '{where}.name': string too long. Expected a string with maximum length 64, "
            f"but got a string with length {len(name)} instead."
        )
        raise bad_request(message, param=f"{where}.name", code="string_above_max_length")
    schema = wanted.get("schema")
    if schema is None:
        raise missing(f"{where}.schema")
    if not isinstance(schema, dict):
        raise wrong_type(f"{where}.schema", "an object", schema)
    if wanted.get("strict"):
        check_schema(name, schema)


def _mentions_json(messages: list[Any]) -> bool:
    return any("json" in str(message.get("content")).lower() for message in messages)


_KINDS: Mapping[str, tuple[str, type]] = {
    "stream": ("a boolean", bool),
    "logprobs": ("a boolean", bool),
    "store": ("a boolean", bool),
    "user": ("a string", str),
    "prompt_cache_key": ("a string", str),
    "prompt_cache_options": ("an object", dict),
    "metadata": ("an object", dict),
    "tools": ("an array of objects", list),
    "seed": ("an integer", int),
    "n": ("an integer", int),
}


def _check_caching(body: Body, family: Family) -> None:
    """Breakpoints and their options exist from gpt-5.6 on."""
    options = body.get("prompt_cache_options")
    if options is not None:
        if not family.breakpoint_caching:
            message = "Unsupported parameter: 'prompt_cache_options' is not supported with this model."
            raise bad_request(message, param="prompt_cache_options", code="unsupported_parameter")
        if isinstance(options, dict) and options.get("mode") not in (None, "implicit", "explicit"):
            raise wrong_value("prompt_cache_options.mode", options["mode"], ("implicit", "explicit"))
    for index, message in enumerate(body["messages"]):
        parts = message.get("content") if isinstance(message.get("content"), list) else []
        for place, part in enumerate(parts):
            if "prompt_cache_breakpoint" not in part:
                continue
            where = f"messages[{index}].content[{place}].prompt_cache_breakpoint"
            if not family.breakpoint_caching:
                raise bad_request(f"Unsupported parameter: '{where}'.", param=where, code="unsupported_parameter")
            if part["prompt_cache_breakpoint"] != {"mode": "explicit"}:
                raise wrong_value(f"{where}.mode", part["prompt_cache_breakpoint"], ("explicit",))


def _check_rest(body: Body, family: Family) -> None:
    for name, (expected, kind) in _KINDS.items():
        value = body.get(name)
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise wrong_type(name, expected, value)
    if body.get("service_tier") is not None and body["service_tier"] not in _TIERS:
        raise wrong_value("service_tier", body["service_tier"], _TIERS)
    if body.get("service_tier") == "flex" and not family.flex:
        message = "Invalid service_tier argument: this model does not support flex processing."
        raise bad_request(message, param="service_tier", code="invalid_value")
    if body.get("n") is not None and body["n"] < 1:
        _out_of_range("n", body["n"], "below minimum", ">= 1", "integer_below_min_value")


def check_embeddings(body: Body, model: str) -> None:
    """Raise the real API's 400 for an embeddings body that `model` would not take."""
    for name in body:
        if name not in _EMBEDDING_PARAMETERS:
            raise bad_request(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    texts = body.get("input")
    if texts is None:
        raise missing("input")
    if texts == "" or texts == []:
        raise bad_request(
            "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference."
        )
    if isinstance(texts, list):
        _check_inputs(texts)
    elif not isinstance(texts, str):
        raise wrong_type("input", "one of a string or array", texts)
    if body.get("encoding_format", "float") not in ("float", "base64"):
        raise wrong_value("encoding_format", body["encoding_format"], ("float", "base64"))
    _check_dimensions(body, model)


def _check_inputs(texts: list[Any]) -> None:
    if len(texts) > 2048:
        message = (
            "Invalid 'input': array too long. Expected an array with maximum length 2048, "
            f"but got an array with length {len(texts)} instead."
        )
        raise bad_request(message, param="input", code="array_above_max_length")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise wrong_type(f"input[{index}]", "a string", text)
        if not text:
            raise bad_request(
                "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference."
            )


def _check_dimensions(body: Body, model: str) -> None:
    wanted = body.get("dimensions")
    if wanted is None:
        return
    if isinstance(wanted, bool) or not isinstance(wanted, int):
        raise wrong_type("dimensions", "an integer", wanted)
    full = full_dimensions(model)
    if not 1 <= wanted <= full:
        raise bad_request(f"Invalid value for 'dimensions' = {wanted}. Must be less than or equal to {full}.")


def full_dimensions(model: str) -> int:
    """How many numbers an embedding has unless fewer are asked for."""
    return _FULL_DIMENSIONS.get(model, 256)


CHECKS: Mapping[str, Callable[[Body, str], None]] = {
    "/v1/chat/completions": check_chat,
    "/v1/embeddings": check_embeddings,
}
