"""What stands on each side of a comparison that asks: `model=NAME`, `prompts=DIR`, both, or a plan."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from semtel_batch import classifiers
from semtel_batch.config import Settings
from semtel_batch.errors import BadConfig, BadInput
from semtel_batch.plans import Plan
from semtel_batch.records import Endpoint
from semtel_batch.store import Store

_KNOWN = ("model", "prompts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side: the settings to plan with, and what it is called."""

    name: str
    settings: Settings


def is_plan(text: str) -> bool:
    return "=" not in text


def crossed(sides: Sequence[str]) -> tuple[str, ...]:
    """Give every model with every prompt folder named, the first of each first; a side may name only one of them."""
    fields = [_fields(side) for side in sides]
    axes = [list(dict.fromkeys(f[kind] for f in fields if kind in f)) for kind in _KNOWN]
    if any(len(f) > 1 for f in fields) or not all(axes):
        raise BadInput("--grid crosses models and prompts: give some model=NAME and some prompts=DIR, each alone.")
    return tuple(f"model={model},prompts={prompts}" for model, prompts in itertools.product(*axes))


def find_side(store: Store | None, settings: Settings, text: str) -> Side:
    """Read a side. Raises BadInput for what names no endpoint, folder or plan."""
    if is_plan(text):
        if store is None:
            raise BadInput(f"{text!r} is no side: write model=NAME or prompts=DIR; there is no plan here yet.")
        return Side(name=text, settings=_as_planned(settings, store.plan(text)))
    fields = _fields(text)
    if "model" in fields:
        settings = replace(settings, endpoints=(_endpoint(settings, fields["model"]),))
    if "prompts" in fields:
        settings = replace(settings, other_prompts=_folder(fields["prompts"]))
    return Side(name=text, settings=replace(settings, endpoints=settings.endpoints[:1]))


def _fields(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    if any(name not in _KNOWN or not value for name, _, value in pairs) or len({p[0] for p in pairs}) < len(pairs):
        raise BadInput(f"{text!r} is no side: write a plan's id, model=NAME, prompts=DIR, or model=NAME,prompts=DIR.")
    return {name: value for name, _, value in pairs}


def _endpoint(settings: Settings, name: str) -> Endpoint:
    """An endpoint of that name or model; else the first one, asked for that model."""
    if not settings.endpoints:
        raise BadConfig("No endpoint is configured: add an [[endpoint]] to semtel.toml, or set OPENAI_API_KEY.")
    for endpoint in settings.endpoints:
        if name in (endpoint.name, endpoint.model):
            return endpoint
    return replace(settings.endpoints[0], name=f"{settings.endpoints[0].name}-{name}", model=name, model_family=None)


def _folder(text: str) -> Path:
    path = Path(text)
    if path.suffix == ".prompty" and path.is_file():
        return path.parent
    if not path.is_dir():
        raise BadInput(f"prompts={text} is neither a folder nor a .prompty file; name the folder of the variant.")
    return path


def _as_planned(settings: Settings, plan: Plan) -> Settings:
    """The settings as a plan had them: its endpoint, and prompts that have not changed since."""
    names = [c.name for c in plan.classifiers]
    now = {c.name: c.version for c in classifiers.find(names, settings.prompts)}
    if changed := [c.name for c in plan.classifiers if now[c.name] != c.version]:
        raise BadInput(
            f"Prompt {changed[0]!r} has changed since plan {plan.id}: its labels can't be had again; "
            "compare the new plan with it over the same data, or name the old prompts with prompts=DIR."
        )
    return replace(settings, endpoints=(plan.endpoint(plan.legs[0].endpoint),))
