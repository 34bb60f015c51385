"""The transport protocol, the same cases on every way to a provider, in OpenAI's dress and in Azure's.

They run against the sandbox, whose own books say what was asked and billed.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from semtel_batch.errors import EndpointError, Incomplete, QuotaExhausted
from semtel_batch.records import (
    Answer,
    BatchState,
    Endpoint,
    EndpointKind,
    Outcome,
    Receipt,
    Shard,
    Stage,
    Tier,
)
from semtel_batch.sandbox.local import SandboxHandle, running
from semtel_batch.sandbox.settings import Settings
from semtel_batch.transport.endpoints import open_transport
from semtel_batch.transport.limit import START
from semtel_batch.transport.protocol import EnqueuedFull, Transport
from semtel_batch.transport.verdicts import Patience

KEY, VARIABLE, NAME = "sk-right-and-secret", "THE_KEY_VARIABLE", "the-endpoint"
CHAT, BATCHES, FILES = "/v1/chat/completions", "/v1/batches", "/v1/files"
LABEL = "fine\u2028indeed"  # legal in JSON, and torn apart by str.splitlines
QUICK = Patience(base_s=0.001, cap_s=0.005, looks_s=(0.0, 0.0), longest_wait_s=5.0)
NOTHING_SENT = Receipt()
PLAIN = {
    "faults": {},
    "retry_after_s": None,
    "enqueued_tokens": None,
    "fail_fast": False,
    "rpm": None,
    "tpm": None,
    "latency_s": 0.0,
    "early_file_check": False,
    "file_visible_after_s": 0.0,
    "unexecuted_in_error_file": True,
    "empty_error_file": "null",
    "in_progress_s": 1.0,
}


@dataclass(frozen=True)
class Case:
    """One way to one provider."""

    sandbox: SandboxHandle
    endpoint: Endpoint
    tier: Tier
    folder: Path

    def open(self, key: str = KEY, patience: Patience = QUICK, **changes: Any) -> Transport:
        return open_transport((replace(self.endpoint, **changes),), self.tier, {VARIABLE: key}, patience=patience)

    def shard(self, n: int, *, name: str = "shard-1", **body: Any) -> Shard:
        path = self.folder / f"{name}.jsonl"
        path.write_bytes(b"".join(request(number, **{"model": self.endpoint.model, **body}) for number in range(n)))
        return Shard(
            id=1,
            key=name,
            plan_id="plan",
            leg=0,
            stage=Stage.CLASSIFY,
            attempt=1,
            classifiers=("mood",),
            endpoint=NAME,
            tier=self.tier,
            path=path,
            n_requests=n,
            n_items=n,
            prompt_tokens=100 * n,
            max_completion_tokens=60 * n,
        )

    def worked(self, shard: Shard, transport: Transport | None = None, done: frozenset[str] = frozenset()) -> Run:
        """Submit, wait and read to the end."""
        with closing(transport or self.open()) as way:
            notes: list[Receipt] = []
            receipt = way.submit(shard, NOTHING_SENT, notes.append)
            if self.tier is Tier.BATCH:
                assert notes[-1] == receipt
                self.wait(way, shard, receipt)
            assert way.poll(shard, receipt).state is BatchState.READY
            return Run(receipt, [answer for group in way.answers(shard, receipt, done) for answer in group])

    def wait(self, way: Transport, shard: Shard, receipt: Receipt, seconds: float = 60.0) -> None:
        """Let sandbox time pass until the batch has ended."""
        for _ in range(50):
            self.sandbox.advance(seconds)
            if way.poll(shard, receipt).state is not BatchState.WAITING:
                return


@dataclass(frozen=True)
class Run:
    receipt: Receipt
    answers: list[Answer]

    @property
    def outcomes(self) -> dict[str, Outcome]:
        assert len({answer.custom_id for answer in self.answers}) == len(self.answers), "an answer came twice"
        return {answer.custom_id: answer.outcome for answer in self.answers}

    def count(self, outcome: Outcome) -> int:
        return list(self.outcomes.values()).count(outcome)


def request(number: int, **body: Any) -> bytes:
    item = {"type": "object", "properties": {"id": {"type": "integer"}, "mood": {"type": "string", "enum": [LABEL]}}}
    item |= {"required": ["id", "mood"], "additionalProperties": False}
    results = {"type": "object", "properties": {"results": {"type": "array", "items": item}}}
    results |= {"required": ["results"], "additionalProperties": False}
    text = f'<conversation id="1">\nuser: number {number} \u2028 "max_tokens":1\n</conversation>'
    asked = {
        "messages": [{"role": "system", "content": "Name the mood."}, {"role": "user", "content": text}],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "labels", "strict": True, "schema": results},
        },
        "max_completion_tokens": 60,
        "reasoning_effort": "none",
        **body,
    }
    return orjson.dumps({"custom_id": f"r-{number}", "method": "POST", "url": CHAT, "body": asked}) + b"\n"


@pytest.fixture(scope="module", params=["openai", "azure"])
def dressed(request: pytest.FixtureRequest) -> Iterator[tuple[SandboxHandle, EndpointKind, str]]:
    dress = request.param
    azure = {"deployments": {"labels-batch": "gpt-5.4-mini"}} if dress == "azure" else {}
    with running(Settings(dress=dress, api_key=KEY, model_behind="scripted", **azure)) as sandbox:
        yield sandbox, EndpointKind(dress), "labels-batch" if azure else "gpt-5.4-mini"


@pytest.fixture(params=[Tier.REALTIME, Tier.BATCH])
def case(request: pytest.FixtureRequest, dressed: Any, tmp_path: Path) -> Case:
    sandbox, kind, model = dressed
    sandbox.configure(**PLAIN)
    sandbox.reset()
    endpoint = Endpoint(
        name=NAME, kind=kind, base_url=sandbox.base_url, model=model, api_key_env=VARIABLE, timeout_s=5.0
    )
    return Case(sandbox, endpoint, request.param, tmp_path)


def only(tier: Tier) -> Callable[[Any], Any]:
    return pytest.mark.parametrize("case", [tier], indirect=True)


# Both ways.


def test_every_request_is_answered_once(case: Case) -> None:
    run = case.worked(case.shard(620))
    assert run.outcomes == {f"r-{number}": Outcome.ANSWERED for number in range(620)}
    assert case.sandbox.books()["requests"] == {"distinct": 620, "asked": 620, "billed": 620, "billed_twice": 0}
    assert {orjson.loads(answer.content or "")["results"][0]["mood"] for answer in run.answers} == {LABEL}
    assert all(answer.usage.prompt_tokens > 10 and answer.usage.completion_tokens > 0 for answer in run.answers)
    assert all(answer.model and answer.model.startswith("gpt-5.4-mini") for answer in run.answers)


def test_what_is_done_is_not_given_again(case: Case) -> None:
    done = frozenset(f"r-{number}" for number in range(0, 40, 2))
    run = case.worked(case.shard(40), done=done)
    assert set(run.outcomes) == {f"r-{number}" for number in range(1, 40, 2)}
    if case.tier is Tier.REALTIME:
        assert case.sandbox.books()["requests"]["asked"] == 20


def test_all_done_gives_nothing(case: Case) -> None:
    assert case.worked(case.shard(3), done=frozenset({"r-0", "r-1", "r-2"})).answers == []


def test_answers_can_be_taken_again(case: Case) -> None:
    shard = case.shard(5)
    with closing(case.open()) as way:
        receipt = way.submit(shard, NOTHING_SENT, lambda _: None)
        case.wait(way, shard, receipt)
        twice = [{a.custom_id for group in way.answers(shard, receipt, ()) for a in group} for _ in range(2)]
    assert twice[0] == twice[1] == {f"r-{number}" for number in range(5)}


def test_refusals_filters_and_cut_answers_are_outcomes(case: Case) -> None:
    for fault in ("refusal", "content_filter", "length", "malformed"):
        case.sandbox.script(CHAT, fault, times=3)
    run = case.worked(case.shard(20))
    assert run.count(Outcome.REFUSED) == 6
    assert run.count(Outcome.TRUNCATED) == 3
    assert run.count(Outcome.ANSWERED) == 11  # three of them spoilt: that is for the parser to find
    for answer in run.answers:
        assert (answer.content is not None) == (answer.outcome in (Outcome.ANSWERED, Outcome.TRUNCATED))
        assert answer.usage.prompt_tokens > 0


def test_a_bad_request_is_its_own_failure(case: Case) -> None:
    shard = case.shard(4)
    bad = case.shard(1, name="bad", max_completion_tokens=0).path.read_bytes().replace(b'"r-0"', b'"bad"')
    shard.path.write_bytes(shard.path.read_bytes() + bad)
    run = case.worked(replace(shard, n_requests=5))
    assert run.count(Outcome.ANSWERED) == 4
    assert run.outcomes["bad"] is Outcome.ERRORED
    answer = next(answer for answer in run.answers if answer.custom_id == "bad")
    assert answer.status_code == 400 and answer.error_code


def test_a_wrong_key_is_told_by_its_names_and_never_shown(case: Case) -> None:
    with pytest.raises(EndpointError) as caught:
        case.worked(case.shard(3), case.open(key="sk-wrong-but-secret"))
    assert NAME in str(caught.value) and VARIABLE in str(caught.value)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert "sk-" not in str(chain) and "sk-" not in repr(chain)
        chain = chain.__cause__ or chain.__context__


def test_out_of_quota_stops_at_once(case: Case) -> None:
    for path in (CHAT, FILES, BATCHES):
        case.sandbox.script(path, "insufficient_quota", times=100)
    with pytest.raises(QuotaExhausted, match=NAME):
        case.worked(case.shard(50), case.open(concurrency=1))
    assert sum(statuses.get("429", 0) for statuses in case.sandbox.books()["paths"].values()) == 1


@pytest.mark.parametrize("fault", ["rate_limit", "slow_down", "overloaded", "server_error", "bad_gateway"])
@pytest.mark.parametrize("retry_after_s", [None, 0.01])
def test_passing_trouble_loses_nothing(case: Case, fault: str, retry_after_s: float | None) -> None:
    case.sandbox.configure(retry_after_s=retry_after_s)
    for path in (CHAT, FILES, BATCHES):
        case.sandbox.script(path, fault, times=3)
    run = case.worked(case.shard(10))
    assert run.count(Outcome.ANSWERED) == 10
    assert case.sandbox.books()["requests"]["billed"] == 10


@pytest.mark.parametrize("fault", ["drop_before", "drop_after", "error_after"])
def test_replies_that_are_lost_lose_nothing(case: Case, fault: str) -> None:
    for path in (CHAT, FILES, BATCHES):
        case.sandbox.script(path, fault, times=2)
    run = case.worked(case.shard(10))
    assert run.count(Outcome.ANSWERED) == 10
    if case.tier is Tier.BATCH:
        books = case.sandbox.books()
        assert (books["batches_created"], books["requests"]["billed_twice"]) == (1, 0)


def test_trouble_that_stays_ends_as_incomplete_or_as_a_failure_of_the_item(case: Case) -> None:
    case.sandbox.configure(faults={"server_error": 1.0})
    if case.tier is Tier.BATCH:
        with pytest.raises(Incomplete, match=NAME):
            case.worked(case.shard(2))
        return
    run = case.worked(case.shard(2))
    assert run.count(Outcome.ERRORED) == 2
    assert {(answer.status_code, answer.n_tries) for answer in run.answers} == {(500, QUICK.n_tries)}


def test_an_unreachable_endpoint_is_not_the_items_fault(case: Case) -> None:
    with pytest.raises(Incomplete, match=NAME):
        case.worked(case.shard(5), case.open(base_url="http://127.0.0.1:9/v1"))


# Batches only.


@only(Tier.BATCH)
def test_submitting_twice_makes_one_batch(case: Case) -> None:
    shard = case.shard(3)
    receipts = []
    for _ in range(3):  # each in a process that knows nothing of the others
        with closing(case.open()) as way:
            receipts.append(way.submit(shard, NOTHING_SENT, lambda _: None))
    assert len(set(receipts)) == 1
    books = case.sandbox.books()
    assert (books["batches_created"], books["files_uploaded"]) == (1, 1)


@only(Tier.BATCH)
def test_a_crash_after_the_upload_uses_the_file_again(case: Case) -> None:
    shard = case.shard(3)
    noted: list[Receipt] = []

    def crash(receipt: Receipt) -> None:
        noted.append(receipt)
        raise KeyboardInterrupt

    for receipt in (NOTHING_SENT, None):
        with closing(case.open()) as way, pytest.raises(KeyboardInterrupt):
            way.submit(shard, receipt or noted[0], crash)
    assert noted[0].input_file_id == noted[1].input_file_id
    case.worked(shard)
    books = case.sandbox.books()
    assert (books["batches_created"], books["files_uploaded"]) == (1, 1)


@only(Tier.BATCH)
def test_a_noted_file_that_is_gone_is_uploaded_again(case: Case) -> None:
    with closing(case.open()) as way:
        receipt = way.submit(case.shard(2), Receipt(input_file_id="file-that-never-was"), lambda _: None)
    assert receipt.input_file_id != "file-that-never-was"


@only(Tier.BATCH)
@pytest.mark.parametrize("fault", ["drop_after", "error_after"])
@pytest.mark.parametrize("path", [FILES, BATCHES])
def test_a_call_that_passed_unheard_is_adopted(case: Case, fault: str, path: str) -> None:
    shard = case.shard(3)
    with closing(case.open()) as way:
        way.submit(case.shard(1, name="another"), NOTHING_SENT, lambda _: None)  # the lists are read by now
        case.sandbox.script(path, fault)  # the next listing of that path …
        case.sandbox.script(path, fault)  # … or the call itself
        way.submit(shard, NOTHING_SENT, lambda _: None)
    books = case.sandbox.books()
    assert (books["batches_created"], books["files_uploaded"]) == (2, 2)


@only(Tier.BATCH)
def test_lines_that_fail_or_vanish_are_named(case: Case) -> None:
    for fault in ("line_server_error", "line_timeout", "line_lost"):
        case.sandbox.script("batch-line", fault, times=4)
    run = case.worked(case.shard(20))
    assert (run.count(Outcome.ANSWERED), run.count(Outcome.ERRORED), run.count(Outcome.MISSING)) == (8, 8, 4)
    assert {answer.error_code for answer in run.answers if answer.outcome is Outcome.ERRORED} == {
        "server_error",
        "request_timeout",
    }


@only(Tier.BATCH)
@pytest.mark.parametrize("empty", ["null", ""])
def test_a_batch_may_have_only_an_error_file(case: Case, empty: str) -> None:
    case.sandbox.configure(faults={"line_server_error": 1.0}, empty_error_file=empty)
    assert case.worked(case.shard(3)).count(Outcome.ERRORED) == 3


@only(Tier.BATCH)
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(("end", "outcome"), [("cancel", Outcome.CANCELLED), ("expire", Outcome.EXPIRED)])
def test_what_was_answered_before_the_end_is_kept(case: Case, end: str, outcome: Outcome, listed: bool) -> None:
    case.sandbox.configure(in_progress_s=200_000.0, unexecuted_in_error_file=listed)
    shard = case.shard(100)
    with closing(case.open()) as way:
        receipt = way.submit(shard, NOTHING_SENT, lambda _: None)
        case.sandbox.advance(60_000.0)
        assert way.poll(shard, receipt).state is BatchState.WAITING
        with pytest.raises(Incomplete):
            next(way.answers(shard, receipt, ()))
        if end == "cancel":
            way.cancel(shard, receipt)
        case.wait(way, shard, receipt, 60_000.0)
        assert way.poll(shard, receipt).state is BatchState.READY
        run = Run(receipt, [answer for group in way.answers(shard, receipt, ()) for answer in group])
    assert set(run.outcomes.values()) == {Outcome.ANSWERED, outcome}
    assert 20 < run.count(Outcome.ANSWERED) < 60
    assert len(run.answers) == 100


@only(Tier.BATCH)
def test_cancelling_what_has_ended_or_was_never_sent_is_fine(case: Case) -> None:
    run = case.worked(case.shard(2))
    with closing(case.open()) as way:
        way.cancel(case.shard(2), run.receipt)
        way.cancel(case.shard(2, name="never-sent"), NOTHING_SENT)


@only(Tier.BATCH)
def test_a_queue_without_room_is_told_and_a_failed_batch_is_no_obstacle(case: Case) -> None:
    shard = case.shard(30)
    for fail_fast in (True, False) if case.endpoint.kind is EndpointKind.AZURE else (False,):
        case.sandbox.configure(enqueued_tokens=10, fail_fast=fail_fast)
        with closing(case.open()) as way:
            if fail_fast:
                with pytest.raises(EnqueuedFull, match="shard-1"):
                    way.submit(shard, NOTHING_SENT, lambda _: None)
                continue
            rejected = way.submit(shard, NOTHING_SENT, lambda _: None)
            case.wait(way, shard, rejected)
            progress = way.poll(shard, rejected)
            assert (progress.state, progress.error_code) == (BatchState.REJECTED, "token_limit_exceeded")
    case.sandbox.configure(enqueued_tokens=None, fail_fast=False)
    run = case.worked(shard)
    assert run.count(Outcome.ANSWERED) == 30
    assert run.receipt.batch_id != rejected.batch_id
    assert run.receipt.input_file_id == rejected.input_file_id


@only(Tier.BATCH)
def test_a_rejected_batch_tells_line_and_code(case: Case) -> None:
    shard = case.shard(3)
    shard.path.write_bytes(shard.path.read_bytes() + shard.path.read_bytes())
    with closing(case.open()) as way:
        receipt = way.submit(shard, NOTHING_SENT, lambda _: None)
        case.wait(way, shard, receipt)
        progress = way.poll(shard, receipt)
    assert (progress.state, progress.error_code) == (BatchState.REJECTED, "duplicate_custom_id")
    assert progress.error_message and progress.error_message.startswith("line 4")


@only(Tier.BATCH)
def test_result_files_are_fetched_once_and_a_vanished_one_leaves_its_requests_missing(case: Case) -> None:
    run = case.worked(case.shard(4))
    kept = [path for path in case.folder.iterdir() if path.name.startswith("shard-1.file")]
    assert kept and not list(case.folder.glob("*.part"))
    delete_result(case, run.receipt)
    with closing(case.open()) as way:
        again = [answer for group in way.answers(case.shard(4), run.receipt, ()) for answer in group]
    assert again == run.answers  # from the copies here
    for path in kept:
        path.unlink()
    with closing(case.open()) as way:
        gone = [answer for group in way.answers(case.shard(4), run.receipt, ()) for answer in group]
    assert [answer.outcome for answer in gone] == [Outcome.MISSING] * 4


def delete_result(case: Case, receipt: Receipt) -> None:
    """Delete the batch's output file as its owner would."""
    headers = {"Authorization": f"Bearer {KEY}", "api-key": KEY}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(path: str, method: str) -> Any:
        url = f"{case.sandbox.base_url}/{path}"
        with opener.open(urllib.request.Request(url, headers=headers, method=method), timeout=10) as response:
            return orjson.loads(response.read())

    file_id = str(call(f"batches/{receipt.batch_id}", "GET")["output_file_id"])
    call(f"files/{file_id}", "DELETE")


