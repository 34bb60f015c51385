"""What every way costs beside what it keeps: measured told apart from assumed, on the screen, as JSON and on a page."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from small_job import EXPERTISE, LUNA, REALTIME_NAIVE, TOPIC, endpoint, packed, plan, truncated

from semtel_batch.console.layout import Page
from semtel_batch.console.tradeoff_view import view_tradeoff
from semtel_batch.measurements import Kind, Measurement
from semtel_batch.page.tradeoff_sections import tradeoff_sections
from semtel_batch.plans import Alternative, Estimate, Plan, Quality
from semtel_batch.quality.agreement import clopper_pearson
from semtel_batch.records import Classifier, Doubt, Keep, Strategy, Tier
from semtel_batch.strategies import bare
from semtel_batch.studies.tradeoff import Basis, Tradeoff, Way, as_json, tradeoff

COMPRESSED = Strategy(recipe="compressed", tier=Tier.BATCH, compress_rate=0.5, compressor="rules")
SMALL = endpoint("small", model="gpt-6-nano")


def estimate(strategy: Strategy, usd: str, change: float, at: str = "main", *, assumed: bool = True) -> Estimate:
    return Estimate(
        strategy=strategy,
        endpoint=at,
        lines=(),
        usd=Decimal(usd),
        usd_high=Decimal(usd),
        time_s=60.0,
        quality=Quality(label_change=change, assumed=assumed, basis="by hand"),
    )


def measured(strategy: Strategy, classifier: Classifier, x: int, **changes: Any) -> Measurement:
    made = Measurement(
        calibration_id="c1",
        plan_id="p1",
        measured_at=datetime(2026, 11, 25, tzinfo=UTC),
        kind=Kind.CHANGE,
        classifier=classifier.name,
        version=classifier.version,
        companions=(classifier.version,),
        reference=LUNA,
        model=LUNA,
        strategy=bare(strategy),
        source="conversations.jsonl",
        sample="E",
        seed=1,
        n=100,
        n_different=x,
    )
    return replace(made, **changes)


CHOSEN = estimate(replace(packed(10), classifiers_per_request=1), "2", 0.1)
WAYS = (
    CHOSEN,
    estimate(replace(packed(10), classifiers_per_request=1, tier=Tier.REALTIME), "4", 0.1),
    estimate(truncated(512, Keep.TAIL), "5", 0.3),
    estimate(COMPRESSED, "6", 0.15),
    estimate(truncated(64), "6.5", 0.25, assumed=False),
    estimate(REALTIME_NAIVE, "9", 0.0),
    estimate(replace(REALTIME_NAIVE, recipe="cheap"), "1", 1.0, "small"),
)
EVIDENCE = (
    measured(CHOSEN.strategy, TOPIC, 2),
    measured(CHOSEN.strategy, TOPIC, 90),  # older: the newest counts
    measured(CHOSEN.strategy, EXPERTISE, 5),
    measured(truncated(512, Keep.TAIL), TOPIC, 40),
    measured(truncated(512, Keep.TAIL), EXPERTISE, 1),
    measured(truncated(256, Keep.TAIL), TOPIC, 60),
    measured(truncated(512), TOPIC, 3, max_tokens=900, min_tokens=0),  # of a length class
    measured(truncated(512), TOPIC, 3, model="gpt-6-nano"),
    measured(truncated(512, doubt=Doubt.GRADER), TOPIC, 3),
    measured(COMPRESSED, TOPIC, 3, version="b2:another"),
    measured(REALTIME_NAIVE, TOPIC, 4, kind=Kind.SELF_FLIP),
)


def made(**changes: Any) -> Plan:
    alternatives = tuple(Alternative(estimate=one, feasible=True) for one in WAYS)
    return plan(**{"chosen": CHOSEN, "alternatives": alternatives, "naive_usd": Decimal(9), **changes})


def picture(evidence: tuple[Measurement, ...] = EVIDENCE, **changes: Any) -> Tradeoff:
    return tradeoff(made(**changes), evidence, (endpoint(), SMALL))


def way(found: Tradeoff, usd: str) -> Way:
    return next(one for one in found.ways if one.usd == Decimal(usd))


def test_a_measured_way_has_what_was_seen_of_its_worst_classifier() -> None:
    found = way(picture(), "2")
    low, high = clopper_pearson(5, 100)
    assert (found.basis, found.classifier, found.n, found.n_different) == (Basis.MEASURED, "expertise", 100, 5)
    assert (found.agreement, found.low, found.high) == (0.95, 1 - high, 1 - low)
    assert found.is_chosen


def test_what_was_not_measured_says_so() -> None:
    found = picture()
    bases = {str(one.usd): one.basis for one in found.ways}
    assert bases == {
        "1": Basis.UNKNOWN,
        "2": Basis.MEASURED,
        "5": Basis.MEASURED,
        "6": Basis.ASSUMED,
        "6.5": Basis.BOUNDED,
        "9": Basis.EQUAL,
    }, "of ways that differ in tier only, the cheaper one"
    assert way(found, "1").agreement is None
    assert way(found, "6").agreement == 0.85
    bounded = way(found, "6.5")
    assert (bounded.low, bounded.high) == (0.75, 1.0)
    assert all(one.basis is not Basis.MEASURED for one in picture(()).ways)


def test_one_classifier_that_was_not_measured_leaves_a_way_assumed() -> None:
    assert way(picture(EVIDENCE[:2]), "2").basis is Basis.ASSUMED


def test_evidence_of_other_data_stays_assumed() -> None:
    other = tuple(replace(one, source="other.jsonl") for one in EVIDENCE)
    found = way(picture(other), "2")
    assert (found.basis, found.agreement, found.n) == (Basis.ASSUMED, 0.95, 100)


def test_networks_before_a_way_are_a_way_of_their_own() -> None:
    networks = estimate(replace(CHOSEN.strategy, recipe="distilled"), "0.5", 0.06, assumed=False)
    ways = tuple(Alternative(estimate=one, feasible=True) for one in (networks, *WAYS))
    found = picture(alternatives=ways)
    assert (way(found, "0.5").recipe, way(found, "0.5").basis) == ("distilled", Basis.BOUNDED)
    assert way(found, "2").basis is Basis.MEASURED, "the way itself is still there"


def test_the_best_trades_agree_more_than_all_that_is_cheaper() -> None:
    assert [str(one.usd) for one in picture().ways if one.is_best] == ["2", "9"]


def test_a_mix_stands_among_the_ways_under_its_own_name() -> None:
    mix = replace(CHOSEN, usd=Decimal("1.5"), quality=Quality(label_change=0.05, assumed=False, basis="a mix"))
    found = way(picture(chosen=mix), "1.5")
    assert (found.is_chosen, found.basis, found.low) == (True, Basis.BOUNDED, 0.95)
    assert not way(picture(chosen=mix), "2").is_chosen


def test_curves_are_of_cutting_alone_on_the_reference_model() -> None:
    found = picture()
    assert [(c.classifier, c.keep, c.truncate_to, c.n_different) for c in found.cuts] == [
        ("topic", Keep.TAIL, 256, 60),
        ("topic", Keep.TAIL, 512, 40),
        ("expertise", Keep.TAIL, 512, 1),
    ]
    assert found.cuts[0].usd_per_1000 is None, "no way of the plan cuts there"
    assert found.cuts[1].usd_per_1000 == Decimal(5000)
    assert [(one.classifier, one.n_different) for one in found.noise] == [("topic", 4)]


def shown(found: Tradeoff, width: int = 120, *, ascii_only: bool = False) -> str:
    screen = Console(file=StringIO(), width=width, color_system=None)
    for view in view_tradeoff(found, Page(width=width, ascii_only=ascii_only)):
        screen.print(view)
    return screen.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_capitals_were_measured_and_small_letters_are_assumed(width: int) -> None:
    told = shown(picture(), width)
    plot, _, table = told.partition("95 % interval")
    for mark in "ABCDa":
        assert mark in plot.partition("cheapest tier.")[2]
    rows = {line.split()[0].strip("*"): line for line in table.split("\n") if line[:2] == "  " and line[2:3].strip()}
    assert "compressed" in rows["a"]
    assert "packed" in rows["A"]
    assert all(mark in rows for mark in "ABCD")
    assert "Of 1 more it is not known" in told
    assert "the reference agrees with itself in 96 % (n=100)" in told
    assert "Truncation" in told
    assert max(map(len, told.split("\n"))) <= width


def test_without_a_calibration_the_command_for_one_is_said() -> None:
    told = shown(picture(()))
    assert "run: semtel-batch calibrate" in told
    assert "Truncation" not in told


def test_as_json_all_ways_are_there() -> None:
    document = json.loads(json.dumps(as_json(picture())))
    assert [one["usd"] for one in document["ways"]] == ["1", "2", "5", "6", "6.5", "9"]
    assert document["ways"][1]["basis"] == "measured"
    assert document["cuts"][0]["truncate_to"] == 256


def test_the_page_has_the_picture_and_the_curves() -> None:
    sections = {one.key: one for one in tradeoff_sections(picture())}
    assert set(sections) == {"tradeoff", "cuts"}
    assert "<svg" in sections["tradeoff"].chart
    table = sections["tradeoff"].table
    assert table is not None
    assert {row[2] for row in table.rows} == {
        "chosen, measured",
        "measured",
        "assumed",
        "measured, at least",
        "by construction",
    }
    assert [one.key for one in tradeoff_sections(picture(()))] == ["tradeoff"]
