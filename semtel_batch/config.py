"""semtel.toml and the environment → Settings. Secrets appear only as names of variables."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from semtel_batch.conversations import Columns
from semtel_batch.endpoint_rules import Rules, family_fields
from semtel_batch.errors import BadConfig
from semtel_batch.families import OPENAI_URL, family_with, is_openai
from semtel_batch.keys import Commands, printed_by
from semtel_batch.network_plan import Embedding
from semtel_batch.pseudonyms import SALT_BYTES, IdHash
from semtel_batch.records import (
    AnswerFormat,
    Compressing,
    Endpoint,
    EndpointKind,
    PriceOverride,
    Tier,
    TierOverride,
)
from semtel_batch.resources import read_small

FILE = "semtel.toml"
DEFAULT_MODEL = "gpt-6-luna"

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d)\s*")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
_LONGEST = 1e6  # of any unit: what is longer is a slip, and no date can be reckoned from it
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a command takes where its options are left out."""

    classifiers: tuple[str, ...] = ()
    deadline_s: float | None = None
    budget_usd: Decimal | None = None
    min_agreement: float | None = None
    max_attempts: int = 4
    confirm_over_usd: Decimal = Decimal(0)  # `run` asks before it may spend more


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """After how many seconds from a plan's end `purge --expired` deletes; None: never."""

    texts_s: float | None = None
    labels_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A project: where it is, whom it may ask, and what its user prefers."""

    project: Path
    endpoints: tuple[Endpoint, ...]
    columns: Columns
    defaults: Defaults
    retention: Retention = Retention()
    embedding: Embedding = field(default_factory=Embedding)
    compress: Compressing = field(default_factory=Compressing)
    hash_ids: IdHash | None = None  # None: ids are kept as they are
    key_commands: Commands = field(default_factory=dict)  # argument by argument, by endpoint
    other_prompts: Path | None = None  # a folder that stands in for the project's own

    @property
    def prompts(self) -> Path:
        return self.other_prompts or self.project / "prompts"

    @property
    def strategies(self) -> Path:
        return self.project / "strategies"


def load(project: Path, environ: Mapping[str, str]) -> Settings:
    """Read a project's settings; without a semtel.toml, or without endpoints in it, the environment makes one."""
    path = project / FILE
    document = _File.model_validate({}) if not path.exists() else _read(path)
    endpoints = tuple(_endpoint(entry, path) for entry in document.endpoint) or _from_environment(environ)
    names = [endpoint.name for endpoint in endpoints]
    if len(set(names)) != len(names):
        raise BadConfig(f"{path}: two endpoints have the same name; give each [[endpoint]] a name of its own.")
    return Settings(
        project=project,
        endpoints=endpoints,
        columns=document.columns,
        defaults=_defaults(document),
        retention=Retention(texts_s=document.retention.texts, labels_s=document.retention.labels),
        embedding=document.embedding,
        compress=document.compress,
        hash_ids=_hash_ids(document.privacy, project, environ),
        key_commands={entry.name: entry.api_key_cmd for entry in document.endpoint if entry.api_key_cmd},
    )


def parse_duration(text: str) -> float:
    """Seconds of a text such as "24h", "90m", "1.5d"; BadConfig for anything else."""
    match = _DURATION.fullmatch(text)
    if match is None or not 0 < float(match[1]) <= _LONGEST:
        raise BadConfig(f"{text!r} is not a duration; write a number and a unit, such as 24h, 90m or 2d.")
    return float(match[1]) * _SECONDS[match[2]]


def parse_usd(text: str) -> Decimal:
    """A positive amount of US dollars; BadConfig for anything else."""
    try:
        amount = Decimal(text.strip().removeprefix("$"))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise BadConfig(f"{text!r} is not an amount of US dollars; write a number such as 12.50.")
    return amount


def _from_environment(environ: Mapping[str, str]) -> tuple[Endpoint, ...]:
    """`OPENAI_API_KEY` with `OPENAI_BASE_URL`, the variables that the SDK knows, make one endpoint."""
    if not environ.get("OPENAI_API_KEY"):
        return ()
    url = environ.get("OPENAI_BASE_URL") or OPENAI_URL
    _check_url(url, "OPENAI_BASE_URL")
    model, key = environ.get("SEMTEL_MODEL") or DEFAULT_MODEL, "OPENAI_API_KEY"
    kind = EndpointKind.OPENAI
    made = Endpoint(name="openai", kind=kind, base_url=url.rstrip("/"), model=model, api_key_env=key)
    return (_with_flex(made),)


