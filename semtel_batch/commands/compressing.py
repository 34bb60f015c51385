"""`compress`: a classifier's prompt in fewer words, as a file for a person to review and to `compare`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from semtel_batch import classifiers
from semtel_batch.clock import SystemClock
from semtel_batch.commands.session import open_session
from semtel_batch.compose.compress.backends import check, open_compressor
from semtel_batch.compose.prompt import measure
from semtel_batch.config import Settings
from semtel_batch.console.figures import share
from semtel_batch.errors import BadConfig, BadInput, PriceUnknown
from semtel_batch.legs import encoding_of
from semtel_batch.prices import price_of
from semtel_batch.records import Classifier, Endpoint, Stage, Usage
from semtel_batch.session import Session
from semtel_batch.shorter_prompts import shorten

_REQUESTS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Saving:
    """What 1,000 requests cost less at one endpoint and tier, with one classifier in each."""

    endpoint: str
    tier: str
    usd: Decimal


def compress(options: Mapping[str, Any], name: str, *, compressor: str, rate: float, folder: Path | None) -> None:
    session = open_session(options)
    settings = session.settings
    endpoint = _endpoint(settings)
    source = _source(settings, name)
    before = classifiers.load(source)
    target = (folder or session.project / "prompts" / "short") / source.name
    if target.exists():
        raise BadInput(f"{target} is there already and may be somebody's work; delete it, or name another --to folder.")
    if compressor == "llmlingua2" and settings.compress.model:
        compressor = f"llmlingua2:{settings.compress.model}"
    tool = open_compressor(compressor, encoding_of(endpoint))
    if problem := check(compressor):
        raise BadConfig(problem)
    text = source.read_text(encoding="utf-8-sig").replace("\r\n", "\n")
    made = shorten(text, before.label_names, lambda texts: tool.compress(texts, rate))
    after = _read_back(made, source.name)
    n_before, n_after = (measure((one,), Stage.CLASSIFY, endpoint, None).static_tokens for one in (before, after))
    if n_after >= n_before:
        raise BadInput(f"{compressor} finds nothing to leave out of {name} at --rate {rate:g}; try a lower one.")
    _write(target, made)
    _show(session, target, (before, n_before, n_after), list(_savings(settings, n_before - n_after)))


def _endpoint(settings: Settings) -> Endpoint:
    if not settings.endpoints:
        raise BadConfig("No endpoint is configured: add an [[endpoint]] to semtel.toml, or set OPENAI_API_KEY.")
    return settings.endpoints[0]


def _source(settings: Settings, name: str) -> Path:
    classifiers.find((name,), settings.prompts)  # which says what there is if this is not
    return classifiers.known(settings.prompts)[name]


def _read_back(text: str, file_name: str) -> Classifier:
    """The classifier that the new text is: nothing is written that could not be loaded."""
    with tempfile.TemporaryDirectory(prefix="semtel-") as folder:
        path = Path(folder) / file_name
        path.write_text(text, encoding="utf-8")
        return classifiers.load(path)


def _write(target: Path, text: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise BadInput(f"{target} can't be written ({error.strerror}); choose another place with --to.") from error


def _savings(settings: Settings, n_tokens: int) -> Iterator[_Saving]:
    """Of every endpoint and tier with a known price."""
    now = SystemClock().now()
    for endpoint in settings.endpoints:
        for tier in endpoint.tiers:
            try:
                price = price_of(endpoint, tier, now)
            except PriceUnknown:
                continue
            usd = price.cost_usd(Usage(prompt_tokens=n_tokens * _REQUESTS))
            yield _Saving(endpoint=endpoint.name, tier=tier.value, usd=usd)


def _show(session: Session, target: Path, found: tuple[Classifier, int, int], savings: list[_Saving]) -> None:
    classifier, before, after = found
    base = session.project / "prompts"
    compare = f"semtel-batch compare prompts={base} prompts={target.parent} -c {classifier.name} --data DATA"
    if session.console.options.json:
        session.console.show_json(
            {
                "classifier": classifier.name,
                "file": str(target),
                "tokens_before": before,
                "tokens_after": after,
                "saves_per_1000_requests": [
                    {"endpoint": one.endpoint, "tier": one.tier, "usd": str(one.usd)} for one in savings
                ],
                "compare": compare,
            }
        )
        return
    say = session.console.show_text
    say(f"{target}: {before:,} tokens a request besides the conversations become {after:,} ({share(after / before)}).")
    for one in savings:
        say(f"{_REQUESTS:,} requests at {one.endpoint} ({one.tier}) cost ${one.usd:.4f} less.")
    say("Less where the provider has the prompt in its cache.")
    say("Nothing uses this file yet. Read it, then hold it against the prompt as it is:")
    say(f"  {compare}")
