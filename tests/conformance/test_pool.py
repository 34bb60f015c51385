"""Several endpoints as one: who is asked, what becomes of a member that fails, and when that ends the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from test_transport import CHAT, NOTHING_SENT, PLAIN, QUICK, request

from semtel_batch.errors import EndpointError, Incomplete, KeyMissing, QuotaExhausted
from semtel_batch.records import Answer, Change, Endpoint, EndpointKind, Event, Outcome, Shard, Stage, Tier
from semtel_batch.sandbox.local import SandboxHandle, running
from semtel_batch.sandbox.settings import Settings
from semtel_batch.transport.endpoints import open_transport
from semtel_batch.transport.verdicts import Patience

MODEL, DEPLOYMENT = "gpt-5.4-mini", "labels-standard"
KEYS = {"OPENAI_KEY": "sk-one", "AZURE_KEY": "sk-two"}
NOWHERE = "http://127.0.0.1:9/v1"


@dataclass(frozen=True)
class Seen:
    answers: list[Answer]
    events: list[Event]

    @property
    def by(self) -> Counter[str | None]:
        assert len({answer.custom_id for answer in self.answers}) == len(self.answers), "an answer came twice"
        assert {answer.outcome for answer in self.answers} == {Outcome.ANSWERED}
        return Counter(answer.endpoint for answer in self.answers)

    @property
    def changes(self) -> list[tuple[str, Change]]:
        return [(event.endpoint, event.change) for event in self.events]


@dataclass(frozen=True)
class Pair:
    """OpenAI and an Azure deployment of the same model."""

    sandboxes: tuple[SandboxHandle, SandboxHandle]
    members: tuple[Endpoint, Endpoint]
    folder: Path

    def asked(
        self,
        n: int,
        *changes: dict[str, Any],
        patience: Patience = QUICK,
        keys: Mapping[str, str] = KEYS,
    ) -> Seen:
        """Have `n` requests answered by both, each with its changes."""
        members = [replace(one, **more) for one, more in zip(self.members, changes or ({}, {}), strict=True)]
        path = self.folder / "shard-1.jsonl"
        path.write_bytes(b"".join(named_first(number) for number in range(n)))
        with closing(open_transport(members, Tier.REALTIME, keys, patience=patience)) as way:
            answers = [answer for group in way.answers(shard(path, n), NOTHING_SENT, ()) for answer in group]
            return Seen(answers, list(way.events()))

    def billed(self) -> list[int]:
        return [sandbox.books()["requests"]["billed"] for sandbox in self.sandboxes]


def named_first(number: int) -> bytes:
    """A line as we compose it: the model first."""
    line = request(number)
    return line.replace(b'"body":{', b'"body":{"model":"%s",' % MODEL.encode(), 1)


def shard(path: Path, n: int) -> Shard:
    return Shard(
        id=1,
        key="shard-1",
        plan_id="plan",
        leg=0,
        stage=Stage.CLASSIFY,
        attempt=1,
        classifiers=("mood",),
        endpoint="one",
        tier=Tier.REALTIME,
        path=path,
        n_requests=n,
        n_items=n,
        prompt_tokens=100 * n,
        max_completion_tokens=60 * n,
    )


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[tuple[SandboxHandle, SandboxHandle]]:
    azure = Settings(dress="azure", api_key="sk-two", deployments={DEPLOYMENT: MODEL}, model_behind="scripted")
    with running(Settings(api_key="sk-one", model_behind="scripted")) as one, running(azure) as two:
        yield one, two


@pytest.fixture
def pair(sandboxes: tuple[SandboxHandle, SandboxHandle], tmp_path: Path) -> Pair:
    for sandbox in sandboxes:
        sandbox.configure(**PLAIN)
        sandbox.reset()
    one = Endpoint(
        name="one",
        kind=EndpointKind.OPENAI,
        base_url=sandboxes[0].base_url,
        model=MODEL,
        api_key_env="OPENAI_KEY",
        timeout_s=5.0,
    )
    two = replace(one, name="two", kind=EndpointKind.AZURE, base_url=sandboxes[1].base_url, api_key_env="AZURE_KEY")
    two = replace(two, model=DEPLOYMENT, model_family=MODEL)
    return Pair(sandboxes, (one, two), tmp_path)


def test_all_members_work_and_each_is_asked_by_its_own_name(pair: Pair) -> None:
    seen = pair.asked(300)
    assert seen.by.total() == 300 and set(seen.by) == {"one", "two"}
    assert pair.billed() == [seen.by["one"], seen.by["two"]]
    assert seen.events == []


def test_work_goes_by_what_each_allows(pair: Pair) -> None:
    for sandbox, rpm in zip(pair.sandboxes, (600, 6_000), strict=True):
        sandbox.configure(rpm=rpm, burst_s=1.0)
    seen = pair.asked(330, {"rpm": 600}, {"rpm": 6_000})
    assert seen.by["two"] > 5 * seen.by["one"] > 0


def test_a_slow_member_does_not_hold_up_the_others(pair: Pair) -> None:
    pair.sandboxes[0].configure(latency_s=0.5)
    seen = pair.asked(400, {"concurrency": 2}, {"concurrency": 20})
    assert seen.by["one"] < 40


@pytest.mark.parametrize("fault", ["insufficient_quota"])
def test_a_member_without_quota_is_stopped_and_costs_no_item_a_try(pair: Pair, fault: str) -> None:
    pair.sandboxes[0].script(CHAT, fault, times=1_000)
    impatient = replace(QUICK, n_tries=1, n_rate_limited=1)
    seen = pair.asked(200, patience=impatient)
    assert seen.by == {"two": 200}
    assert seen.changes == [("one", Change.STOPPED)]
    assert "no quota" in seen.events[0].reason


def test_a_member_that_refuses_the_key_is_stopped_and_the_key_is_not_told(pair: Pair) -> None:
    seen = pair.asked(100, patience=replace(QUICK, n_tries=1), keys={**KEYS, "OPENAI_KEY": "sk-wrong-but-secret"})
    assert seen.by == {"two": 100}
    assert seen.changes == [("one", Change.STOPPED)]
    assert "OPENAI_KEY" in seen.events[0].reason and "sk-" not in seen.events[0].reason


def test_a_member_that_does_not_know_the_model_is_stopped(pair: Pair) -> None:
    seen = pair.asked(100, {}, {"model": "no-such-deployment"}, patience=replace(QUICK, n_tries=1))
    assert seen.by == {"one": 100}
    assert seen.changes == [("two", Change.STOPPED)]


def test_a_member_without_a_key_is_left_out(pair: Pair) -> None:
    seen = pair.asked(20, keys={"AZURE_KEY": "sk-two"})
    assert seen.by == {"two": 20}  # composed for the first, which is not there
    assert seen.changes == [("one", Change.STOPPED)]
    with pytest.raises(KeyMissing, match="OPENAI_KEY"):
        pair.asked(1, keys={})


def test_the_last_ones_trouble_is_the_runs(pair: Pair) -> None:
    pair.sandboxes[1].script(CHAT, "insufficient_quota", times=1_000)
    with pytest.raises((QuotaExhausted, EndpointError)) as caught:
        pair.asked(200, keys={**KEYS, "OPENAI_KEY": "sk-wrong"})
    assert "one" in str(caught.value) or "two" in str(caught.value)
    assert pair.billed() == [0, 0]


@pytest.mark.parametrize("fault", ["server_error", "overloaded", "drop_before"])
def test_a_member_that_fails_is_rested_and_its_work_moves(pair: Pair, fault: str) -> None:
    pair.sandboxes[0].configure(faults={fault: 1.0})
    pair.sandboxes[1].configure(latency_s=0.01)
    seen = pair.asked(400, {"concurrency": 20}, {"concurrency": 20})
    assert seen.by == {"two": 400}
    assert seen.changes == [("one", Change.RESTED)]
    asked = pair.sandboxes[0].books()["paths"].get(f"POST {CHAT}", {})
    assert sum(asked.values()) < 200  # single tries, once it is known


def test_an_unreachable_member_costs_nothing_but_a_note(pair: Pair) -> None:
    seen = pair.asked(200, {"base_url": NOWHERE}, {})
    assert seen.by == {"two": 200}
    assert ("one", Change.RESTED) in seen.changes and ("one", Change.STOPPED) not in seen.changes


def test_a_member_that_comes_back_is_used_again(pair: Pair) -> None:
    pair.sandboxes[0].script(CHAT, "overloaded", times=40)
    for sandbox in pair.sandboxes:
        sandbox.configure(latency_s=0.01)
    seen = pair.asked(1_200, {"concurrency": 8}, {"concurrency": 8})
    assert seen.changes == [("one", Change.RESTED), ("one", Change.RESUMED)]
    assert seen.by["one"] > 100


def test_a_wait_of_hours_at_one_is_sat_out_by_the_other(pair: Pair) -> None:
    pair.sandboxes[0].configure(retry_after_s=7_200.0, faults={"rate_limit": 1.0})
    seen = pair.asked(100)
    assert seen.by == {"two": 100}
    assert seen.changes == [("one", Change.RESTED)]
    pair.sandboxes[1].configure(retry_after_s=7_200.0, faults={"rate_limit": 1.0})
    with pytest.raises(Incomplete, match="120 minutes"):
        pair.asked(5)


def test_all_unreachable_is_told_and_fails_no_item(pair: Pair) -> None:
    with pytest.raises(Incomplete, match="can't be reached"):
        pair.asked(20, {"base_url": NOWHERE}, {"base_url": NOWHERE})


def test_trouble_everywhere_spends_an_items_tries_and_no_more(pair: Pair) -> None:
    for sandbox in pair.sandboxes:
        sandbox.configure(faults={"server_error": 1.0})
    seen = pair.asked(3)
    assert {(answer.outcome, answer.n_tries) for answer in seen.answers} == {(Outcome.ERRORED, QUICK.n_tries)}


def test_a_cancel_yields_what_is_in_flight_at_all_of_them(pair: Pair) -> None:
    for sandbox in pair.sandboxes:
        sandbox.configure(latency_s=0.05)
    path = pair.folder / "shard-1.jsonl"
    path.write_bytes(b"".join(named_first(number) for number in range(3_000)))
    whole = shard(path, 3_000)
    with closing(open_transport(pair.members, Tier.REALTIME, KEYS, patience=QUICK)) as way:
        answers = way.answers(whole, NOTHING_SENT, ())
        seen = next(answers)
        way.cancel(whole, NOTHING_SENT)
        n_seen = len(seen) + sum(len(group) for group in answers)
    assert n_seen == sum(pair.billed()) < 3_000
