"""`[endpoint.rules]`: what a model takes, where its family doesn't say so; a new model needs no code."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]

_FIELDS = {
    "token_cap": "token_cap_param",
    "logprobs": "max_top_logprobs",
    "json_schema": "supports_schema",
    "reasoning_tokens": "reasoning_reserve",
}


class Rules(BaseModel):
    """What an endpoint takes. false: it is not sent; left out: as its model's family says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    token_cap: Literal["max_tokens", "max_completion_tokens"] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max", False] | None = None
    reasoning_tokens: Annotated[int, Field(ge=0, le=100_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, strict=True)] | Literal[False] | None = None
    logprobs: Annotated[int, Field(ge=1, le=20, strict=True)] | Literal[False] | None = None
    json_schema: bool | None = None
    context_window: Positive | None = None
    max_output_tokens: Positive | None = None


def family_fields(rules: Rules | None) -> tuple[tuple[str, str | bool | int | float | None], ...]:
    """The rules as fields of `families.Family`; None there for what is not sent."""
    told = {} if rules is None else {key: value for key, value in rules.model_dump().items() if value is not None}
    not_sent = {key for key, value in told.items() if value is False and key != "json_schema"}
    fields = {_FIELDS.get(key, key): None if key in not_sent else value for key, value in told.items()}
    return tuple(sorted(fields.items()))
