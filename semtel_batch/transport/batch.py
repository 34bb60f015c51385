"""The Batch API: half the price, up to 24 hours, and one rule above all: a shard is never paid twice.

The API knows no idempotency key. So the shard's key stands in the file's name and in the batch's metadata, and
before anything is sent, and again after every call that may or may not have been carried out (no reply, a 5xx, a
409), the account's own lists are read and what is ours is adopted.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Iterator, Set
from itertools import count, islice
from pathlib import Path

from semtel_batch.crashpoints import reach
from semtel_batch.errors import EndpointError, Incomplete
from semtel_batch.parts import being_written, settle
from semtel_batch.records import Answer, BatchState, Event, Outcome, Pace, Progress, Receipt, Shard
from semtel_batch.transport.batch_api import BatchApi, CallFailed, Object
from semtel_batch.transport.batch_ledger import Ledger
from semtel_batch.transport.batch_objects import (
    choose,
    is_upload_of,
    key_of,
    name_of,
    progress_of,
    rest_outcome,
    result_files,
)
from semtel_batch.transport.connection import Connection
from semtel_batch.transport.protocol import EnqueuedFull, Note
from semtel_batch.transport.replies import ProviderError
from semtel_batch.transport.results import check_off, is_whole, lines_of
from semtel_batch.transport.retrying import Retrying
from semtel_batch.transport.shardfile import custom_ids, request_url
from semtel_batch.transport.verdicts import Patience

log = logging.getLogger("semtel_batch.transport")

_GROUP_SIZE = 5_000  # answers, written down in one transaction
_CUT = ProviderError(code="cut_download")
# A file just uploaded may be unknown to the next call for a moment. The 400 for that names the file, or nothing.
_FILE_PARAMS = frozenset({None, "file_id", "input_file_id"})


class BatchTransport:
    """Hands shards over as batches and reads their result files."""

    def __init__(
        self,
        connection: Connection,
        *,
        seed: int = 0,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        patience: Patience | None = None,
    ) -> None:
        self._connection = connection
        self._api = BatchApi(connection)
        self._retrying = Retrying(connection, seed=seed, sleep=sleep, patience=patience)
        self._batches = Ledger(self._api.batch_pages, key_of, now)
        self._files = Ledger(self._api.file_pages, name_of, now)

    def submit(self, shard: Shard, receipt: Receipt, note: Note) -> Receipt:
        if receipt.batch_id:
            return receipt
        file_id = receipt.input_file_id
        batch = self._found(shard)
        if batch is None and file_id:  # a process that died after its upload may have created it: the list may lag
            batch = self._looked_for(shard)
        if batch is None:
            file_id = self._noted_file(file_id) or self._uploaded(shard, note)
            batch = self._created(shard, file_id)
        receipt = Receipt(input_file_id=batch.get("input_file_id") or file_id, batch_id=str(batch["id"]))
        note(receipt)
        reach("batch.noted")
        return receipt

    def poll(self, shard: Shard, receipt: Receipt) -> Progress:
        return progress_of(self._batch(shard, receipt))

    def answers(self, shard: Shard, receipt: Receipt, done: Collection[str]) -> Iterator[list[Answer]]:
        batch = self._batch(shard, receipt)
        progress = progress_of(batch)
        if progress.state is not BatchState.READY:
            raise Incomplete(f"Batch {receipt.batch_id} of shard {shard.key} is {progress.status}; collect it later.")
        paths = [self._downloaded(shard, file_id) for file_id in result_files(batch)]
        rest = Outcome.MISSING if None in paths else rest_outcome(batch)
        known = done if isinstance(done, Set) else frozenset(done)
        owed = (custom_id for custom_id in custom_ids(shard.path) if custom_id not in known)
        answers = check_off(lines_of(path for path in paths if path), owed, rest, known)
        while group := list(islice(answers, _GROUP_SIZE)):
            yield group

    def cancel(self, shard: Shard, receipt: Receipt) -> None:
        batch_id = receipt.batch_id
        if not batch_id and (found := self._found(shard)):
            batch_id = str(found["id"])
        if batch_id:
            self._cancel(batch_id)

    def paces(self) -> tuple[Pace, ...]:
        return ()

    def events(self) -> tuple[Event, ...]:
        return ()

    def close(self) -> None:
        self._api.close()

    def _found(self, shard: Shard) -> Object | None:
        """The shard's batch at the provider, if there is one worth going on with."""
        self._look(self._batches)
        seen = [str(batch["id"]) for batch in self._batches.named(shard.key)]
        chosen, too_many = choose(batch for batch in map(self._looked_up, seen) if batch)
        for batch in too_many:
            log.warning("shard %s has more than one batch: cancelling %s", shard.key, batch["id"])
            self._cancel(str(batch["id"]))
        if chosen is not None:
            log.info("shard %s: adopting batch %s", shard.key, chosen["id"])
        return chosen

    def _noted_file(self, file_id: str | None) -> str | None:
        """A file id from the receipt, unless the provider does not have it any more."""
        if not file_id:
            return None
        return file_id if self._retrying.made(lambda: self._api.file(file_id), f"file {file_id}") else None

    def _uploaded(self, shard: Shard, note: Note) -> str:
        """The id of the shard's file at the provider: one found there by its name, else a fresh upload."""
        name, n_bytes = f"{shard.key}.jsonl", shard.path.stat().st_size
        if not self._files.was_read:
            # Files cost nothing, so unlike for batches one look a process is enough, unless a call was in doubt.
            self._look(self._files)
        for n in count(1):
            file = next((f for f in self._files.named(name) if is_upload_of(f, name, n_bytes)), None)
            reach("upload.not-sent")
            try:
                file_id = str((file or self._api.upload(shard.path, name))["id"])
            except CallFailed as failure:
                self._retrying.wait_or_raise(failure, n, f"the upload of shard {shard.key}")
                self._look(self._files)
                continue
            reach("upload.not-noted")
            note(Receipt(input_file_id=file_id))
            reach("upload.noted")
            return file_id
        raise AssertionError("count() does not end")

    def _created(self, shard: Shard, file_id: str) -> Object:
        url, was_doubtful = request_url(shard.path), False
        for n in count(1):
            reach("batch.not-created")
            try:
                batch = self._api.create_batch(input_file_id=file_id, url=url, key=shard.key)
            except CallFailed as failure:
                self._raise_if_full(failure, shard)
                is_doubtful = failure.status_code in (0, 408, 409) or failure.status_code >= 500
                was_doubtful |= is_doubtful
                if is_doubtful and (adopted := self._looked_for(shard)):
                    return adopted
                self._retrying.wait_or_raise(_as_not_yet_there(failure), n, f"the batch of shard {shard.key}")
            else:
                reach("batch.not-noted")
                # Where an earlier create did pass and the list lagged, there are two now: the older one stays.
                return (self._found(shard) if was_doubtful else None) or batch
        raise AssertionError("count() does not end")

    def _looked_for(self, shard: Shard) -> Object | None:
        for wait_s in self._retrying.patience.looks_s:
            self._retrying.sleep(wait_s)
            if found := self._found(shard):
                return found
        return None

    def _raise_if_full(self, failure: CallFailed, shard: Shard) -> None:
        if failure.error.code == "token_limit_exceeded":
            raise EnqueuedFull(
                f"The batch queue of endpoint '{self._connection.endpoint}' has no room for shard {shard.key} "
                f"({shard.prompt_tokens:,} tokens); run the same command again when running batches have ended."
            ) from failure

    def _look(self, ledger: Ledger) -> None:
        if self._retrying.made(ledger.look, "the list of batches and files") is None:
            raise EndpointError(
                f"Endpoint '{self._connection.endpoint}' has no Batch API at {self._connection.base_url}; "
                "take 'batch' out of its tiers in semtel.toml."
            )

    def _looked_up(self, batch_id: str) -> Object | None:
        return self._retrying.made(lambda: self._api.batch(batch_id), f"batch {batch_id}")

    def _batch(self, shard: Shard, receipt: Receipt) -> Object:
        batch = self._looked_up(receipt.batch_id) if receipt.batch_id else None
        if batch is None:
            raise EndpointError(
                f"Endpoint '{self._connection.endpoint}' knows no batch {receipt.batch_id} (shard {shard.key}); "
                f"check that the key in {self._connection.key_env} is of the account and project that submitted it."
            )
        return batch

    def _cancel(self, batch_id: str) -> None:
        def cancelled() -> None:
            try:
                self._api.cancel_batch(batch_id)
            except CallFailed as failure:
                if failure.status_code != 409:  # it has ended already
                    raise

        self._retrying.made(cancelled, f"the cancelling of batch {batch_id}")

    def _downloaded(self, shard: Shard, file_id: str) -> Path | None:
        """The local copy of a result file, fetched unless it is there; None if the provider has it no more."""
        target = shard.path.with_name(f"{shard.key}.{re.sub(r'[^A-Za-z0-9_-]', '_', file_id)}.jsonl")
        if target.exists():
            return target
        part = target.with_suffix(".part")

        def fetched() -> Path:
            with being_written(target, part):
                self._api.download(file_id, part)
            reach("download.fetched")
            if not is_whole(part):
                raise CallFailed(0, _CUT, {})
            with being_written(target, part):
                settle(part, target)  # to the disk first: half a file would pass for lost answers, asked again and paid
            return target

        path = self._retrying.made(fetched, f"the download of result file {file_id}")
        if path is None:
            log.warning("shard %s: result file %s is gone at the provider", shard.key, file_id)
        return path


def _as_not_yet_there(failure: CallFailed) -> CallFailed:
    """Read a 400 or 404 about the input file as trouble that passes: a 400 has created nothing."""
    if failure.status_code in (400, 404) and failure.error.param in _FILE_PARAMS:
        return CallFailed(409, failure.error, failure.headers)
    return failure