@only(Tier.BATCH)
def test_an_unknown_batch_names_the_variable_to_check(case: Case) -> None:
    with closing(case.open()) as way, pytest.raises(EndpointError, match=VARIABLE):
        way.poll(case.shard(1), Receipt(batch_id="batch_of_somebody_else"))


# Realtime only.


@only(Tier.REALTIME)
def test_an_unknown_model_is_told_before_the_rest_is_tried(case: Case) -> None:
    shard = case.shard(50, model="no-such-model")
    with pytest.raises(EndpointError, match=NAME):
        case.worked(shard, case.open(concurrency=2, model="no-such-model"))
    assert case.sandbox.books()["requests"]["billed"] == 0


@only(Tier.REALTIME)
def test_limits_are_kept_and_nothing_is_lost(case: Case) -> None:
    case.sandbox.configure(rpm=6_000, tpm=10_000_000)
    run = case.worked(case.shard(150), case.open(rpm=6_000, tpm=10_000_000))
    assert run.count(Outcome.ANSWERED) == 150
    assert case.sandbox.books()["rate_limited"] == 0


@only(Tier.REALTIME)
def test_no_more_are_in_flight_than_allowed(case: Case) -> None:
    case.sandbox.configure(latency_s=0.005)
    case.worked(case.shard(60), case.open(concurrency=4))
    assert case.sandbox.books()["max_in_flight"] == 4


