"""What a batch's input file must be: every line looked at once, the faults of several lines told together."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from semtel_batch.sandbox.counting import Counter, countable, schema_text
from semtel_batch.sandbox.families import undated
from semtel_batch.sandbox.settings import Settings

_MAX_ERRORS = 50
_STEP = 256
_MAX_EMBEDDING_INPUTS = 50_000

Problem = dict[str, Any]


@dataclass(slots=True)
class Inspected:
    """What was found in a file: where each line lies, its model, the tokens it will enqueue, what is wrong."""

    offsets: array[int] = field(default_factory=lambda: array("Q"))
    model: str | None = None
    tokens: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def n_requests(self) -> int:
        return len(self.offsets)


def problem(code: str, message: str, *, param: str | None = None, line: int | None = None) -> Problem:
    """One entry of a batch's `errors.data`."""
    return {"code": code, "message": message, "param": param, "line": line}


class Inspector:
    """Reads a file in steps, so that the loop that runs it can breathe between them."""

    def __init__(self, path: Path, endpoint: str, settings: Settings, counter: Counter) -> None:
        self._path, self._endpoint, self._settings, self._counter = path, endpoint, settings, counter
        self._custom_ids: set[str] = set()
        self._n_inputs = 0
        self.found = Inspected()

    def steps(self) -> Iterator[None]:
        """Inspect the file; yields after each few hundred lines."""
        pending: list[tuple[dict[str, Any], str]] = []
        offset = 0
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    self.found.offsets.append(offset)
                    body = self._line(number, line)
                    if body is not None:
                        pending.append((body, self.found.model or ""))
                offset += len(line)
                if len(pending) >= _STEP:
                    self._count(pending)
                    pending.clear()
                    yield
        self._count(pending)
        self._whole_file()

    def _count(self, pending: list[tuple[dict[str, Any], str]]) -> None:
        if self._settings.enqueued_tokens is None or not pending:
            return
        chats = [(body, model) for body, model in pending if countable(body)]
        schemas = [schema_text(body) if self._settings.schema_tokens else "" for body, _ in chats]
        counts = self._counter.prompts([body for body, _ in chats], [model for _, model in chats], schemas)
        texts = [text for body, _ in pending if "input" in body for text in _inputs(body)]
        self.found.tokens += sum(counts) + sum(self._counter.count(texts))

    def _add(self, code: str, message: str, *, param: str | None = None, line: int | None = None) -> None:
        if len(self.found.problems) < _MAX_ERRORS:
            self.found.problems.append(problem(code, message, param=param, line=line))

    def _whole_file(self) -> None:
        azure = self._settings.dress == "azure"
        cap = self._settings.max_batch_requests or (100_000 if azure else 50_000)
        if not self.found.n_requests:
            self._add(
                "empty_file", "The input file is empty. Please ensure that the batch contains at least one request."
            )
        elif self.found.n_requests > cap:
            code = "too_many_tasks" if azure else "too_many_requests"
            self._add(code, f"The batch contains {self.found.n_requests} requests, more than the maximum of {cap}.")
        if self._n_inputs > _MAX_EMBEDDING_INPUTS:
            message = f"The batch contains {self._n_inputs} embedding inputs, more than the maximum of 50000."
            self._add("too_many_requests", message)

    def _line(self, number: int, line: bytes) -> dict[str, Any] | None:
        """Check one line; its body if that can be counted."""
        if number == 1 and line.startswith(b"\xef\xbb\xbf") and self._settings.dress == "azure":
            message = "A valid model deployment name couldn't be extracted from the input file."
            self._add("invalid_request", message, line=1)
            return None
        try:
            request = orjson.loads(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
        except orjson.JSONDecodeError:
            request = None
        if not isinstance(request, dict):
            self._add("invalid_json_line", "This line is not parseable as valid JSON.", line=number)
            return None
        for name in ("custom_id", "method", "url", "body"):
            if request.get(name) in (None, ""):
                message = f"Missing required parameter: '{name}'."
                self._add("missing_required_parameter", message, param=name, line=number)
                return None
        return self._request(number, request)

    def _request(self, number: int, request: dict[str, Any]) -> dict[str, Any] | None:
        self._custom_id(number, request["custom_id"])
        if request["method"] != "POST":
            message = f"Invalid value: '{request['method']}'. Supported values are: 'POST'."
            self._add("invalid_method", message, param="method", line=number)
        self._url(number, request["url"])
        body = request["body"]
        if not isinstance(body, dict):
            self._add("invalid_type", "Invalid type for 'body': expected an object.", param="body", line=number)
            return None
        return self._body(number, body)

    def _custom_id(self, number: int, custom_id: Any) -> None:
        if not isinstance(custom_id, str):
            self._add(
                "invalid_type", "Invalid type for 'custom_id': expected a string.", param="custom_id", line=number
            )
        elif custom_id in self._custom_ids:
            message = f"The custom_id '{custom_id}' for this request is a duplicate of another request in the batch."
            self._add("duplicate_custom_id", message, param="custom_id", line=number)
        else:
            self._custom_ids.add(custom_id)

    def _url(self, number: int, url: Any) -> None:
        if without_version(url) != without_version(self._endpoint):
            azure = self._settings.dress == "azure"
            message = "The URL provided for this request does not match the batch endpoint."
            self._add("url_mismatch" if azure else "invalid_url", message, param="url", line=number)

    def _body(self, number: int, body: dict[str, Any]) -> dict[str, Any] | None:
        needed = "input" if self._endpoint.endswith("embeddings") else "messages"
        if not body.get("model"):
            self._add("invalid_request", "Model parameter is required.", param="body.model", line=number)
        elif not self._model(number, body["model"]):
            return None
        if body.get(needed) is None:
            message = f"Missing required parameter: '{needed}'."
            self._add("missing_required_parameter", message, param=f"body.{needed}", line=number)
            return None
        if body.get("stream"):
            message = "Chat Completions: Streaming is not supported in the Batch API."
            self._add("streaming_unsupported", message, param="body.stream", line=number)
        self._n_inputs += len(_inputs(body)) if needed == "input" else 0
        return body

    def _model(self, number: int, name: Any) -> bool:
        if not self._serves(name):
            message = f"The provided model '{name}' is not supported by the Batch API."
            self._add("model_not_found", message, param="body.model", line=number)
            return False
        model = self._settings.deployments.get(name, name)
        if self.found.model is None:
            self.found.model = model
        elif model != self.found.model:
            azure = self._settings.dress == "azure"
            message = (
                f"The provided model '{name}' is not the same as the one in the first line, '{self.found.model}'. "
                "A batch can only have requests to a single model."
            )
            self._add("model_mismatch" if azure else "mismatched_model", message, param="body.model", line=number)
        return True

    def _serves(self, name: Any) -> bool:
        if not isinstance(name, str):
            return False
        if self._settings.deployments:
            return name in self._settings.deployments
        return name in self._settings.models or undated(name) in self._settings.models


def without_version(url: Any) -> str:
    """A path without /v1, since Azure takes both."""
    return str(url).removeprefix("/v1")


def _inputs(body: dict[str, Any]) -> list[str]:
    given = body.get("input")
    return [given] if isinstance(given, str) else [t for t in given or () if isinstance(t, str)]