def _hash_ids(privacy: _Privacy, project: Path, environ: Mapping[str, str]) -> IdHash | None:
    """What makes pseudonyms of ids; its salt comes from a file outside the project, or from the environment."""
    if not privacy.hash_ids:
        return None
    where = f"the file {privacy.salt_file}" if privacy.salt_file else f"the variable {privacy.salt_env}"
    if privacy.salt_file:
        salt = _salt_in((project / Path(privacy.salt_file).expanduser()).resolve(), project.resolve())
    else:
        salt = environ.get(privacy.salt_env, "").strip().encode()
    least, most = SALT_BYTES
    if not least <= len(salt) <= most:
        raise BadConfig(
            f"[privacy] hash_ids takes its salt from {where}, which holds {len(salt)} bytes; put {least} to {most} "
            'random ones there, for example of: python -c "import secrets; print(secrets.token_hex())"'
        )
    return IdHash(salt=salt)


def _salt_in(path: Path, project: Path) -> bytes:
    if path.is_relative_to(project):
        raise BadConfig(f"[privacy] salt_file {path} lies in the project, beside what it protects; keep it elsewhere.")
    try:
        return read_small(path).strip().encode()
    except (OSError, ValueError) as error:
        raise BadConfig(f"[privacy] salt_file {path} can't be read ({error}); check it.") from error


