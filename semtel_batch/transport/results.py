"""The lines of a batch's output and error files, and every custom_id checked off against them.

What a file says decides, never the batch's counts: a batch can be `completed` with only an error file, or carry
lines with status 0, lines twice, lines of nobody, and leave some out.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Container, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeGuard

from semtel_batch.records import Answer, Outcome
from semtel_batch.transport.replies import answer_from, parse, provider_error

log = logging.getLogger("semtel_batch.transport")

_ENDED_BY_CODE = {"batch_expired": Outcome.EXPIRED, "batch_cancelled": Outcome.CANCELLED}
_NO_RESPONSE = "no_response"  # ours: a line with neither a status nor an error code


def read_line(line: bytes) -> Answer | None:
    """Read one result; None if the line is not one."""
    row = parse(line)
    if not isinstance(row, dict) or not isinstance(row.get("custom_id"), str):
        return None
    custom_id, response = row["custom_id"], row.get("response")
    status = response.get("status_code") if isinstance(response, dict) else None
    if not isinstance(response, dict) or not _is_status(status):
        return _without_response(custom_id, status, row.get("error"))
    answer = answer_from(custom_id, status, response.get("body"))
    if answer.error_code is None and answer.outcome is Outcome.ERRORED:
        error = provider_error(row.get("error"))
        return replace(answer, error_code=error.code or f"status_{status}", error_message=error.message)
    return answer


def check_off(
    lines: Iterable[bytes], owed: Iterable[str], rest: Outcome, done: Container[str] = frozenset()
) -> Iterator[Answer]:
    """Give each owed custom_id exactly one answer: the first good one, else the first failure, else `rest`."""
    open_ids = dict.fromkeys(owed)
    failures: dict[str, Answer] = {}
    n_unreadable = n_other = 0
    for line in lines:
        answer = read_line(line)
        if answer is None:
            n_unreadable += 1
        elif answer.custom_id not in open_ids:
            n_other += answer.custom_id not in done
        elif _is_good(answer):
            del open_ids[answer.custom_id]
            yield answer
        else:
            failures.setdefault(answer.custom_id, answer)
    if n_unreadable or n_other:
        log.warning("results: %d unreadable lines; %d of no owed request, or repeated", n_unreadable, n_other)
    for custom_id in open_ids:
        yield failures.get(custom_id) or Answer(custom_id=custom_id, outcome=rest)


def lines_of(paths: Iterable[Path]) -> Iterator[bytes]:
    """Read files line by line, split at b"\\n" alone: U+2028 may stand raw inside a line."""
    for path in paths:
        with path.open("rb", buffering=1 << 18) as file:
            for line in file:
                if line.strip():
                    yield line


def is_whole(path: Path) -> bool:
    """Whether a downloaded file ends where a line ends."""
    size = path.stat().st_size
    if size == 0:
        return True
    with path.open("rb") as file:
        file.seek(-1, 2)
        if file.read() == b"\n":
            return True
    last = deque(lines_of([path]), maxlen=1)
    return bool(last) and parse(last[0]) is not None


def _is_status(value: object) -> TypeGuard[int]:
    return type(value) is int and 100 <= value <= 599


def _is_good(answer: Answer) -> bool:
    return answer.status_code == 200 and answer.outcome is not Outcome.ERRORED


def _without_response(custom_id: str, status: object, error: object) -> Answer:
    told = provider_error(error)
    return Answer(
        custom_id=custom_id,
        outcome=_ENDED_BY_CODE.get(told.code or "", Outcome.ERRORED),
        status_code=0 if status == 0 else None,
        error_code=told.code or _NO_RESPONSE,
        error_message=told.message,
    )
