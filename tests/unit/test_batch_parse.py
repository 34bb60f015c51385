"""Batch objects, result lines and the lists, in OpenAI's form and in Azure's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Batch

from semtel_batch.records import Answer, BatchState, Outcome
from semtel_batch.transport.batch_ledger import Ledger
from semtel_batch.transport.batch_objects import (
    KEY,
    choose,
    is_upload_of,
    key_of,
    progress_of,
    rest_outcome,
    result_files,
)
from semtel_batch.transport.results import check_off, is_whole, lines_of, read_line


def batch(status: str = "completed", **fields: Any) -> dict[str, Any]:
    """A batch as OpenAI sends it; the SDK's type must take it."""
    made = {
        "id": "batch_1",
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file-1",
        "completion_window": "24h",
        "status": status,
        "created_at": 1_790_000_000,
        "metadata": {KEY: "k1"},
        "request_counts": {"total": 10, "completed": 9, "failed": 1},
        **fields,
    }
    Batch.model_validate(made)
    return made


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("validating", BatchState.WAITING),
        ("in_progress", BatchState.WAITING),
        ("finalizing", BatchState.WAITING),
        ("cancelling", BatchState.WAITING),
        ("completed", BatchState.READY),
        ("expired", BatchState.READY),
        ("cancelled", BatchState.READY),
        ("failed", BatchState.REJECTED),
    ],
)
def test_the_eight_statuses(status: str, state: BatchState) -> None:
    progress = progress_of(batch(status))
    assert (progress.state, progress.status) == (state, status)
    assert (progress.n_completed, progress.n_failed, progress.n_total) == (9, 1, 10)


def test_azures_odd_objects() -> None:
    odd = {"status": "Validating", "request_counts": None, "errors": None, "error_file_id": "", "output_file_id": ""}
    assert progress_of(odd).state is BatchState.WAITING
    assert result_files(odd) == []
    ended = {"status": "failed", "failed_at": None, "request_counts": {"total": None, "completed": None, "failed": 0}}
    assert progress_of(ended).state is BatchState.REJECTED
    assert progress_of({"status": "resting"}).state is BatchState.WAITING


def test_a_failed_batch_tells_code_message_and_line() -> None:
    errors = {
        "object": "list",
        "data": [{"code": "invalid_json_line", "line": 7, "message": "not parseable", "param": None}],
    }
    progress = progress_of(batch("failed", errors=errors))
    assert (progress.error_code, progress.error_message) == ("invalid_json_line", "line 7: not parseable")
    assert progress_of(batch("failed", errors=None)).error_code is None


def test_both_files_are_read_and_an_empty_id_is_none() -> None:
    assert result_files(batch(output_file_id="file-o", error_file_id="file-e")) == ["file-o", "file-e"]
    assert result_files(batch(output_file_id=None, error_file_id="file-e")) == ["file-e"]
    assert result_files(batch(output_file_id="file-o", error_file_id="")) == ["file-o"]


def test_what_is_in_neither_file_follows_the_batch() -> None:
    ends = {status: rest_outcome(batch(status)) for status in ("completed", "expired", "cancelled")}
    assert ends == {"completed": Outcome.MISSING, "expired": Outcome.EXPIRED, "cancelled": Outcome.CANCELLED}


def test_of_several_batches_the_one_to_go_on_with() -> None:
    def one(name: str, status: str, created_at: int) -> dict[str, Any]:
        return batch(status, id=name, created_at=created_at)

    assert choose([one("a", "failed", 1)]) == (None, [])
    chosen, too_many = choose([one("c", "cancelled", 1), one("b", "in_progress", 3), one("a", "validating", 2)])
    assert chosen and chosen["id"] == "a"
    assert [extra["id"] for extra in too_many] == ["b"]
    chosen, too_many = choose([one("b", "validating", 3), one("a", "completed", 2)])
    assert chosen and chosen["id"] == "a" and [extra["id"] for extra in too_many] == ["b"]
    chosen, _ = choose([one("a", "expired", 1)])
    assert chosen and chosen["id"] == "a"


def test_an_upload_is_ours_by_name_and_size() -> None:
    file = {"id": "file-1", "filename": "k1.jsonl", "bytes": 470, "status": "processed", "purpose": "batch"}
    assert is_upload_of(file, "k1.jsonl", 470)
    assert not is_upload_of(file, "k1.jsonl", 471)
    assert not is_upload_of({**file, "status": "error"}, "k1.jsonl", 470)


def completion(content: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, "refusal": None}
    return {"choices": [{"index": 0, "finish_reason": "stop", "message": message}], "model": "m"}


def line(custom_id: str, status: int | None = 200, body: Any = None, error: Any = None) -> bytes:
    response = None if status is None else {"status_code": status, "request_id": "r", "body": body}
    row = {"id": "batch_req_1", "custom_id": custom_id, "response": response, "error": error}
    return orjson.dumps(row) + b"\n"


