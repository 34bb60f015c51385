"""What an audit says of finished labels, from what it looked at."""

from __future__ import annotations

import polars as pl
import pytest
from small_job import plan

from semtel_batch.quality.certificate import upper_bound
from semtel_batch.quality.excess import NoiseFloor
from semtel_batch.studies.certify import Aim, Looked, as_json, audit, sample_for, seed_of, target_of


def labels(given: list[str | None], first: int = 0) -> pl.DataFrame:
    rows = [(f"c{first + i}", "topic", label, "exact") for i, label in enumerate(given)]
    return pl.DataFrame(
        rows, schema=dict.fromkeys(("conversation_id", "classifier", "label", "how"), pl.String), orient="row"
    )


def test_only_finished_labels_of_the_sample_are_compared() -> None:
    mine = labels(["Travel"] * 90 + ["Health"] * 9 + [None])
    reference = labels(["Travel"] * 20, first=75)  # c75 … c94
    aim = Aim(target=target_of(0.5, 0.05, 1), look=1, model="gpt-6-luna")
    topic, expertise = audit(plan(), Looked(labels=mine, reference=reference), aim)
    sampled = topic.certificate.sampled
    assert (sampled.n, sampled.n_different, sampled.population) == (20, 5, 99)
    assert topic.certificate.holds
    assert topic.certificate.max_disagreement == pytest.approx(upper_bound(5, 20, 0.05, 99))
    assert topic.certificate.wording == (
        "with 95 % confidence at least 50 % of topic labels equal those of reference gpt-6-luna asked one by one "
        "(n=20, x=5)"
    )
    assert (expertise.certificate.sampled.n, expertise.certificate.holds) == (0, False)
    assert (topic.net, topic.shares, topic.unreachable) == (None, None, None)


def test_noise_above_the_target_is_said_and_shares_are_offered() -> None:
    mine, reference = labels(["Travel", "Health"] * 100), labels(["Travel", "Health"] * 50)
    again = labels(["Travel", "Travel"] * 10 + ["Travel", "Health"] * 40)
    aim = Aim(target=target_of(0.95, 0.05, 1), look=1, model="m")
    topic = audit(plan(), Looked(labels=mine, reference=reference, again=again), aim)[0]
    assert topic.certificate.holds
    assert topic.floor == NoiseFloor(classifier="topic", n=100, n_flipped=10)
    assert "can't be promised" in (topic.unreachable or "")
    assert "with 95 % confidence at most 5 % more topic labels differ" in (topic.net_wording or "")
    shares = {row["label"]: row["share"] for row in as_json(topic)["shares"]}
    assert shares["Travel"] == pytest.approx(0.5)
    known = audit(
        plan(), Looked(labels=mine, reference=reference), aim, [NoiseFloor(classifier="topic", n=50, n_flipped=1)]
    )[0]
    assert (known.unreachable, known.shares) == (None, None)


def test_a_further_audit_is_stricter_and_draws_anew() -> None:
    assert [target_of(0.95, 0.05, look).delta for look in (1, 2, 3)] == [0.05, 0.025, 0.0125]
    assert len({seed_of(plan(), look) for look in range(9)}) == 9
    assert seed_of(plan(), 1) == seed_of(plan(), 1)


def test_the_sample_is_enough_for_half_of_what_is_allowed() -> None:
    assert 350 < sample_for(target_of(0.95, 0.05, 1), 10**6) < 400
    assert sample_for(target_of(0.95, 0.05, 1), 100) == 100
    assert sample_for(target_of(0.999, 0.05, 1), 10**6) == 2_000
