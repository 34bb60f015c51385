"""From an endpoint and a tier to the transport that serves it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from semtel_batch.errors import BadConfig
from semtel_batch.records import Endpoint, Tier
from semtel_batch.transport.connection import connection
from semtel_batch.transport.protocol import Transport
from semtel_batch.transport.verdicts import Patience

FLEX_TIMEOUT_S = 900.0  # OpenAI's advice for its flex tier


def open_transport(
    endpoint: Endpoint,
    tier: Tier,
    environ: Mapping[str, str],
    *,
    tasks: int = 1,
    now: Callable[[], float] = time.time,
    patience: Patience | None = None,
) -> Transport:
    """Open the way to an endpoint in one tier; `now` is wall-clock time, unix seconds.

    `tasks` counts all processes that use the endpoint, this one too: realtime takes its share of what is allowed.
    `patience` says how long trouble is borne; without it, the tier's own.
    """
    reached = connection(endpoint, environ)
    # Each is imported when it is asked for: the SDK behind the batch tier alone takes most of a second to import.
    if tier is Tier.REALTIME:
        from semtel_batch.transport.realtime import RealtimeTransport

        return RealtimeTransport(endpoint, reached, tasks=tasks, patience=patience)
    if tier is Tier.FLEX:
        from semtel_batch.transport.realtime import RealtimeTransport

        patient = replace(reached, timeout_s=max(reached.timeout_s, FLEX_TIMEOUT_S))
        patience = patience or Patience.with_flex()
        return RealtimeTransport(endpoint, patient, tasks=tasks, patience=patience, tier=tier)
    if tier is Tier.BATCH:
        from semtel_batch.transport.batch import BatchTransport

        return BatchTransport(reached, now=now, patience=patience)
    raise BadConfig(
        f"Endpoint '{endpoint.name}' lists tier '{tier}', which can't be used yet; "
        "leave 'realtime' and 'batch' in its tiers in semtel.toml."
    )