def _duration(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


def _arguments(value: Any) -> Any:
    return shlex.split(value) if isinstance(value, str) else value


def _money(value: Any) -> Any:
    return str(value) if isinstance(value, float) else value


Usd = Annotated[Decimal, BeforeValidator(_money), Field(ge=0)]
Seconds = Annotated[float, BeforeValidator(_duration), Field(gt=0, le=_LONGEST * 86_400)]
Positive = Annotated[int, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _TierPrice(_Section):
    input_usd: Usd
    output_usd: Usd
    cached_usd: Usd | None = None
    cache_write_usd: Usd | None = None


class _Price(_Section):
    input_usd: Usd
    output_usd: Usd
    cached_usd: Usd | None = None
    cache_write_usd: Usd | None = None
    tiers: dict[Tier, _TierPrice] = {}
    batch_input_usd: Usd | None = None
    batch_output_usd: Usd | None = None


class _Endpoint(_Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    kind: EndpointKind
    base_url: str | None = None
    model: str | None = None
    deployment: str | None = None
    model_family: str | None = None
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    api_key_cmd: Annotated[tuple[str, ...], BeforeValidator(_arguments), Field(min_length=1)] | None = None
    allow_http: bool = False
    rpm: Positive | None = None
    tpm: Positive | None = None
    enqueued_tokens: Positive | None = None
    tiers: tuple[Tier, ...] | None = None
    concurrency: Annotated[int, Field(gt=0, le=10_000)] = 256
    timeout: Seconds = 120.0
    answer_format: AnswerFormat = AnswerFormat.JSON_SCHEMA
    encoding: str | None = None
    price: _Price | None = None
    rules: Rules | None = None
    data_zone: bool = False


class _Defaults(_Section):
    classifiers: tuple[str, ...] = ()
    deadline: Seconds | None = None
    budget_usd: Usd | None = None
    min_agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 4
    confirm_over_usd: Usd = Decimal(0)


class _Retention(_Section):
    texts: Seconds | None = None
    labels: Seconds | None = None


class _Privacy(_Section):
    hash_ids: bool = False
    salt_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "SEMTEL_ID_SALT"
    salt_file: str | None = None


class _File(_Section):
    endpoint: tuple[_Endpoint, ...] = ()
    columns: Columns = Columns()
    defaults: _Defaults = _Defaults()
    retention: _Retention = _Retention()
    privacy: _Privacy = _Privacy()
    compress: Compressing = Compressing()
    embedding: Embedding = Embedding()


def _read(path: Path) -> _File:
    try:
        return _File.model_validate(_document(path))
    except BadConfig as error:  # of a value that our own functions read, such as a duration
        raise BadConfig(f"{path}: {error}") from error
    except ValidationError as error:
        # Never what was written there: it may be a key in the wrong place.
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        what = _ADVICE.get(str(first["loc"][-1])) or _ADVICE.get(first["type"]) or f"{first['msg']}; correct it"
        raise BadConfig(f"{path}: {_place(first['loc'])}: {what}.") from error


def _document(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_small(path))
    except OSError as error:
        raise BadConfig(f"{path} can't be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # tomllib lets through what int() and the stack refuse
        raise BadConfig(f"{path} is not valid TOML: {error}.") from error


_ADVICE = {
    "extra_forbidden": "no such key; `semtel-batch init` in an empty folder writes a semtel.toml with all of them",
    "missing": "it is missing; add it",
    "api_key_env": "it must be the name of an environment variable that holds the key, never the key itself",
    "salt_env": "it must be the name of an environment variable that holds the salt, never the salt itself",
    "api_key_cmd": 'it must be a program and its arguments, such as ["pass", "show", "openai"]',
}


def _place(location: tuple[int | str, ...]) -> str:
    """`endpoint.0.rpm` as a person would say it: [[endpoint]] number 1, rpm."""
    words = [f"number {part + 1}" if isinstance(part, int) else str(part) for part in location]
    return " → ".join(words) or "the file"


def _endpoint(entry: _Endpoint, path: Path) -> Endpoint:
    where = f"{path}: endpoint {entry.name!r}"
    model = entry.deployment or entry.model
    if model is None:
        raise BadConfig(f'{where} names no model; add: model = "{DEFAULT_MODEL}" (on Azure: deployment = "…").')
    url = entry.base_url or (OPENAI_URL if entry.kind is EndpointKind.OPENAI else None)
    if url is None:
        raise BadConfig(f"{where} needs a base_url, such as https://NAME.openai.azure.com/openai/v1.")
    _check_url(url, where, allow_http=entry.allow_http)
    if entry.api_key_env and entry.api_key_cmd:
        raise BadConfig(f"{where} has api_key_env and api_key_cmd; leave one of them out.")
    made = Endpoint(
        name=entry.name,
        kind=entry.kind,
        base_url=url.rstrip("/"),
        model=model,
        model_family=entry.model_family or (entry.model if entry.deployment else None),
        api_key_env=printed_by(entry.name) if entry.api_key_cmd else entry.api_key_env or _default_key(entry.kind),
        rpm=entry.rpm,
        tpm=entry.tpm,
        enqueued_tokens=entry.enqueued_tokens,
        tiers=_tiers(entry, where),
        concurrency=entry.concurrency,
        timeout_s=entry.timeout,
        answer_format=entry.answer_format,
        encoding=entry.encoding,
        rules=family_fields(entry.rules),
        price=_price(entry.price) if entry.price else None,
        data_zone=_data_zone(entry, where),
        allow_http=entry.allow_http,
    )
    return _with_flex(made) if entry.tiers is None else made


def _price(price: _Price) -> PriceOverride:
    named = tuple(TierOverride(tier=tier, **one.model_dump()) for tier, one in price.tiers.items())
    return PriceOverride(**price.model_dump(exclude={"tiers"}), tiers=named)


def _data_zone(entry: _Endpoint, where: str) -> bool:
    if entry.data_zone and entry.kind is not EndpointKind.AZURE:
        raise BadConfig(f"{where}: data_zone is a deployment type of Azure; take it out.")
    return entry.data_zone


def _default_key(kind: EndpointKind) -> str | None:
    return {EndpointKind.OPENAI: "OPENAI_API_KEY", EndpointKind.AZURE: "AZURE_OPENAI_API_KEY"}.get(kind)


_SERVED = {
    EndpointKind.OPENAI: tuple(Tier),
    EndpointKind.AZURE: (Tier.REALTIME, Tier.BATCH, Tier.FLEX),
    EndpointKind.COMPATIBLE: (Tier.REALTIME, Tier.BATCH),
}


def _with_flex(endpoint: Endpoint) -> Endpoint:
    """With flex, where OpenAI itself serves it for the model: the same request at half the price."""
    has_flex = is_openai(endpoint.kind, endpoint.base_url) and family_with(endpoint.priced_as, endpoint.rules).flex
    return replace(endpoint, tiers=(*endpoint.tiers, Tier.FLEX)) if has_flex else endpoint


def _tiers(entry: _Endpoint, where: str) -> tuple[Tier, ...]:
    """A self-hosted server has no Batch API unless its user says so."""
    default = (Tier.REALTIME,) if entry.kind is EndpointKind.COMPATIBLE else (Tier.REALTIME, Tier.BATCH)
    tiers = default if entry.tiers is None else entry.tiers
    served = _SERVED[entry.kind]
    unknown = [tier for tier in tiers if tier not in served]
    if unknown or not tiers:
        named = ", ".join(unknown) or "none"
        raise BadConfig(f"{where}: tiers {named} can't be run; kind {entry.kind} serves {', '.join(served)}.")
    return tuple(dict.fromkeys(tiers))


def _check_url(url: str, where: str, *, allow_http: bool = False) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise BadConfig(
            f"{where}: base_url {url!r} is not an address ({error}); write for example {OPENAI_URL}."
        ) from error
    if "@" in url:  # before anything that repeats the address
        raise BadConfig(f"{where}: base_url holds a password; put the key in a variable and name it in api_key_env.")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadConfig(f"{where}: base_url {url!r} is not an http(s) address; write for example {OPENAI_URL}.")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK and not allow_http:
        raise BadConfig(
            f"{where}: base_url {url!r} would send conversations and key unencrypted; use https, or where the way "
            "there is safe, write allow_http = true under this [[endpoint]]."
        )


def _defaults(document: _File) -> Defaults:
    d = document.defaults
    return Defaults(
        classifiers=d.classifiers,
        deadline_s=d.deadline,
        budget_usd=d.budget_usd,
        min_agreement=d.min_agreement,
        max_attempts=d.max_attempts,
        confirm_over_usd=d.confirm_over_usd,
    )