@pytest.mark.parametrize(
    ("row", "outcome", "status", "code"),
    [
        (line("a", body=completion("x")), Outcome.ANSWERED, 200, None),
        (line("a", None, error={"code": "batch_expired", "message": "m"}), Outcome.EXPIRED, None, "batch_expired"),
        (line("a", None, error={"code": "batch_cancelled"}), Outcome.CANCELLED, None, "batch_cancelled"),
        (line("a", None, error={"code": "request_timeout"}), Outcome.ERRORED, None, "request_timeout"),
        (line("a", None), Outcome.ERRORED, None, "no_response"),
        (line("a", 0, body={}), Outcome.ERRORED, 0, "no_response"),  # seen live, error null
        (line("a", 400, body={"error": {"code": "content_filter"}}), Outcome.REFUSED, 400, "content_filter"),
        (line("a", 400, body={"error": {"code": None}}), Outcome.ERRORED, 400, "status_400"),
        (line("a", 500, body=None), Outcome.ERRORED, 500, "status_500"),
        (line("a", 200, body={"error": "?"}), Outcome.ERRORED, 200, "malformed_reply"),
        # An error beside a 200 does not undo it.
        (line("a", body=completion("x"), error={"code": "odd"}), Outcome.ANSWERED, 200, None),
    ],
)
def test_lines(row: bytes, outcome: Outcome, status: int | None, code: str | None) -> None:
    answer = read_line(row)
    assert answer is not None
    assert (answer.outcome, answer.status_code, answer.error_code) == (outcome, status, code)


@pytest.mark.parametrize("row", [b"", b"{", b"[]", b"null", b'{"custom_id":7}', b'{"response":{"status_code":200}}'])
def test_what_is_no_result_line(row: bytes) -> None:
    assert read_line(row) is None


def outcomes(answers: list[Answer]) -> dict[str, Outcome]:
    assert len({answer.custom_id for answer in answers}) == len(answers)
    return {answer.custom_id: answer.outcome for answer in answers}


def test_every_custom_id_is_checked_off_once() -> None:
    lines = [
        line("late", 500),
        line("twice", body=completion("first")),
        line("twice", body=completion("second")),
        line("nobody", body=completion("x")),
        line("late", body=completion("after an error")),
        line("bad", 500),
        line("bad", 400),
        b'{"torn',
    ]
    answers = list(check_off(lines, ["lost", "late", "twice", "bad"], Outcome.MISSING))
    assert outcomes(answers) == {
        "twice": Outcome.ANSWERED,
        "late": Outcome.ANSWERED,
        "lost": Outcome.MISSING,
        "bad": Outcome.ERRORED,
    }
    by_id = {answer.custom_id: answer for answer in answers}
    assert by_id["twice"].content == "first"
    assert by_id["bad"].status_code == 500


JSONISH = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 600)
    | st.text(max_size=8)
    | st.sampled_from(["a", "b", "batch_expired"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "custom_id",
                    "response",
                    "error",
                    "status_code",
                    "body",
                    "choices",
                    "message",
                    "content",
                    "code",
                    "usage",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(st.lists(st.binary(max_size=40) | JSONISH.map(orjson.dumps), max_size=8))
def test_no_file_whatever_breaks_the_count(rows: list[bytes]) -> None:
    answers = list(check_off(rows, ["a", "b", "c"], Outcome.EXPIRED))
    assert sorted(outcomes(answers)) == ["a", "b", "c"]


def test_files_are_split_at_newlines_alone(tmp_path: Path) -> None:
    path, empty = tmp_path / "out.jsonl", tmp_path / "err.jsonl"
    text = "a\u2028b\u2029c\u0085d\x1ce\x0bf"
    path.write_bytes(line("a", body=completion(text)) + b"\n" + line("b", body=completion("x")).rstrip())
    empty.write_bytes(b"")
    answers = list(check_off(lines_of([path, empty]), ["a", "b"], Outcome.MISSING))
    assert [answer.content for answer in answers] == [text, "x"]


@pytest.mark.parametrize(
    ("content", "whole"),
    [(b"", True), (b"{}\n", True), (b"{}\n{}", True), (b'{}\n{"a":', False), (b'{"a":"b', False)],
)
def test_a_cut_file_is_noticed(tmp_path: Path, content: bytes, whole: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert is_whole(path) is whole


def test_the_list_is_read_back_once_and_then_only_what_is_new() -> None:
    now = 1_790_000_000.0
    batches = [batch(id=f"b{n}", created_at=int(now) - n * 3_600, metadata={KEY: f"k{n}"}) for n in range(2_000)]
    batches[3]["metadata"] = None
    asked: list[int] = []

    def pages() -> Any:
        for start in range(0, len(batches), 100):
            asked.append(start)
            yield batches[start : start + 100]

    ledger = Ledger(pages, key_of, lambda: now)
    ledger.look()
    assert len(asked) == 8  # 30 days of one an hour: 720
    assert [b["id"] for b in ledger.named("k700")] == ["b700"]
    assert ledger.named("k1500") == [] and ledger.named("k3") == []
    asked.clear()
    batches.insert(0, batch(id="new", created_at=int(now) + 5, metadata={KEY: "k700"}))
    ledger.look()
    assert len(asked) == 1
    assert [b["id"] for b in ledger.named("k700")] == ["b700", "new"]
