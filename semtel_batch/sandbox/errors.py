"""The sandbox's refusals: status and error body as the real API words them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """An answer other than 200: status, the `error` object, and headers beside it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        type_: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error: dict[str, Any] = {"message": message, "type": type_, "param": param, "code": code}
        self.headers = dict(headers or {})

    def reworded(self, message: str) -> ApiError:
        """The same refusal with another message."""
        self.error["message"] = message
        return self

    @property
    def body(self) -> dict[str, Any]:
        return {"error": self.error}


def bad_request(message: str, *, param: str | None = None, code: str | None = None) -> ApiError:
    """400 invalid_request_error."""
    return ApiError(400, message, param=param, code=code)


def missing(param: str) -> ApiError:
    return bad_request(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def no_room_for_flex() -> ApiError:
    """429 Resource Unavailable: flex has no room for it now, and nothing is billed."""
    message = "Resource Unavailable. There is no capacity for flex processing now; try again later."
    return ApiError(429, message, code="resource_unavailable", type_="resource_unavailable")


def wrong_type(param: str, expected: str, value: Any) -> ApiError:
    message = f"Invalid type for '{param}': expected {expected}, but got {kind_of(value)} instead."
    return bad_request(message, param=param, code="invalid_type")


def wrong_value(param: str, value: Any, supported: tuple[str, ...]) -> ApiError:
    quoted = [f"'{name}'" for name in supported]
    names = quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + f", and {quoted[-1]}"
    message = f"Invalid value: '{value}'. Supported values are: {names}."
    return bad_request(message, param=param, code="invalid_value")


def unsupported_value(param: str, message: str) -> ApiError:
    return bad_request(message, param=param, code="unsupported_value")


def model_not_found(model: str) -> ApiError:
    message = f"The model `{model}` does not exist or you do not have access to it."
    return ApiError(404, message, code="model_not_found")


def deployment_not_found() -> ApiError:
    message = (
        "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, "
        "please wait a moment and try again."
    )
    error = ApiError(404, message, code="DeploymentNotFound")
    error.error = {"code": "DeploymentNotFound", "message": message}
    return error


def no_such_file(file_id: str) -> ApiError:
    return ApiError(404, f"No such File object: {file_id}", param="id")


def no_such_batch(batch_id: str) -> ApiError:
    return ApiError(404, f"No batch found with id '{batch_id}'.")


def missing_key() -> ApiError:
    message = (
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
        "(i.e. Authorization: Bearer YOUR_KEY), or as the password field (with blank username) if you're accessing the "
        "API from your browser and are prompted for a username and password. You can obtain an API key from "
        "https://platform.openai.com/account/api-keys."
    )
    return ApiError(401, message)


def wrong_key(key: str) -> ApiError:
    message = (
        f"Incorrect API key provided: {_masked(key)}. You can find your API key at "
        "https://platform.openai.com/account/api-keys."
    )
    return ApiError(401, message, code="invalid_api_key")


def wrong_azure_key() -> ApiError:
    message = (
        "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
        "active subscription and use a correct regional API endpoint for your resource."
    )
    error = ApiError(401, message)
    error.error = {"code": "401", "message": message}
    return error


def _masked(key: str) -> str:
    """The ends of a key with stars between, as the real refusal shows it."""
    if len(key) <= 12:
        return key[:2] + "*" * max(len(key) - 2, 1)
    return key[:8] + "*" * (len(key) - 12) + key[-4:]


def kind_of(value: Any) -> str:
    """A JSON value's kind in the API's words."""
    if value is None:
        return "null"
    kinds = {bool: "a boolean", int: "an integer", float: "a decimal", str: "a string", dict: "an object"}
    if isinstance(value, list):
        return "an array" if value else "an empty array"
    return kinds.get(type(value), "an unknown value")
