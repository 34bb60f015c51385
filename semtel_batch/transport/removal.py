"""Delete from an endpoint what batches left there: input, output and error files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from semtel_batch.errors import EndpointError
from semtel_batch.records import Endpoint, Receipt
from semtel_batch.transport.connection import connection
from semtel_batch.transport.verdicts import judge, stopping_error, stops

if TYPE_CHECKING:
    from semtel_batch.transport.batch_api import BatchApi

_FILES = ("input_file_id", "output_file_id", "error_file_id")


def remove_files(endpoint: Endpoint, receipts: Iterable[Receipt], prefix: str, environ: Mapping[str, str]) -> int:
    """Delete the files of these submissions, and any whose name begins with `prefix`: an upload nobody wrote down.

    Returns how many; one that is gone already counts. Raises EndpointError at the first that can't be deleted.
    """
    # The SDK takes most of a second to import, and only this command needs it.
    from semtel_batch.transport.batch_api import BatchApi, CallFailed

    reached = connection(endpoint, environ)
    with closing(BatchApi(reached)) as api:
        try:
            found = {file_id for receipt in receipts for file_id in _files_of(api, receipt)}
            found |= {str(file["id"]) for page in api.file_pages() for file in page if _is_ours(file, prefix)}
            for file_id in sorted(found):
                api.delete_file(file_id)
        except CallFailed as failure:
            verdict = judge(failure.status_code, failure.error)
            if stops(verdict):
                raise stopping_error(
                    verdict,
                    endpoint=reached.endpoint,
                    model=reached.model,
                    key_env=reached.key_env,
                    base_url=reached.base_url,
                ) from None
            said = f"status {failure.status_code}" if failure.status_code else "no connection"
            raise EndpointError(
                f"Endpoint '{endpoint.name}' did not delete a file ({said}); nothing was deleted here: run it again, "
                "or with --local to leave the provider's files to expire."
            ) from None
    return len(found)


def _files_of(api: BatchApi, receipt: Receipt) -> Iterator[str]:
    """The file that was uploaded, and what the batch made of it; a batch that is gone has nothing more to tell."""
    from semtel_batch.transport.batch_api import CallFailed  # as above

    if receipt.input_file_id:
        yield receipt.input_file_id
    if not receipt.batch_id:
        return
    try:
        batch = api.batch(receipt.batch_id)
    except CallFailed as failure:
        if failure.status_code != 404:
            raise
        return
    yield from (str(batch[name]) for name in _FILES if batch.get(name))  # Azure says "" for none


def _is_ours(file: Mapping[str, Any], prefix: str) -> bool:
    return bool(file.get("id")) and str(file.get("filename", "")).startswith(prefix)
