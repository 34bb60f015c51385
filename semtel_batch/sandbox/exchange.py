"""One HTTP exchange: authorisation, faults, JSON in and out, errors as the API words them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from aiohttp import web

from semtel_batch.sandbox.endpoint import Endpoint
from semtel_batch.sandbox.errors import ApiError, bad_request, missing_key, wrong_azure_key, wrong_key
from semtel_batch.sandbox.faults import error_of
from semtel_batch.sandbox.ids import dashed, hex32

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Action = Callable[[Endpoint, web.Request], Awaitable[web.StreamResponse]]
ENDPOINT: web.AppKey[Endpoint] = web.AppKey("endpoint", Endpoint)

_JSON = "application/json"


def reply(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON response."""
    return web.Response(
        body=orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), status=status, headers=headers, content_type=_JSON
    )


async def json_body(request: web.Request) -> tuple[dict[str, Any], bytes]:
    """The request's JSON object and its bytes."""
    raw = await request.read()
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise bad_request(
            "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
            "library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON. "
            "If you have trouble figuring out how to fix this, please contact us through our help center at "
            "help.openai.com.)"
        )
    return body, raw


def exchange(endpoint: Endpoint, path: str, action: Action) -> Handler:
    """Wrap an action of `path` with everything that all paths share."""

    async def handle(request: web.Request) -> web.StreamResponse:
        began = time.perf_counter()
        label = f"{request.method} {path}"
        try:
            _authorise(endpoint, request)
            fault = endpoint.faults.for_request(request.method, path)
            response = await (
                action(endpoint, request) if fault is None else _failing(endpoint, request, action, fault)
            )
            endpoint.books.answered(label, str(response.status))
        except ApiError as error:
            endpoint.books.answered(label, str(error.status))
            if error.status == 429:
                endpoint.books.events["rate_limited"] += 1
            response = reply(error.body, error.status, error.headers)
        except _Dropped as dropped:
            endpoint.books.answered(label, str(dropped))
            response = web.Response(status=500)
        if not response.prepared:
            _sign(endpoint, response, began)
        return response

    return handle


class _Dropped(Exception):
    """The connection was ended on purpose."""


async def _failing(endpoint: Endpoint, request: web.Request, action: Action, fault: str) -> web.StreamResponse:
    if fault in {"drop_after", "error_after", "hang_after"}:
        await action(endpoint, request)
    if fault in {"hang", "hang_after"}:
        while request.transport is not None and not request.transport.is_closing():
            await asyncio.sleep(0.02)
        raise _Dropped(fault)
    if fault in {"drop_after", "drop_before"}:
        if request.transport is not None:
            request.transport.abort()
        raise _Dropped(fault)
    raw = await request.read() if request.content_type == _JSON else b""
    error = error_of(fault, _model_name(raw), endpoint.settings.retry_after_s)
    raise error if error is not None else RuntimeError(fault)


def _model_name(raw: bytes) -> str:
    try:
        return str(orjson.loads(raw).get("model"))
    except (orjson.JSONDecodeError, AttributeError):
        return "default"


def _authorise(endpoint: Endpoint, request: web.Request) -> None:
    wanted = endpoint.settings.api_key
    key = request.headers.get("api-key") if endpoint.azure else None
    if key is None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        key = given.strip() if scheme.lower() == "bearer" else ""
    if key and wanted in (None, key):
        return
    if endpoint.azure:
        raise wrong_azure_key()
    raise wrong_key(key) if key else missing_key()


def _sign(endpoint: Endpoint, response: web.StreamResponse, began: float) -> None:
    headers = response.headers
    if endpoint.azure:
        headers["apim-request-id"] = headers["x-request-id"] = dashed()
        headers["x-ms-region"] = "Sandbox"
        return
    headers["x-request-id"] = f"req_{hex32()}"
    headers["openai-processing-ms"] = str(int((time.perf_counter() - began) * 1000))
    headers["openai-organization"] = endpoint.settings.organization
    headers["openai-version"] = "2020-10-01"
