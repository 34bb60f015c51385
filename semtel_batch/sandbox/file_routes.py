"""Uploading, listing, reading and deleting files."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import orjson
from aiohttp import web

from semtel_batch.sandbox.batches import Batch, lasting
from semtel_batch.sandbox.endpoint import Endpoint
from semtel_batch.sandbox.errors import ApiError, bad_request, missing, wrong_type
from semtel_batch.sandbox.exchange import reply
from semtel_batch.sandbox.files import THIRTY_DAYS_S, StoredFile
from semtel_batch.sandbox.multipart import Form, MalformedForm, receive

_PURPOSES = ("fine-tune", "assistants", "batch", "user_data", "vision", "evals")
_MAX_FILE_BYTES = 512 << 20

Thing = TypeVar("Thing", Batch, StoredFile)


async def upload(endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
    if not request.content_type.startswith("multipart/"):
        raise missing("file")
    path = endpoint.files.new_path()
    keep_bytes = endpoint.settings.max_file_bytes
    try:
        form = await receive(request.content, request.headers["Content-Type"], path, keep_bytes)
        lasts_s = _check_form(endpoint, form, path)
    except MalformedForm as error:
        path.unlink(missing_ok=True)
        raise bad_request(f"Could not parse multipart form: {error}.") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    purpose, filename = form.fields["purpose"], form.filename or "upload"
    file = endpoint.files.add(path, filename, purpose, lasts_s=lasts_s, azure=endpoint.azure)
    endpoint.books.events["files_uploaded"] += 1
    endpoint.books.events["bytes_uploaded"] += file.n_bytes
    return reply(file.shown())


def _check_form(endpoint: Endpoint, form: Form, path: Path) -> int | None:
    """Raise the API's 400s; the seconds that the file lasts."""
    purpose = form.fields.get("purpose")
    if form.filename is None:
        raise missing("file")
    if purpose is None:
        raise missing("purpose")
    if purpose not in _PURPOSES:
        raise bad_request(f"'{purpose}' is not one of {list(_PURPOSES)} - 'purpose'")
    if form.n_bytes > min(endpoint.settings.max_file_bytes, _MAX_FILE_BYTES):
        raise bad_request("File is too large.")
    if purpose != "batch":
        return _lasting(endpoint, form)
    if not form.filename.endswith(".jsonl"):
        raise bad_request("Invalid file format for Batch API. Must be .jsonl")
    if endpoint.settings.strict_upload and not _begins_well(path):
        raise bad_request("Invalid file format. Input file must be in .jsonl format.")
    return _lasting(endpoint, form) or THIRTY_DAYS_S


def _lasting(endpoint: Endpoint, form: Form) -> int | None:
    given: dict[str, Any] = {}
    for name in ("anchor", "seconds"):
        value = form.fields.get(f"expires_after[{name}]", form.fields.get(f"expires_after.{name}"))
        if value is not None:
            given[name] = int(value) if name == "seconds" and value.isdigit() else value
    return lasting(given or None, "expires_after", endpoint.settings)


def _begins_well(path: Path) -> bool:
    with path.open("rb") as lines:
        try:
            return isinstance(orjson.loads(lines.readline()), dict)
        except orjson.JSONDecodeError:
            return False


async def list_files(endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
    query = request.query
    files = listed(endpoint, endpoint.files.newest_first(query.get("purpose")))
    if query.get("order") == "asc":
        files.reverse()
    chosen, more = page(files, query.get("after"), _limit(query.get("limit"), 10_000, 10_000))
    data = [file.shown() for file in chosen]
    return reply(listing(data, has_more=more))


def listed(endpoint: Endpoint, things: Iterable[Thing]) -> list[Thing]:
    """Those that are old enough to be in a list."""
    until = endpoint.clock.now() - endpoint.settings.listed_after_s
    return [thing for thing in things if thing.created_at <= until]


def _limit(given: str | None, default: int, highest: int) -> int:
    if given is None:
        return default
    if not given.lstrip("-").isdigit():
        raise wrong_type("limit", "an integer", given)
    limit = int(given)
    if limit < 1:
        message = f"Invalid 'limit': integer below minimum value. Expected a value >= 1, but got {limit} instead."
        raise bad_request(message, param="limit", code="integer_below_min_value")
    if limit > highest:
        message = (
            f"Invalid 'limit': integer above maximum value. Expected a value <= {highest}, but got {limit} instead."
        )
        raise bad_request(message, param="limit", code="integer_above_max_value")
    return limit


def page(rows: list[Any], after: str | None, limit: int) -> tuple[list[Any], bool]:
    """The rows that follow the one with id `after`, and whether there are more."""
    start = 0
    if after is not None:
        start = next((i + 1 for i, row in enumerate(rows) if row.id == after), -1)
        if start < 0:
            raise ApiError(404, f"No object found with id '{after}'.", param="after")
    return list(islice(rows, start, start + limit)), len(rows) > start + limit


def listing(data: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """A list object."""
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": has_more}


def limit_of(request: web.Request, default: int, highest: int) -> int:
    """The `limit` of a query."""
    return _limit(request.query.get("limit"), default, highest)


def _file(endpoint: Endpoint, request: web.Request) -> StoredFile:
    return endpoint.files.get(request.match_info["id"])


async def get_file(endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
    return reply(_file(endpoint, request).shown())


async def content(endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
    headers = {"Content-Type": "application/octet-stream"}
    return web.FileResponse(_file(endpoint, request).path, headers=headers)


async def delete(endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
    file_id = request.match_info["id"]
    endpoint.files.delete(file_id)
    endpoint.books.events["files_deleted"] += 1
    return reply({"object": "file", "deleted": True, "id": file_id})
