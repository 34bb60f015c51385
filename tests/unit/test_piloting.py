"""How a pilot is laid out and judged, and what a plan may promise by it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from test_calibrate import CALIBRATION, NAIVE, PACKED, counted
from test_planner import OPENAI, TASK, TOPIC, job

from semtel_batch.measurements import Count, Packs, Pilot, Tried
from semtel_batch.planner import promise
from semtel_batch.planner.optimize import choose
from semtel_batch.quality.certificate import Target, sample_size, zero_error_size
from semtel_batch.records import Strategy
from semtel_batch.strategies import bare
from semtel_batch.studies import piloting
from semtel_batch.studies.calibrate import Measured

TARGET = Target(max_disagreement=0.05, delta=0.05)
ROOM = piloting.Room(usd=Decimal(100), n_fresh=9_800, n_verify=480, reference_usd_per_1000=Decimal(1))
PILOT = Pilot(
    min_agreement=0.95,
    delta=0.05,
    reference=OPENAI.priced_as,
    reference_plan_id="p1",
    population=9_800,
    n_data=10_000,
)


def count(n: int, n_different: int, version: str = TOPIC.version) -> Count:
    return Count(classifier="topic", version=version, companions=(version,), n=n, n_different=n_different)


def way(k: int, x: int, usd: str, n: int = 100) -> Measured:
    strategy = replace(PACKED, conversations_per_request=k, recipe=f"packed{k}")
    changes = (counted(bare(strategy), x, n),)
    return Measured(
        strategy=strategy, model=OPENAI.priced_as, plan_id=f"e{k}", usd_per_1000=Decimal(usd), changes=changes
    )


def names(path: tuple[Measured, ...]) -> list[int]:
    return [one.strategy.conversations_per_request for one in path]


def test_the_path_goes_from_the_safest_to_the_cheapest_and_leaves_out_what_saves_nothing() -> None:
    ways = [way(20, 9, "0.2"), way(10, 3, "0.3"), way(5, 1, "0.5"), way(4, 0, "1.2"), way(6, 2, "0.49")]
    assert names(piloting.lay(ways, Decimal(1), 0.05)) == [5, 10], "4 is dear, 6 saves little on 5, 20 changes 9 %"
    assert piloting.lay([way(20, 9, "0.2")], Decimal(1), 0.05) == ()


def test_a_pilot_is_as_large_as_money_and_data_bear_and_never_below_what_can_certify() -> None:
    path = piloting.lay([way(5, 1, "0.5"), way(10, 3, "0.3")], Decimal(1), 0.05)
    assert zero_error_size(TARGET) == 59, "ln 0.05 / ln 0.95"
    rich = piloting.lay_out(path, ROOM, TARGET)
    assert (rich.n, names(rich.path), rich.problem) == (sample_size(TARGET, 0.025), [5, 10], "")
    # $0.6: 59 at (1 + 5 × 0.5 + 10 × 0.3)/1000 each is $0.38; nine tenths of it are counted on.
    tight = piloting.lay_out(path, replace(ROOM, usd=Decimal("0.6")), TARGET)
    assert (tight.n, names(tight.path)) == (int(0.9 * 0.6 / 0.0065), [5, 10])
    one = piloting.lay_out(path, replace(ROOM, usd=Decimal("0.3")), TARGET)
    assert names(one.path) == [5], "what costs most to try is left out first"
    none = piloting.lay_out(path, replace(ROOM, usd=Decimal("0.1")), TARGET)
    assert none.n == 0
    assert "no certificate of 95 % at 95 % confidence is possible with $0.1000" in none.problem
    few = piloting.lay_out(path, replace(ROOM, n_fresh=200), TARGET)
    assert "is possible: it takes" in few.problem, "40 packs of 5: fewer than could certify"
    assert "cheaper" in piloting.lay_out((), ROOM, TARGET).problem


def tried(pilot: Pilot, k: int, x: int, n: int = 400) -> Pilot:
    return piloting.with_step(pilot, way(k, 0, "0.5"), f"v{k}", (count(n=n, n_different=x),))


def test_the_first_that_fails_ends_the_path_and_the_last_that_held_is_certified() -> None:
    pilot = tried(tried(PILOT, 5, 4), 10, 9)
    assert [one.is_certified for one in pilot.steps] == [True, True]
    pilot = tried(pilot, 20, 30)
    assert not pilot.steps[-1].is_certified
    assert "packed20 did not hold" in pilot.stopped
    assert pilot.certified == pilot.steps[1]
    assert not tried(pilot, 4, 0).steps[-1].is_certified, "behind a failure nothing is certified"
    assert tried(PILOT, 5, 0, n=40).certified is None, "40 without a change show no 95 %"


def test_each_further_pilot_of_the_same_data_is_made_at_half_the_level() -> None:
    assert [piloting.level(n) for n in range(3)] == [0.05, 0.025, 0.0125]


def test_the_same_data_by_another_path_is_the_same_data() -> None:
    found = replace(CALIBRATION, id="new", source="chats.jsonl")
    sources = ("./chats.jsonl", str(Path("chats.jsonl").resolve()), "other.jsonl")
    others = [replace(CALIBRATION, id=source, source=source, pilot=PILOT) for source in sources]
    unasked = replace(others[0], id="unasked", pilot=replace(PILOT, reference_plan_id=None))
    assert piloting.n_before([found, unasked, *others], found) == 2


def test_bad_ways_are_certified_no_more_often_than_delta() -> None:
    """A path whose second way breaks the promise by one label: drawn 2,000 times, from the hypergeometric itself."""
    rng = np.random.default_rng(7)
    population, n, bad = 2_000, 200, 101
    wrong = 0
    for x1, x2 in zip(
        rng.hypergeometric(60, population - 60, n, 2_000),
        rng.hypergeometric(bad, population - bad, n, 2_000),
        strict=True,
    ):
        pilot = tried(replace(PILOT, population=population), 5, int(x1), n)
        if pilot.certified is not None:
            wrong += tried(pilot, 10, int(x2), n).steps[-1].is_certified
    assert 0 < wrong / 2_000 <= 0.05


# -- what plans make of it -----------------------------------------------------------------------------------------

STRATEGY = replace(PACKED, conversations_per_request=10)
COUNTS = (count(n=386, n_different=7),)


def held(strategy: Strategy, *, certified: bool = True) -> Tried:
    return Tried(
        recipe="packed",
        strategy=bare(strategy),
        model=OPENAI.priced_as,
        plan_id="v1",
        counts=COUNTS if certified else (count(n=386, n_different=60),),
        is_certified=certified,
    )


CERTIFIED = replace(
    PILOT, steps=(held(STRATEGY), held(replace(STRATEGY, conversations_per_request=20), certified=False))
)


OTHERS = replace(held(STRATEGY), counts=(count(386, 7, TASK.version),))


def test_a_plan_takes_the_certified_way_and_says_by_what() -> None:
    evidence = tuple(counted(replace(NAIVE, conversations_per_request=k), 0, 200) for k in (5, 10, 20))
    asked = job([50] * 10_000, classifiers=(TOPIC,), measured=evidence, pilots=(CERTIFIED,))
    plan = choose(replace(asked, objective=replace(asked.objective, min_agreement=0.95)))
    assert plan.certified
    assert plan.chosen.strategy.conversations_per_request == 10, "20 is cheaper, and was refused on fresh conversations"
    assert plan.chosen.quality.label_change <= 0.05
    wording = (
        f"with 95 % confidence at least 95 % of topic labels equal those of reference {OPENAI.priced_as} asked one "
        "by one (pilot n=386, x=7)"
    )
    assert plan.chosen.quality.basis == wording
    refused = [one.reason for one in plan.alternatives if one.estimate.strategy.conversations_per_request == 5]
    assert set(refused) == {"not certified: the pilot for 95 % certified packed"}
    strict = choose(replace(asked, objective=replace(asked.objective, min_agreement=0.97)))
    assert strict.chosen.strategy.conversations_per_request != 20, "the bound that fresh conversations gave counts"
    assert not strict.certified or strict.chosen.quality.label_change == 0


def test_packs_that_broke_since_are_sent_smaller_and_are_not_the_certified_way() -> None:
    asked = job([50] * 10_000, classifiers=(TOPIC,), pilots=(CERTIFIED,))
    asked = replace(asked, objective=replace(asked.objective, min_agreement=0.95))
    broken = Packs(model=OPENAI.priced_as, classifiers=(TOPIC.version,), size=10, n=300, n_broken=200)
    plan = choose(replace(asked, packs=(broken,)))
    assert choose(asked).chosen.strategy.conversations_per_request == 10
    assert plan.chosen.strategy.conversations_per_request == 1 and plan.certified, "by construction, as the naive way"


def test_where_nothing_was_certified_labels_stay_the_references() -> None:
    failed = replace(PILOT, steps=(held(STRATEGY, certified=False),))
    evidence = (counted(replace(NAIVE, conversations_per_request=5), 0, 200),)
    asked = job([50] * 10_000, classifiers=(TOPIC,), measured=evidence, pilots=(failed,))
    plan = choose(replace(asked, objective=replace(asked.objective, min_agreement=0.95)))
    assert (plan.certified, plan.chosen.quality.label_change) == (True, 0.0)
    looser = choose(replace(asked, objective=replace(asked.objective, min_agreement=0.9)))
    assert looser.chosen.strategy.conversations_per_request == 5
    assert not looser.certified, "a pilot for more says nothing of it; what was measured does, uncertified"


@pytest.mark.parametrize("changes", [{"reference": "another"}, {"steps": (OTHERS,)}, {"min_agreement": 0.9}])
def test_a_pilot_of_other_classifiers_or_models_or_for_less_certifies_nothing(changes: dict[str, object]) -> None:
    other = replace(CERTIFIED, **changes)  # type: ignore[arg-type]
    asked = job([50] * 10_000, classifiers=(TOPIC,), pilots=(other,))
    asked = replace(asked, objective=replace(asked.objective, min_agreement=0.95))
    assert not promise.is_certified(asked, STRATEGY, OPENAI)
    assert promise.is_certified(replace(asked, pilots=(CERTIFIED,)), STRATEGY, OPENAI)


def test_a_later_failure_does_not_take_back_a_certificate_at_its_own_level() -> None:
    failed = replace(PILOT, delta=0.025, steps=(held(STRATEGY, certified=False),))
    asked = job([50] * 10_000, classifiers=(TOPIC,), pilots=(failed, CERTIFIED))
    assert promise.pilot_of(asked) == CERTIFIED
