"""What happens to a batch after its creation, by the sandbox's clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from semtel_batch.sandbox.batch_validation import Inspector, problem
from semtel_batch.sandbox.batches import Batch, Batches
from semtel_batch.sandbox.desk import CHAT, Desk, Job
from semtel_batch.sandbox.errors import ApiError
from semtel_batch.sandbox.faults import error_of
from semtel_batch.sandbox.files import THIRTY_DAYS_S, FileStore, StoredFile
from semtel_batch.sandbox.ids import hex32
from semtel_batch.sandbox.settings import Settings
from semtel_batch.sandbox.validation import CHECKS, model_of

_STEP = 128  # lines executed before the loop may do something else

_EXPIRED = ("batch_expired", "This request could not be executed before the completion window expired.")
_CANCELLED = ("batch_cancelled", "This request was not executed because the batch was cancelled.")
_TIMEOUT = ("request_timeout", "The request timed out.")


@dataclass(slots=True)
class Outputs:
    """The two files of a batch, while they are written."""

    output: Path
    errors: Path
    n_output: int = 0
    n_errors: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """One request of the input file, parsed."""

    custom_id: str
    body: dict[str, Any]


class BatchWork:
    """Runs one batch from `validating` to its end. One instance serves all; each batch is one task."""

    def __init__(self, desk: Desk, files: FileStore, batches: Batches, settings: Callable[[], Settings]) -> None:
        self._desk, self._files, self._batches, self._settings = desk, files, batches, settings
        self._clock = desk.clock

    async def run(self, batch: Batch) -> None:
        """Validate, execute, finalize; stamps are those of the schedule, whatever the real machine needed."""
        started_at = batch.created_at + self._settings().validating_s
        await self._clock.until(started_at, unless=lambda: batch.cancel_asked_at is not None)
        if batch.status == "cancelling":
            await self._cancelled(batch, None)
            return
        inspector = await self._validated(batch, started_at)
        if inspector is None:
            return
        await self._execute(batch, inspector, started_at)

    # validating

    async def _validated(self, batch: Batch, at: float) -> Inspector | None:
        file = self._input(batch, at)
        if file is None:
            return None
        inspector = Inspector(file.path, batch.endpoint, self._settings(), self._desk.counter)
        for _ in inspector.steps():
            await self._clock.breathe()
        batch.model = inspector.found.model
        batch.problems = inspector.found.problems or self._over_quota(batch, inspector.found.tokens)
        if batch.problems:
            batch.enter("failed", at)
            return None
        batch.enqueued = inspector.found.tokens
        batch.total = inspector.found.n_requests
        if batch.status == "validating":
            batch.enter("in_progress", at)
        return inspector

    def _input(self, batch: Batch, at: float) -> StoredFile | None:
        settings = self._settings()
        try:
            file = self._files.get(batch.input_file_id)
            if file.purpose == "batch" and file.created_at + settings.file_visible_after_s <= batch.created_at:
                return file
        except ApiError:
            pass  # told below, as for a file that is there but not for us
        message = (
            f"Cannot find file {batch.input_file_id}, or organization {settings.organization} "
            "does not have access to it."
        )
        batch.problems = [problem("invalid_request", message, param="file_id")]
        batch.enter("failed", at)
        return None

    def _over_quota(self, batch: Batch, tokens: int) -> list[dict[str, Any]]:
        limit = self._settings().enqueued_tokens
        if limit is None or self._batches.enqueued(batch.model) + tokens <= limit:
            return []
        return [problem("token_limit_exceeded", over_quota_message(self._settings(), batch.model, limit))]

    # in_progress

    async def _execute(self, batch: Batch, inspector: Inspector, started_at: float) -> None:
        settings = self._settings()
        order = list(range(batch.total))
        random.Random(f"{settings.seed}:{batch.input_file_id}").shuffle(order)
        outputs = Outputs(self._files.new_path(), self._files.new_path())
        lasts_s = settings.in_progress_s
        path = self._files.get(batch.input_file_id).path
        with path.open("rb") as lines, outputs.output.open("wb") as good, outputs.errors.open("wb") as bad:
            done = 0
            while done < len(order):
                due = await self._due(batch, started_at, lasts_s, done)
                if due <= done:
                    break
                chosen = order[done : min(due, done + _STEP)]
                self._step(batch, [_line(lines, inspector.found.offsets[i]) for i in chosen], outputs, good, bad)
                done += len(chosen)
                await self._clock.breathe()
            left = [_line(lines, inspector.found.offsets[i]).custom_id for i in order[done:]]
            self._leave_out(batch, left, outputs, bad)
        await self._end(batch, outputs, started_at + lasts_s, left=bool(left))

    async def _due(self, batch: Batch, started_at: float, lasts_s: float, done: int) -> int:
        """How many lines are due by now; waits for the next one. No more than `done` when the time is over."""
        while True:
            end = min(batch.expires_at, batch.cancel_asked_at or batch.expires_at)
            now = self._clock.now()
            passed_s = min(now, end) - started_at
            due = batch.total if passed_s >= lasts_s else max(0, int(passed_s / lasts_s * batch.total))
            if due > done or now >= end:
                return due
            # A twentieth of the time is often enough to be looked at, and seldom enough to be cheap.
            next_line_s = lasts_s * (done + max(1, batch.total // 20)) / batch.total
            moment = min(end, started_at + min(next_line_s, lasts_s))
            await self._clock.until(moment, unless=lambda: batch.cancel_asked_at is not None)

    def _step(self, batch: Batch, lines: Sequence[Line], outputs: Outputs, good: BinaryIO, bad: BinaryIO) -> None:
        jobs: list[tuple[Line, Job]] = []
        for line in lines:
            try:
                fault = self._desk.faults.for_line()
                if fault == "line_lost":
                    batch.failed += 1
                    continue
                if fault is not None:
                    self._fail_line(batch, line, fault, outputs, bad)
                    continue
                jobs.append((line, self._job(batch, line)))
            except ApiError as error:
                self._write_error(batch, line, error, outputs, bad)
        answers = self._desk.answer(batch.endpoint, [job for _, job in jobs], "batch")
        for (line, _), answer in zip(jobs, answers, strict=True):
            good.write(self._result(line.custom_id, 200, answer))
            outputs.n_output += 1
            batch.completed += 1
            _add_usage(batch, answer["usage"])

    def _job(self, batch: Batch, line: Line) -> Job:
        model = self._desk.model_named(model_of(line.body), embeds=batch.endpoint != CHAT)
        job = self._desk.accept(line.body, model, orjson.dumps(line.body))
        CHECKS[batch.endpoint](line.body, model)
        return job

    def _fail_line(self, batch: Batch, line: Line, fault: str, outputs: Outputs, bad: BinaryIO) -> None:
        error = error_of(fault.removeprefix("line_"), str(batch.model), None)
        if error is not None:
            self._write_error(batch, line, error, outputs, bad)
            return
        bad.write(self._unexecuted(line.custom_id, *_TIMEOUT))
        outputs.n_errors += 1
        batch.failed += 1

    def _write_error(self, batch: Batch, line: Line, error: ApiError, outputs: Outputs, bad: BinaryIO) -> None:
        bad.write(self._result(line.custom_id, error.status, error.body))
        outputs.n_errors += 1
        batch.failed += 1

    def _leave_out(self, batch: Batch, custom_ids: Sequence[str], outputs: Outputs, bad: BinaryIO) -> None:
        """Tell of the lines that the time was too short for; they are not counted as failed."""
        if not self._settings().unexecuted_in_error_file:
            return
        reason = _CANCELLED if batch.cancel_asked_at is not None else _EXPIRED
        for custom_id in custom_ids:
            bad.write(self._unexecuted(custom_id, *reason))
            outputs.n_errors += 1

    def _result(self, custom_id: str, status: int, body: Any) -> bytes:
        response = {"status_code": status, "request_id": hex32(), "body": body}
        return self._dumped({"custom_id": custom_id, "response": response, "error": None})

    def _unexecuted(self, custom_id: str, code: str, message: str) -> bytes:
        return self._dumped({"custom_id": custom_id, "response": None, "error": {"code": code, "message": message}})

    def _dumped(self, result: dict[str, Any]) -> bytes:
        if self._settings().dress != "azure":  # Azure's lines have no id of their own
            result = {"id": f"batch_req_{hex32()}", **result}
        return orjson.dumps(result, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)

    # finalizing, expired, cancelled

    async def _end(self, batch: Batch, outputs: Outputs, executed_at: float, *, left: bool) -> None:
        if batch.cancel_asked_at is not None:
            await self._cancelled(batch, outputs)
            return
        if left:
            self._publish(batch, outputs, batch.expires_at)
            batch.enter("expired", batch.expires_at)
            return
        batch.enter("finalizing", executed_at)
        finished_at = executed_at + self._settings().finalizing_s
        await self._clock.until(finished_at, unless=lambda: batch.cancel_asked_at is not None)
        if batch.cancel_asked_at is not None:
            await self._cancelled(batch, outputs)
            return
        self._publish(batch, outputs, finished_at)
        batch.enter("completed", finished_at)

    async def _cancelled(self, batch: Batch, outputs: Outputs | None) -> None:
        at = (batch.cancel_asked_at or self._clock.now()) + self._settings().cancelling_s
        await self._clock.until(at)
        if outputs is not None:
            self._publish(batch, outputs, at)
        batch.enter("cancelled", at)

    def _publish(self, batch: Batch, outputs: Outputs, at: float) -> None:
        """Make files of what was written. A batch without one good line has no output file."""
        settings = self._settings()
        azure = settings.dress == "azure"
        if outputs.n_output:
            batch.output_file_id = self._file(batch, outputs.output, "output")
        else:
            outputs.output.unlink()
        if outputs.n_errors or azure:  # Azure has one always, of zero bytes if need be
            batch.error_file_id = self._file(batch, outputs.errors, "error")
        else:
            outputs.errors.unlink()
            batch.error_file_id = "" if settings.empty_error_file == "" else None

    def _file(self, batch: Batch, path: Path, kind: str) -> str:
        azure = self._settings().dress == "azure"
        lasts_s = batch.output_lasts_s or THIRTY_DAYS_S
        file = self._files.add(path, f"{batch.id}_{kind}.jsonl", "batch_output", lasts_s=lasts_s, azure=azure)
        return file.id


def _line(lines: BinaryIO, offset: int) -> Line:
    lines.seek(offset)
    raw = lines.readline()
    request = orjson.loads(raw.removeprefix(b"\xef\xbb\xbf") if offset == 0 else raw)
    return Line(request["custom_id"], request["body"])


def _add_usage(batch: Batch, usage: dict[str, Any]) -> None:
    batch.usage["input"] += usage["prompt_tokens"]
    batch.usage["output"] += usage.get("completion_tokens", 0)
    batch.usage["cached"] += (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    batch.usage["reasoning"] += (usage.get("completion_tokens_details") or {}).get("reasoning_tokens", 0)


def over_quota_message(settings: Settings, model: str | None, limit: int) -> str:
    """What is said when a queue is full."""
    if settings.dress == "azure":
        deployment = next((name for name, behind in settings.deployments.items() if behind == model), model)
        shown = f"{limit // 1000}K" if limit >= 1000 else str(limit)
        return (
            f"The number of enqueued tokens has surpassed the configured limit of {shown} for the deployment "
            f"'{deployment}'. Please either increase the limit or try again once the current jobs have finished."
        )
    return (
        f"Enqueued token limit reached for {model} in organization {settings.organization}. "
        f"Limit: {limit:,} enqueued tokens. "
        "Please try again once some in_progress batches have been completed."
    )
