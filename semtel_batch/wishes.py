"""From options, as a person gives them, to what `plan` is asked for."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from semtel_batch import config
from semtel_batch.config import Settings
from semtel_batch.conversations import Columns
from semtel_batch.engines.local import Wish
from semtel_batch.errors import BadConfig
from semtel_batch.plans import Objective, Sample


def wish_of(settings: Settings, options: Mapping[str, Any]) -> Wish:
    """What options ask for, the project's defaults where they are left out.

    `options` has the command line's: data, classifiers, deadline, budget, min_agreement, recipes, assume, fresh,
    sample, seed, columns. Raises BadConfig.
    """
    defaults = settings.defaults
    agreement = options["min_agreement"]
    return Wish(
        source=options["data"],
        classifiers=tuple(options["classifiers"]),
        objective=Objective(
            deadline_s=config.parse_duration(options["deadline"]) if options["deadline"] else defaults.deadline_s,
            budget_usd=config.parse_usd(options["budget"]) if options["budget"] else defaults.budget_usd,
            min_agreement=defaults.min_agreement if agreement is None else agreement,
        ),
        recipes=tuple(options["recipes"]),
        assume=options["assume"],
        fresh=options["fresh"],
        columns=columns_of(settings.columns, options["columns"]),
        sample=_sample(options["sample"], options["seed"]),
    )


def _sample(n: int | None, seed: int | None) -> Sample | None:
    if n is None:
        if seed is not None:
            raise BadConfig("--seed is of --sample; say how many conversations to draw with --sample N.")
        return None
    return Sample(seed=secrets.randbelow(2**31) if seed is None else seed, n=n)


def columns_of(columns: Columns, renamed: tuple[str, ...]) -> Columns:
    """The names of the input's columns with some NAME=YOURS changed; raises BadConfig."""
    known = {field.name for field in fields(Columns)}
    for pair in renamed:
        name, _, yours = pair.partition("=")
        if name not in known or not yours:
            raise BadConfig(f"--column {pair!r} is not NAME=YOURS with NAME one of {', '.join(sorted(known))}.")
        columns = replace(columns, **{name: yours})
    return columns
