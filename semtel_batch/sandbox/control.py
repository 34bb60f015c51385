"""What only a sandbox has: its books, its clock, its settings, faults on order."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson
from aiohttp import web

from semtel_batch.sandbox.endpoint import Endpoint
from semtel_batch.sandbox.exchange import Handler, reply


def control_routes(endpoint: Endpoint) -> list[web.RouteDef]:
    """Routes under /sandbox; they need no key."""

    async def books(request: web.Request) -> web.StreamResponse:
        endpoint.responses.settle(endpoint.clock.now())
        told = endpoint.books.shown(detail=request.query.get("detail") in {"1", "true"})
        told["batches_by_status"] = endpoint.batches.by_status()
        told["now"] = endpoint.clock.now()
        return reply(told)

    async def settings(request: web.Request) -> web.StreamResponse:
        return reply(shown_settings(endpoint))

    async def configure(request: web.Request) -> web.StreamResponse:
        endpoint.configure(await _told(request))
        return reply(shown_settings(endpoint))

    async def advance(request: web.Request) -> web.StreamResponse:
        seconds = (await _told(request)).get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds < 0:
            raise ValueError(f"seconds must be a number that is not negative, not {seconds!r}")
        await endpoint.advance(seconds)
        return reply({"now": endpoint.clock.now()})

    async def reset(request: web.Request) -> web.StreamResponse:
        await endpoint.reset()
        return reply({"reset": True})

    async def faults(request: web.Request) -> web.StreamResponse:
        told = await _told(request)
        endpoint.faults.script(str(told.get("path")), str(told.get("fault")), int(told.get("times", 1)))
        return reply({"scripted": True})

    return [
        web.get("/sandbox/books", books),
        web.get("/sandbox/settings", settings),
        web.post("/sandbox/settings", _told_off(configure)),
        web.post("/sandbox/advance", _told_off(advance)),
        web.post("/sandbox/reset", reset),
        web.post("/sandbox/faults", _told_off(faults)),
    ]


def shown_settings(endpoint: Endpoint) -> dict[str, Any]:
    """The settings, but for the key."""
    told = asdict(endpoint.settings)
    told["api_key"] = None if endpoint.settings.api_key is None else "***"
    return told


async def _told(request: web.Request) -> dict[str, Any]:
    told = orjson.loads(await request.read() or b"{}")
    if not isinstance(told, dict):
        raise ValueError("a JSON object is expected")
    return told


def _told_off(handler: Handler) -> Handler:
    """Answer 400 with the reason where a handler finds its input unusable."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except (ValueError, TypeError, OSError) as error:
            return reply({"error": {"message": str(error), "type": "sandbox_error"}}, 400)

    return handle
