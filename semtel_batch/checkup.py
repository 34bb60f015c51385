"""What `doctor` looks at: each finding says what was seen and, where something is wrong, what to do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from semtel_batch import classifiers, config, strategies, tokens
from semtel_batch.config import Settings
from semtel_batch.errors import BadConfig, SemtelError
from semtel_batch.families import family_of
from semtel_batch.offers import embedder_of
from semtel_batch.prices import price_of, shutdown_problem
from semtel_batch.private import is_private
from semtel_batch.records import Endpoint, Tier
from semtel_batch.resources import shipped
from semtel_batch.store import Store, store_path
from semtel_batch.transport.connection import connection
from semtel_batch.transport.model_list import look_up_models

_SOON = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    about: str
    said: str
    is_good: bool = True
    is_fatal: bool = False


def examine(project: Path, environ: Mapping[str, str], now: datetime, *, offline: bool) -> list[Finding]:
    """Look at everything a plan needs; endpoints are asked for their models unless `offline`."""
    findings = [_tried("project", lambda: _writable(project)), _tried("store", lambda: _store(project))]
    try:
        settings = config.load(project, environ)
    except SemtelError as error:
        return [*findings, Finding(about="semtel.toml", said=str(error), is_good=False, is_fatal=True)]
    findings.append(_endpoints_finding(settings))
    findings += [_tried("classifiers", lambda: _classifiers(settings)), _tried("recipes", lambda: _recipes(settings))]
    for endpoint in settings.endpoints:
        findings += _endpoint_findings(endpoint, environ, now, offline)
    if settings.endpoints:
        findings.append(_embedding_finding(settings, now))
    return [*findings, Finding(about="shipped", said=f"prompts to start from are in {shipped('prompts')}")]


def _tried(about: str, look: Callable[[], str]) -> Finding:
    """A look that may raise one of our errors, which then is the finding."""
    try:
        return Finding(about=about, said=look())
    except SemtelError as error:
        return Finding(about=about, said=str(error), is_good=False, is_fatal=True)


def _writable(project: Path) -> str:
    if not project.is_dir():
        raise BadConfig(f"{project} is not a folder; make one with: semtel-batch init {project}")
    if not os.access(project, os.W_OK):
        raise BadConfig(f"{project} can't be written; choose another folder with --project.")
    return f"{project.resolve()} can be written"


def _store(project: Path) -> str:
    if not store_path(project).exists():
        return "none yet; the first plan makes it"
    with closing(Store(project)) as store:
        n_plans, lies = len(store.plan_rows()), f"in {store.path}"
    if not is_private(store_path(project)):
        raise BadConfig(f"{n_plans} plans {lies}, which others may read; run: chmod 600 {store_path(project)}*")
    return f"{n_plans} plans {lies}"


def _endpoints_finding(settings: Settings) -> Finding:
    if settings.endpoints:
        return Finding(about="endpoints", said=", ".join(f"{e.name} ({e.kind}, {e.model})" for e in settings.endpoints))
    said = f"none; add an [[endpoint]] to {settings.project / config.FILE} or set OPENAI_API_KEY"
    return Finding(about="endpoints", said=said, is_good=False, is_fatal=True)


def _embedding_finding(settings: Settings, now: datetime) -> Finding:
    """Who would embed, for `distill`; nothing fatal, as every other command does without."""
    try:
        embedder = embedder_of(settings, settings.endpoints[0].name, now)
    except SemtelError as error:
        return Finding(about="embedding", said=f"{error} Until then distill and networks are out.", is_good=False)
    prices = ", ".join(f"{price.tier}: ${price.input_usd} per million tokens" for price in embedder.prices)
    return Finding(about="embedding", said=f"{embedder.endpoint.name}, {prices}")


def _classifiers(settings: Settings) -> str:
    known = sorted(classifiers.known(settings.prompts))
    classifiers.find(known, settings.prompts)
    classifiers.grader(settings.prompts)
    return f"{', '.join(known)} and the grader"


def _recipes(settings: Settings) -> str:
    names = sorted(path.stem for path in shipped("strategies").glob("*.toml"))
    strategies.find(names, settings.strategies)
    return ", ".join(names)


def _endpoint_findings(
    endpoint: Endpoint, environ: Mapping[str, str], now: datetime, offline: bool
) -> Iterator[Finding]:
    about = f"endpoint {endpoint.name}"
    key = _tried(about, lambda: _key(endpoint, environ))
    yield key
    yield _tried(about, lambda: _counting(endpoint))
    for tier in endpoint.tiers:
        yield _tried(about, partial(_price, endpoint, tier, now))
    problem = shutdown_problem(endpoint, now, now + _SOON)
    if problem is not None:
        yield Finding(about=about, said=problem.message, is_good=False, is_fatal=problem.severity == "refuse")
    if key.is_good and not offline:
        yield from _asked(endpoint, environ, now)


def _asked(endpoint: Endpoint, environ: Mapping[str, str], now: datetime) -> Iterator[Finding]:
    """What the endpoint itself says: that it answers, has the model, and until when."""
    about = f"endpoint {endpoint.name}"
    try:
        models = look_up_models(endpoint, environ)
    except SemtelError as error:
        yield Finding(about=about, said=str(error), is_good=False, is_fatal=True)
        return
    yield Finding(about=about, said=models.said)
    if models.shuts_down_on is not None:
        problem = shutdown_problem(endpoint, now, now, told=models.shuts_down_on)
        if problem is not None:
            yield Finding(about=about, said=problem.message, is_good=False, is_fatal=problem.severity == "refuse")


def _key(endpoint: Endpoint, environ: Mapping[str, str]) -> str:
    connection(endpoint, environ)
    unsafe = "; ALLOWED TO GO UNENCRYPTED (allow_http)" if endpoint.allow_http else ""
    return (f"key in {endpoint.api_key_env}" if endpoint.api_key_env else "no key needed") + unsafe


def _counting(endpoint: Endpoint) -> str:
    family = family_of(endpoint.priced_as)
    encoding = endpoint.encoding or family.encoding
    tokens.count(["probe"], encoding)
    assumed = "" if endpoint.encoding or family.encoding_known else " (assumed for this model; bills will tell)"
    return f"{endpoint.model} is counted as {encoding}{assumed}"


def _price(endpoint: Endpoint, tier: Tier, now: datetime) -> str:
    price = price_of(endpoint, tier, now)
    return f"{price.tier}: ${price.input_usd} in, ${price.output_usd} out per million tokens ({price.source})"