@only(Tier.REALTIME)
def test_a_hanging_request_times_out_and_is_tried_again(case: Case) -> None:
    case.sandbox.script(CHAT, "hang")
    run = case.worked(case.shard(3), case.open(timeout_s=0.2))
    assert run.count(Outcome.ANSWERED) == 3
    assert sorted(answer.n_tries for answer in run.answers) == [1, 1, 2]


@only(Tier.REALTIME)
def test_a_wait_of_hours_is_not_sat_out(case: Case) -> None:
    case.sandbox.configure(retry_after_s=7_200.0)
    case.sandbox.script(CHAT, "rate_limit")
    with pytest.raises(Incomplete, match="120 minutes"):
        case.worked(case.shard(3), case.open(concurrency=1))


@only(Tier.REALTIME)
def test_answers_that_arrived_come_before_the_stop(case: Case) -> None:
    shard = case.shard(20)
    with closing(case.open(concurrency=1)) as way:
        answers = way.answers(shard, NOTHING_SENT, ())
        case.sandbox.script(CHAT, "refusal", times=5)  # five are answered …
        case.sandbox.script(CHAT, "insufficient_quota", times=9)  # … before the money ends
        assert len(next(answers)) == 5
        with pytest.raises(QuotaExhausted):
            next(answers)


