"""The sandbox's HTTP server: routes, and running it on loopback."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from semtel_batch.sandbox import batch_routes, file_routes, realtime_routes, response_routes, zero_shot
from semtel_batch.sandbox.clock import Clock
from semtel_batch.sandbox.control import control_routes
from semtel_batch.sandbox.endpoint import Endpoint
from semtel_batch.sandbox.errors import ApiError
from semtel_batch.sandbox.exchange import Action, exchange, reply
from semtel_batch.sandbox.settings import Settings, from_toml

LOOPBACK = "127.0.0.1"
_MAX_JSON_BYTES = 64 << 20

_ROUTES: tuple[tuple[str, str, Action], ...] = (
    ("POST", "/chat/completions", realtime_routes.chat_completions),
    ("POST", "/embeddings", realtime_routes.embeddings),
    ("POST", "/responses", response_routes.create),
    ("GET", "/responses/{id}", response_routes.get),
    ("POST", "/responses/{id}/cancel", response_routes.cancel),
    ("DELETE", "/responses/{id}", response_routes.delete),
    ("POST", "/decisions", realtime_routes.decisions),
    ("GET", "/models", realtime_routes.list_models),
    ("GET", "/models/{id}", realtime_routes.get_model),
    ("POST", "/files", file_routes.upload),
    ("GET", "/files", file_routes.list_files),
    ("GET", "/files/{id}", file_routes.get_file),
    ("GET", "/files/{id}/content", file_routes.content),
    ("DELETE", "/files/{id}", file_routes.delete),
    ("POST", "/batches", batch_routes.create),
    ("GET", "/batches", batch_routes.list_batches),
    ("GET", "/batches/{id}", batch_routes.get_batch),
    ("POST", "/batches/{id}/cancel", batch_routes.cancel),
)
# Azure's v1 paths, its older ones (with ?api-version=), and those of a deployment. All are counted as /v1.
_PREFIXES = ("/v1", "/openai/v1", "/openai")
_DEPLOYMENT = "/openai/deployments/{deployment}"


def application(endpoint: Endpoint) -> web.Application:
    """The routes over one endpoint."""
    app = web.Application(client_max_size=_MAX_JSON_BYTES)
    for method, path, action in _ROUTES:
        handler = exchange(endpoint, f"/v1{path}", action)
        prefixes = (*_PREFIXES, _DEPLOYMENT) if path in {"/chat/completions", "/embeddings"} else _PREFIXES
        for prefix in prefixes:
            app.router.add_route(method, prefix + path, handler)
    app.router.add_routes(control_routes(endpoint))
    app.router.add_route("*", "/{anything:.*}", _unknown)
    return app


async def _unknown(request: web.Request) -> web.StreamResponse:
    error = ApiError(404, f"Invalid URL ({request.method} {request.path})")
    return reply(error.body, 404)


@asynccontextmanager
async def serving(settings: Settings, port: int = 0, clock: Clock | None = None) -> AsyncIterator[str]:
    """Serve on loopback within the running event loop; yields the base URL. Port 0 takes a free one."""
    with tempfile.TemporaryDirectory(prefix="semtel-sandbox-") as folder:
        endpoint = Endpoint(settings, Path(folder), clock)
        runner = web.AppRunner(application(endpoint), access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        try:
            await web.TCPSite(runner, LOOPBACK, port, backlog=2048).start()
            bound = runner.addresses[0][1]
            yield f"http://{LOOPBACK}:{bound}" + ("/openai/v1" if endpoint.azure else "/v1")
        finally:
            await endpoint.stop()
            await runner.cleanup()


def run(port: int, config: Path | None, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; calls `ready` with the base URL once requests are taken.

    Raises SettingsError for an unusable config, OSError for a port that is taken, and ImportError if the package of
    the model is missing: better now than with the first request.
    """
    settings = Settings() if config is None else from_toml(config)
    if settings.model_behind != "scripted":
        zero_shot.embed([""])
    serve(settings, port, ready)


def serve(settings: Settings, port: int, ready: Callable[[str], None]) -> None:
    """Serve these settings until SIGINT or SIGTERM."""
    asyncio.run(_until_signalled(settings, port, ready))


async def _until_signalled(settings: Settings, port: int, ready: Callable[[str], None]) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with serving(settings, port) as base_url:
        ready(base_url)
        await stopped.wait()
