"""The sandbox for tests: in a thread of this process, or in a process of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from semtel_batch.sandbox.server import serving
from semtel_batch.sandbox.settings import Settings

_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class SandboxHandle:
    """A running sandbox, seen from a test."""

    base_url: str

    def books(self, *, detail: bool = False) -> dict[str, Any]:
        """What was asked, done and billed; with `detail`, by request and by item."""
        return self._get("/sandbox/books" + ("?detail=1" if detail else ""))

    def advance(self, seconds: float) -> None:
        """Jump ahead in time; when it returns, all that fell due is done."""
        self._post("/sandbox/advance", {"seconds": seconds})

    def configure(self, **changes: Any) -> None:
        """Change settings."""
        self._post("/sandbox/settings", changes)

    def script(self, path: str, fault: str, times: int = 1) -> None:
        """The next `times` requests to `path` (as /v1/…, "POST /v1/…" or "batch-line") get this fault."""
        self._post("/sandbox/faults", {"path": path, "fault": fault, "times": times})

    def reset(self) -> None:
        """Forget everything but the settings."""
        self._post("/sandbox/reset", {})

    def _get(self, path: str) -> dict[str, Any]:
        return self._call(urllib.request.Request(self._root + path))

    def _post(self, path: str, told: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._root + path, orjson.dumps(told), headers)
        return self._call(request)

    @property
    def _root(self) -> str:
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc}"

    def _call(self, request: urllib.request.Request) -> dict[str, Any]:
        # No proxy of the environment may come between.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_PATIENCE_S * 10) as response:
                told: dict[str, Any] = orjson.loads(response.read())
                return told
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(orjson.loads(error.read())["error"]["message"]) from None


@contextmanager
def running(settings: Settings | None = None) -> Iterator[SandboxHandle]:
    """Run a sandbox in a thread of this process."""
    thread = _Thread(settings or Settings())
    thread.start()
    try:
        yield SandboxHandle(thread.base_url())
    finally:
        thread.stop()


class _Thread(threading.Thread):
    def __init__(self, settings: Settings) -> None:
        super().__init__(name="semtel-sandbox", daemon=True)
        self._settings = settings
        self._ready = threading.Event()
        self._base_url: str | None = None
        self._failure: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - told to the thread that waits
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        async with serving(self._settings) as base_url:
            self._base_url = base_url
            self._ready.set()
            await self._stopped.wait()

    def base_url(self) -> str:
        self._ready.wait(_PATIENCE_S)
        if self._base_url is None:
            raise self._failure or TimeoutError("the sandbox did not start")
        return self._base_url

    def stop(self) -> None:
        if self.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
        self.join(_PATIENCE_S)
        if self._failure is not None:
            raise self._failure


@contextmanager
def running_process(settings: Settings | None = None) -> Iterator[SandboxHandle]:
    """Run a sandbox in a process of its own, so that it shares no interpreter with what is measured or killed."""
    with tempfile.TemporaryDirectory(prefix="semtel-sandbox-") as folder:
        config = Path(folder) / "sandbox.toml"
        config.write_text(as_toml(settings or Settings()), encoding="utf-8")
        command = [sys.executable, "-m", "semtel_batch.sandbox", "--port", "0", "--config", str(config)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ.copy())
        try:
            yield SandboxHandle(_announced(process))
        finally:
            process.terminate()
            process.communicate(timeout=_PATIENCE_S)


def _announced(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout else ""
    if not line.startswith("listening on "):
        raise RuntimeError(f"the sandbox did not start: {line.strip() or 'it said nothing on stdout'}")
    return line.removeprefix("listening on ").strip()


def as_toml(settings: Settings) -> str:
    """Settings as the TOML that reads back to them."""
    lines: list[str] = []
    tables: list[str] = []
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, dict):
            pairs = "".join(f"{_toml(key)} = {_toml(part)}\n" for key, part in value.items())
            tables.append(f"[{field.name}]\n{pairs}")
        elif value is not None:
            lines.append(f"{field.name} = {_toml(value)}\n")
    return "".join(lines + tables)


def _toml(value: Any) -> str:
    # JSON's strings, numbers, booleans and arrays are TOML's.
    return orjson.dumps(value).decode()