@only(Tier.REALTIME)
def test_a_cancel_yields_what_is_in_flight_and_ends(case: Case) -> None:
    case.sandbox.configure(latency_s=0.05)
    shard = case.shard(5_000)
    with closing(case.open(concurrency=10)) as way:
        answers = way.answers(shard, NOTHING_SENT, ())
        seen = next(answers)
        way.cancel(shard, NOTHING_SENT)
        rest = [answer for group in answers for answer in group]
    n_billed = case.sandbox.books()["requests"]["billed"]
    assert len(seen) + len(rest) == n_billed < 5_000


@only(Tier.REALTIME)
def test_a_reader_that_goes_away_stops_the_sending(case: Case) -> None:
    case.sandbox.configure(latency_s=0.01)
    shard = case.shard(5_000)
    with closing(case.open(concurrency=4)) as way:
        answers = way.answers(shard, NOTHING_SENT, ())
        next(answers)
        answers.close()  # type: ignore[attr-defined]
        asked = case.sandbox.books()["requests"]["asked"]
        assert asked < 5_000
        # The transport is still good, and nothing of the first reading comes up in the second.
        again = way.answers(case.shard(3, name="second"), NOTHING_SENT, ())
        assert sum(len(group) for group in again) == 3


@only(Tier.REALTIME)
@pytest.mark.parametrize("fault", ["rate_limit", "overloaded"])
def test_a_storm_costs_no_item_its_tries(case: Case, fault: str) -> None:
    case.sandbox.script(CHAT, fault, times=150)  # each request's own tries, 8, would be spent many times over
    with closing(case.open()) as way:
        answers = [answer for group in way.answers(case.shard(40), NOTHING_SENT, ()) for answer in group]
        paces = way.paces()
    assert [answer.outcome for answer in answers] == [Outcome.ANSWERED] * 40
    assert sum(answer.n_tries for answer in answers) == 190
    dropped = sum(pace.n_limited if fault == "rate_limit" else pace.n_failed for pace in paces)
    assert (dropped, sum(pace.n_answered for pace in paces)) == (150, 40)
    assert {pace.endpoint for pace in paces} == {NAME}


@only(Tier.REALTIME)
def test_nothing_but_errors_ends_the_run_and_fails_no_item(case: Case) -> None:
    case.sandbox.configure(faults={"overloaded": 1.0})
    impatient = replace(QUICK, n_rate_limited=100_000, longest_wait_s=0.3)
    with pytest.raises(Incomplete, match="nothing but errors"):
        case.worked(case.shard(300), case.open(patience=impatient))


@only(Tier.REALTIME)
def test_an_unreachable_endpoint_is_told_soon_however_many_wait(case: Case) -> None:
    tireless = replace(QUICK, n_tries=100_000, cap_s=0.00001)  # unreachable for 0.125 s is told, whoever waits
    with pytest.raises(Incomplete, match="can't be reached"):
        case.worked(case.shard(2_000), case.open(patience=tireless, base_url="http://127.0.0.1:9/v1"))


@only(Tier.REALTIME)
def test_more_are_in_flight_where_that_is_faster(case: Case) -> None:
    case.sandbox.configure(latency_s=0.05)
    case.worked(case.shard(1_500))
    assert case.sandbox.books()["max_in_flight"] > START  # how far depends on how busy this machine is
