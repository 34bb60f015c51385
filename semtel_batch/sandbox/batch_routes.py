"""Creating, listing, watching and cancelling batches."""

from __future__ import annotations

from aiohttp import web

from semtel_batch.sandbox.batch_validation import Inspector
from semtel_batch.sandbox.batch_work import over_quota_message
from semtel_batch.sandbox.batches import Batch, check_cancel, new_batch
from semtel_batch.sandbox.endpoint import Endpoint
from semtel_batch.sandbox.errors import ApiError, bad_request
from semtel_batch.sandbox.exchange import json_body, reply
from semtel_batch.sandbox.file_routes import limit_of, listed, listing, page

_HOUR_S = 3_600


async def create(endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
    body, _ = await json_body(request)
    settings = endpoint.settings
    batch = new_batch(body, endpoint.clock.now(), settings)
    cap = settings.batches_per_hour
    if cap is not None and endpoint.batches.created_since(batch.created_at - _HOUR_S) >= cap:
        message = f"Rate limit reached for batch creation: {cap} batches per hour. Please try again later."
        raise ApiError(429, message, code="rate_limit_exceeded", type_="requests")
    if settings.early_file_check:
        _find_now(endpoint, batch)
    if settings.fail_fast:
        _fail_fast(endpoint, batch)
    shown = batch.shown()
    endpoint.start(batch)
    return reply(shown)


def _find_now(endpoint: Endpoint, batch: Batch) -> None:
    try:
        file = endpoint.files.get(batch.input_file_id)
        visible = file.created_at + endpoint.settings.file_visible_after_s <= batch.created_at
    except ApiError:
        visible = False
    if not visible:
        raise bad_request(
            f"Cannot find file {batch.input_file_id}, or project proj_sandbox does not have access to it.",
            param="input_file_id",
        )


def _fail_fast(endpoint: Endpoint, batch: Batch) -> None:
    """Refuse at create what would not fit in the queue, as Azure's fail-fast regions do."""
    limit = endpoint.settings.enqueued_tokens
    if limit is None:
        return
    path = endpoint.files.get(batch.input_file_id).path
    inspector = Inspector(path, batch.endpoint, endpoint.settings, endpoint.desk.counter)
    for _ in inspector.steps():
        pass
    found = inspector.found
    if endpoint.batches.enqueued(found.model) + found.tokens > limit:
        raise bad_request(over_quota_message(endpoint.settings, found.model, limit), code="token_limit_exceeded")


async def list_batches(endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
    limit = limit_of(request, 20, 100)
    chosen, more = page(listed(endpoint, endpoint.batches.newest_first()), request.query.get("after"), limit)
    return reply(listing([batch.shown() for batch in chosen], has_more=more))


async def get_batch(endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
    return reply(endpoint.batches.get(request.match_info["id"]).shown())


async def cancel(endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
    batch = endpoint.batches.get(request.match_info["id"])
    if check_cancel(batch):
        now = endpoint.clock.now()
        batch.enter("cancelling", now)
        batch.cancel_asked_at = now
        endpoint.clock.wake()
    return reply(batch.shown())
