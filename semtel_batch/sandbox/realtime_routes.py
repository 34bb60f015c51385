"""Chat completions, embeddings, models: answered at once."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from semtel_batch.sandbox.counting import countable, text_of
from semtel_batch.sandbox.decisions import check_decision
from semtel_batch.sandbox.desk import CHAT, EMBEDDINGS
from semtel_batch.sandbox.endpoint import Endpoint
from semtel_batch.sandbox.errors import ApiError, bad_request, model_not_found, no_room_for_flex
from semtel_batch.sandbox.exchange import json_body, reply
from semtel_batch.sandbox.limits import admission_tokens
from semtel_batch.sandbox.validation import CHECKS, model_of

_AZURE_FLEX = "gpt-5.6-sol"  # in preview, and the only one
_MODELS_SINCE = 1_700_000_000


async def chat_completions(endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
    return await _realtime(endpoint, request, CHAT)


async def embeddings(endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
    return await _realtime(endpoint, request, EMBEDDINGS)


async def decisions(endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
    """Answer typed questions about one text; OpenAI's alone."""
    if endpoint.azure:
        raise ApiError(404, "Resource not found")
    endpoint.books.enter()
    try:
        body, raw = await json_body(request)
        model = endpoint.desk.model_named(model_of(body), embeds=False)
        job = endpoint.desk.accept(body, model, raw)
        limited = endpoint.limiter.limits_anything
        headers = endpoint.limiter.admit(model, max(1, len(raw) // 4)) if limited else {}
        try:
            check_decision(body, model)
        except ApiError as error:
            error.headers.update(headers)
            raise
        answer = endpoint.desk.decide(job)
        await _delay(endpoint, 0)
        return reply(answer, headers=headers)
    finally:
        endpoint.books.leave()


async def _realtime(endpoint: Endpoint, request: web.Request, path: str) -> web.StreamResponse:
    endpoint.books.enter()
    try:
        body, raw = await json_body(request)
        if deployment := request.match_info.get("deployment"):
            body["model"] = deployment
        model = endpoint.desk.model_named(model_of(body), embeds=path == EMBEDDINGS)
        job = endpoint.desk.accept(body, model, raw)
        # Whatever is wrong with a request, it counts against the limits.
        headers = _admitted(endpoint, body, model) if endpoint.limiter.limits_anything else {}
        try:
            CHECKS[path](body, model)
            if body.get("stream"):
                raise bad_request("The sandbox does not stream.", param="stream", code="unsupported_value")
        except ApiError as error:
            error.headers.update(headers)
            raise
        answer = endpoint.desk.answer(path, [job], _channel(endpoint, body, model))[0]
        await _delay(endpoint, answer["usage"].get("completion_tokens", 0))
        return reply(answer, headers=headers)
    finally:
        endpoint.books.leave()


def _channel(endpoint: Endpoint, body: dict[str, Any], model: str) -> str:
    """What a request is billed as: flex, where there is room for it, or realtime."""
    if body.get("service_tier") != "flex":
        return "realtime"
    if endpoint.azure and not model.startswith(_AZURE_FLEX):
        raise bad_request("Flex processing is not supported for this deployment.", param="service_tier")
    if endpoint.faults.flex_is_full(endpoint.settings.flex_unavailable):
        raise no_room_for_flex()
    return "flex"


def _admitted(endpoint: Endpoint, body: dict[str, Any], model: str) -> dict[str, str]:
    if "input" in body:
        given = body["input"]
        texts = [given] if isinstance(given, str) else [str(text) for text in given or ()]
        tokens = max(1, sum(map(len, texts)) // 4)
    else:
        characters = sum(len(text_of(message)) for message in body["messages"]) if countable(body) else 0
        tokens = admission_tokens(body, characters, azure=endpoint.azure)
    return endpoint.limiter.admit(model, tokens)


async def _delay(endpoint: Endpoint, completion_tokens: int) -> None:
    settings = endpoint.settings
    delay_s = settings.latency_s + settings.latency_per_token_s * completion_tokens
    knee = settings.knee_in_flight
    if knee and endpoint.books.in_flight > knee:
        delay_s *= endpoint.books.in_flight / knee
    if delay_s > 0:
        await asyncio.sleep(delay_s)


async def list_models(endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
    names = endpoint.settings.deployments or endpoint.settings.models
    return reply({"object": "list", "data": [_model(endpoint, name) for name in names]})


async def get_model(endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
    name = request.match_info["id"]
    if name not in (endpoint.settings.deployments or endpoint.settings.models):
        raise model_not_found(name)
    return reply(_model(endpoint, name))


def _model(endpoint: Endpoint, name: str) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": name, "object": "model", "created": _MODELS_SINCE, "owned_by": "system"}
    if endpoint.settings.shutdown_dates:
        shown["shutdown_date"] = endpoint.settings.shutdown_dates.get(name)
    return shown
