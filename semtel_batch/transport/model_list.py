"""Ask an endpoint which models it has, to tell a user early that the key or the model's name is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import date

from semtel_batch.errors import EndpointError
from semtel_batch.records import Endpoint, EndpointKind
from semtel_batch.transport.connection import Connection, connection
from semtel_batch.transport.verdicts import judge, stopping_error, stops


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelList:
    """That an endpoint answers and has its model, in words, and the day on which it shuts it down."""

    said: str
    shuts_down_on: date | None


def look_up_models(endpoint: Endpoint, environ: Mapping[str, str]) -> ModelList:
    """Ask whether the endpoint answers and has the model; EndpointError says what is wrong otherwise."""
    # The SDK takes most of a second to import, and only this one check of a `doctor` needs it.
    from semtel_batch.transport.batch_api import BatchApi, CallFailed

    reached = connection(endpoint, environ)
    with closing(BatchApi(reached)) as api:
        try:
            models = api.models()
        except CallFailed as failure:
            raise _why(reached, failure) from failure
    names = {str(model.get("id")): model.get("shutdown_date") for model in models}
    # An Azure resource lists what could be deployed, not what is: only a request tells.
    if endpoint.model not in names and endpoint.kind is not EndpointKind.AZURE:
        raise EndpointError(
            f"{reached.base_url} answers, but does not list model '{endpoint.model}'; "
            f"it has {', '.join(sorted(names)[:8]) or 'none'}."
        )
    until = _day(names.get(endpoint.model))
    told = f"; it shuts '{endpoint.model}' down on {until}" if until else ""
    return ModelList(said=f"{reached.base_url} answers{told}", shuts_down_on=until)


def _day(text: object) -> date | None:
    """A day as the list writes it; None for none, and for what is none."""
    try:
        return date.fromisoformat(str(text)) if text else None
    except ValueError:
        return None


def _why(reached: Connection, failure: Exception) -> EndpointError:
    from semtel_batch.transport.batch_api import CallFailed  # as above

    assert isinstance(failure, CallFailed)
    verdict = judge(failure.status_code, failure.error)
    if stops(verdict):
        return stopping_error(
            verdict,
            endpoint=reached.endpoint,
            model=reached.model,
            key_env=reached.key_env,
            base_url=reached.base_url,
        )
    said = f"status {failure.status_code}" if failure.status_code else "no connection"
    return EndpointError(f"{reached.base_url} does not answer as it should ({said}); check base_url and the network.")
