"""What if: the same job decided again under other limits, without counting anything again."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, replace

from semtel_batch.errors import Infeasible
from semtel_batch.planner.job import Job
from semtel_batch.planner.optimize import choose
from semtel_batch.plans import Objective, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One set of limits and what it comes to; without a plan, why there is none."""

    asked: str  # as the user wrote it: "deadline=6h"
    objective: Objective
    plan: Plan | None
    reason: str = ""


def sweep(job: Job, variants: Iterable[tuple[str, Objective]]) -> tuple[Variant, ...]:
    """Decide a job under each of these objectives. Raises whatever no objective can mend."""
    job = replace(job, truncated_lengths=functools.cache(job.truncated_lengths))
    return tuple(_decided(job, asked, objective) for asked, objective in variants)


def _decided(job: Job, asked: str, objective: Objective) -> Variant:
    try:
        return Variant(asked=asked, objective=objective, plan=choose(replace(job, objective=objective)))
    except Infeasible as infeasible:
        return Variant(asked=asked, objective=objective, plan=None, reason=str(infeasible))
