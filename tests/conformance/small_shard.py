"""A shard of lines given one by one, and what a transport needs to be tried quickly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from semtel_batch.records import Shard, Stage, Tier
from semtel_batch.transport.verdicts import Patience

KEY, VARIABLE = "sk-right-and-secret", "THE_KEY_VARIABLE"
QUICK = Patience(base_s=0.001, cap_s=0.005, looks_s=(0.0, 0.0), longest_wait_s=5.0)


def shard_of(folder: Path, lines: Iterable[Mapping[str, Any]], name: str = "shard-1") -> Shard:
    """Write the lines and describe them."""
    written = [orjson.dumps(dict(line), option=orjson.OPT_APPEND_NEWLINE) for line in lines]
    path = folder / f"{name}.jsonl"
    path.write_bytes(b"".join(written))
    return Shard(
        id=1,
        key=name,
        plan_id="plan",
        leg=0,
        stage=Stage.CLASSIFY,
        attempt=1,
        classifiers=("topic",),
        endpoint="the-endpoint",
        tier=Tier.REALTIME,
        path=path,
        n_requests=len(written),
        n_items=len(written),
        prompt_tokens=100 * len(written),
        max_completion_tokens=60 * len(written),
    )
