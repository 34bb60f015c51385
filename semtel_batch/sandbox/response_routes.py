"""Responses: created at once or in the background, looked up, cancelled, deleted."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from semtel_batch.sandbox.counting import text_of
from semtel_batch.sandbox.endpoint import Endpoint
from semtel_batch.sandbox.errors import ApiError, bad_request
from semtel_batch.sandbox.exchange import json_body, reply
from semtel_batch.sandbox.limits import admission_tokens
from semtel_batch.sandbox.responses import Stored, check_response, shown
from semtel_batch.sandbox.validation import model_of


async def create(endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
    """Take a request: answered at once, or with `background` after the settings' time."""
    endpoint.books.enter()
    try:
        body, raw = await json_body(request)
        model = endpoint.desk.model_named(model_of(body), embeds=False)
        job = endpoint.desk.accept(body, model, raw)
        chat = check_response(body, model)
        headers: dict[str, str] = {}
        if endpoint.limiter.limits_anything:
            characters = sum(len(text_of(message)) for message in chat["messages"])
            headers = endpoint.limiter.admit(model, admission_tokens(chat, characters, azure=endpoint.azure))
        if body.get("stream"):
            raise bad_request("The sandbox does not stream.", param="stream", code="unsupported_value")
        if endpoint.azure and body.get("background_options"):
            raise bad_request("Unknown parameter: 'background_options'.", param="background_options")
        job = replace(job, body=chat, schema=endpoint.desk.schema_of(chat))
        takes_s = endpoint.settings.background_s if body.get("background") else 0.0
        now = endpoint.clock.now()
        made = endpoint.responses.add(body, job, now, takes_s)
        if not body.get("background"):
            endpoint.responses.settle(now)
        answer = reply(shown(made, now), headers=headers)
        if body.get("store") is False:
            endpoint.responses.stored.pop(made.id, None)
        return answer
    finally:
        endpoint.books.leave()


async def get(endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
    return reply(shown(_stored(endpoint, request), endpoint.clock.now()))


async def cancel(endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
    """Stop a background response; one that has ended is shown as it is."""
    one = _stored(endpoint, request)
    if not one.body.get("background"):
        raise bad_request("Cannot cancel a response that was not created with background set to true.")
    endpoint.responses.cancel(one)
    return reply(shown(one, endpoint.clock.now()))


async def delete(endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
    one = _stored(endpoint, request)
    endpoint.responses.cancel(one)
    del endpoint.responses.stored[one.id]
    return reply({"id": one.id, "object": "response", "deleted": True})


def _stored(endpoint: Endpoint, request: web.Request) -> Stored:
    endpoint.responses.settle(endpoint.clock.now())
    wanted = request.match_info["id"]
    if wanted not in endpoint.responses.stored:
        raise ApiError(404, f"Response with id '{wanted}' not found.")
    return endpoint.responses.stored[wanted]
