"""From endpoints and a tier to the transport that serves them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from semtel_batch.errors import KeyMissing
from semtel_batch.records import Change, Endpoint, Tier
from semtel_batch.transport.connection import Connection, connection
from semtel_batch.transport.protocol import Transport
from semtel_batch.transport.verdicts import Patience

FLEX_TIMEOUT_S = 900.0  # OpenAI's advice for its flex tier
log = logging.getLogger("semtel_batch.transport")


def open_transport(
    members: Sequence[Endpoint],
    tier: Tier,
    environ: Mapping[str, str],
    *,
    tasks: int = 1,
    now: Callable[[], float] = time.time,
    patience: Patience | None = None,
) -> Transport:
    """Open the way to endpoints in one tier; `now` is wall-clock time, unix seconds.

    Realtime asks all `members`, the first of which the requests are composed for; every other tier has one.
    `tasks` counts all processes that use the endpoints, this one too: realtime takes its share of what is allowed.
    `patience` says how long trouble is borne; without it, the tier's own.
    """
    first = members[0]
    # Each is imported when it is asked for: the SDK behind the batch tier alone takes most of a second to import.
    if tier is Tier.REALTIME:
        return _open_realtime(members, environ, tasks, patience)
    reached = connection(first, environ)
    if tier in (Tier.FLEX, Tier.DECISIONS):
        from semtel_batch.transport.realtime import RealtimeTransport

        if tier is Tier.FLEX:
            reached = replace(reached, timeout_s=max(reached.timeout_s, FLEX_TIMEOUT_S))
            patience = patience or Patience.with_flex()
        return RealtimeTransport([(first, reached)], tasks=tasks, patience=patience, tier=tier)
    if tier is Tier.BATCH:
        from semtel_batch.transport.batch import BatchTransport

        return BatchTransport(reached, now=now, patience=patience)
    from semtel_batch.transport.background import BackgroundTransport

    return BackgroundTransport(first, reached, now=now, tasks=tasks, patience=patience)


def _open_realtime(
    members: Sequence[Endpoint], environ: Mapping[str, str], tasks: int, patience: Patience | None
) -> Transport:
    """Open a pool. A member that has no key is left out, as one is whose key is refused; without any it is an error."""
    from semtel_batch.transport.realtime import RealtimeTransport

    reached: list[tuple[Endpoint, Connection]] = []
    without: dict[str, KeyMissing] = {}
    for endpoint in members:
        try:
            reached.append((endpoint, connection(endpoint, environ)))
        except KeyMissing as error:
            without[endpoint.name] = error
    if not reached:
        raise without[members[0].name]
    way = RealtimeTransport(reached, composed_for=members[0].model, tasks=tasks, patience=patience)
    for name, problem in without.items():
        log.warning("%s Its work goes to %s.", problem, ", ".join(endpoint.name for endpoint, _ in reached))
        way.pool.report(name, Change.STOPPED, str(problem))
    return way
