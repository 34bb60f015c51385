"""Which classifiers share a prompt, as a recipe names them: read, priced, measured and run as one grouping."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_calibrate import counted
from test_planner import OPENAI, TASK, TOPIC, classifier, job

from semtel_batch import plans
from semtel_batch.errors import BadStrategy
from semtel_batch.planner.evidence import measured
from semtel_batch.planner.job import grouped_for, groups
from semtel_batch.planner.optimize import choose
from semtel_batch.plans import Objective
from semtel_batch.quality.certificate import upper_bound
from semtel_batch.records import Strategy, Tier
from semtel_batch.strategies import Lever, Recipe, levers_of, load

MOOD = classifier("mood", 3)
THREE = (TOPIC, TASK, MOOD)
NAIVE = Strategy(recipe="", tier=Tier.REALTIME)
APART = replace(NAIVE, groups=(("mood", "topic"),))
EVIDENCE = '[[evidence]]\nlever = "combining"\nlabel_change = 0.03\nsource = "x"\n'


def recipe(folder: Path, grid: str, evidence: str = EVIDENCE) -> Recipe:
    path = folder / "mine.toml"
    path.write_text(f'name = "mine"\nsummary = "x"\n[grid]\ntier = "batch"\n{grid}\n{evidence}')
    return load(path)


def test_a_list_of_lists_is_one_grouping_and_a_list_of_those_several(tmp_path: Path) -> None:
    (one,) = recipe(tmp_path, 'groups = [["topic", "mood"], ["task"]]').strategies()
    assert one.groups == (("topic", "mood"),), "who is named alone stands alone anyway"
    several = recipe(tmp_path, 'groups = [[["topic", "mood"]], [["topic", "task"]], [["task"]]]').strategies()
    assert [s.groups for s in several] == [(("topic", "mood"),), (("topic", "task"),), ()]
    assert levers_of(one) == (Lever.COMBINING,)
    assert one.changes_labels


@pytest.mark.parametrize(
    "wrong",
    [
        'groups = [["topic", "task"], ["topic"]]',
        'groups = [["topic", "topic"]]',
        'groups = ["topic"]',
        "groups = [[]]",
        'groups = [["topic", 3]]',
        "groups = 2",
    ],
)
def test_a_grouping_names_each_classifier_once(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(BadStrategy, match=r"grid\.groups is .*each name once"):
        recipe(tmp_path, wrong)


def test_two_ways_to_say_who_shares_a_prompt_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadStrategy, match="stands beside classifiers_per_request"):
        recipe(tmp_path, 'groups = [["topic", "task"]]\nclassifiers_per_request = [2]')


def test_the_jobs_order_stands_and_who_is_not_named_is_asked_alone() -> None:
    assert groups(THREE, APART) == ((TOPIC, MOOD), (TASK,))
    assert groups((TASK,), APART) == ((TASK,),)


def test_groupings_that_come_to_the_same_requests_are_one() -> None:
    assert grouped_for(THREE, APART) == replace(NAIVE, groups=(("topic", "mood"),))
    assert grouped_for((TOPIC, TASK), APART) == NAIVE, "mood is not asked"
    assert grouped_for((TOPIC, MOOD), APART) == replace(NAIVE, classifiers_per_request=0)
    assert grouped_for(THREE, replace(NAIVE, classifiers_per_request=2)) == replace(NAIVE, classifiers_per_request=2)
    assert grouped_for((TOPIC,), replace(NAIVE, classifiers_per_request=0)) == NAIVE


def test_a_leg_for_each_group_and_the_plan_reads_back(tmp_path: Path) -> None:
    mine = recipe(tmp_path, 'groups = [["mood", "topic", "unasked"]]')
    plan = choose(replace(job([80] * 50, classifiers=THREE, named=True), recipes=(mine,)))
    assert [leg.classifiers for leg in plan.legs] == [("topic", "mood"), ("task",)]
    assert plan.chosen.lines[0].n_requests == 100
    assert plan.chosen.quality.label_change == pytest.approx(0.03)
    assert plans.from_json(plans.to_json(plan)) == plan
    older = plans.to_json(plan).replace('"groups":[["topic","mood"]],', "")
    assert plans.from_json(older).chosen.strategy.groups == (), "as plans were before there were groups"


def test_bounds_speak_of_the_largest_group(tmp_path: Path) -> None:
    bounded = EVIDENCE + "when = { classifiers_per_request = [2, 2] }\n"
    mine = recipe(tmp_path, 'groups = [[["topic", "mood"]], [["topic", "mood", "task"]]]', bounded)
    two, three = mine.strategies()
    assert mine.label_change(two).label_change == pytest.approx(0.03)
    assert mine.label_change(three).label_change == 1


def test_evidence_goes_by_who_shared_the_prompt() -> None:
    pair = (TOPIC.version, TASK.version)
    combined = replace(NAIVE, classifiers_per_request=0)
    evidence = tuple(counted(combined, x, 200, name, companions=pair) for name, x in (("topic", 2), ("task", 1)))
    asked = job([50] * 200, classifiers=THREE, measured=evidence)
    found = measured(asked, replace(NAIVE, groups=(("topic", "task"),)), OPENAI)
    assert found is not None
    assert found.label_change == pytest.approx(upper_bound(2, 200, 0.05)), "mood is asked as ever"
    assert measured(asked, replace(NAIVE, groups=(("topic", "mood"),)), OPENAI) is None
    assert measured(asked, combined, OPENAI) is None, "three in a prompt are not two"


def test_a_mix_keeps_groupings_of_one_size_apart(tmp_path: Path) -> None:
    mine = recipe(tmp_path, 'groups = [[["topic", "mood"]], [["topic", "task"]]]')
    asked = job([60] * 400, recipes=["batch"], classifiers=THREE, assume=True, objective=Objective(min_agreement=0.98))
    plan = choose(replace(asked, recipes=(mine, *asked.recipes)))
    assert plan.mix
    for one in THREE:
        served = sum(share.n_conversations for share in plan.mix if one.name in plan.legs[share.leg].classifiers)
        assert served == 400, one.name
