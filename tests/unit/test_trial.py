"""Comparisons that ask: slices of one random order, a stop rule that is fixed beforehand, and sides by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from small_job import BATCH_NAIVE, endpoint, job, plan, texts

from semtel_batch.commands.sides import crossed, find_side, is_plan
from semtel_batch.config import Defaults, Settings
from semtel_batch.conversations import Columns
from semtel_batch.errors import BadConfig, BadInput
from semtel_batch.plans import Sample
from semtel_batch.quality.certificate import upper_bound
from semtel_batch.quality.waves import Standing, Wave
from semtel_batch.store import Store
from semtel_batch.studies.compare import Criteria, Sides, compare
from semtel_batch.studies.trial import (
    AUDITED,
    Trial,
    asks,
    audited,
    bounds,
    from_json,
    key_of,
    parse_waves,
    stop_rule,
    to_json,
    watched,
    why_stop,
)

TRIAL = Trial(
    sides=("model=a", "model=b"),
    source="data.jsonl",
    classifiers=("topic",),
    recipes=(),
    n_sample=500,
    criteria=Criteria(),
    waves=(0.01, 0.1, 1.0),
    seed=7,
)


def test_waves_are_read() -> None:
    assert parse_waves("1%, 10%,100%") == (0.01, 0.1, 1.0)


@pytest.mark.parametrize("text", ["10%,5%", "0%", "101%", "ten", "", "5%,5%"])
def test_waves_that_mean_nothing(text: str) -> None:
    with pytest.raises(BadInput, match="rising shares"):
        parse_waves(text)


def test_all_sides_and_a_twice_are_asked_about_one_sample() -> None:
    found = asks(TRIAL, 0)
    assert [(a.side, a.again) for a in found] == [(0, False), (1, False), (0, True)]
    assert {a.sample for a in found} == {Sample(seed=7, n=500)}
    assert len(asks(replace(TRIAL, noise=False), 0)) == 2


def test_waves_go_on_where_the_sample_and_the_last_wave_ended() -> None:
    population = 100_000
    assert [bounds(TRIAL, wave, population) for wave in (1, 2, 3)] == [(500, 1_000), (1_000, 10_000), (10_000, 100_000)]
    b, a = asks(TRIAL, 2, population)
    assert (b.side, b.sample) == (1, Sample(seed=7, skip=1_000, n=9_000))
    assert (a.side, a.sample) == (0, Sample(seed=7, skip=1_000, n=AUDITED))


def test_a_wave_within_the_sample_asks_nothing() -> None:
    assert asks(TRIAL, 1, 10_000) == ()  # 1 % are 100, and 500 were asked
    assert asks(TRIAL, 2, 10_000)[0].sample == Sample(seed=7, skip=500, n=500)


def test_a_trial_is_found_again_by_what_was_wished() -> None:
    ask = asks(TRIAL, 0)[0]
    under_way = replace(TRIAL.with_plan(ask, "p1"), seed=9, limits=(("topic", 0.05),))
    assert key_of(under_way) == key_of(TRIAL)
    assert key_of(replace(TRIAL, n_sample=400)) != key_of(TRIAL)
    assert from_json(to_json(under_way)) == under_way
    assert under_way.plan_of(0, 0) == "p1"
    assert under_way.plan_of(0, 0, again=True) is None


def _items(labels: list[str | None], prompts: list[int | None] | None = None) -> pl.DataFrame:
    ids = [f"c{i}" for i in range(len(labels))]
    prompt = prompts or [None] * len(labels)
    frame = {"conversation_id": ids, "classifier": "topic", "label": labels, "how": "exact", "prompt": prompt}
    return pl.DataFrame(frame, schema_overrides={"label": pl.String, "prompt": pl.Int64})


def test_of_each_prompt_one_item_is_audited() -> None:
    a = _items(["x", "x", "x", "x", None])
    assert audited(a, _items(["x", "y", "x", "y", "x"])) == {"topic": Wave(n=4, n_different=2)}
    assert audited(a, _items(["x", "y", "x", "y", "x"], [1, 1, 2, 2, 3])) == {"topic": Wave(n=2, n_different=0)}


def test_the_stop_rule_is_what_was_wished_or_what_the_sample_allows() -> None:
    a, b = _items(["x"] * 200), _items(["y"] * 4 + ["x"] * 196)
    found = compare(Sides(a=a, b=b), ["topic"])
    assert stop_rule(TRIAL, found).limits == (("topic", upper_bound(4, 200)),)
    assert stop_rule(replace(TRIAL, max_disagreement=0.1), found).limits == (("topic", 0.1),)
    fixed = replace(TRIAL, limits=(("topic", 0.2),))
    assert stop_rule(fixed, found) is fixed  # once fixed it stays


def test_an_alarm_a_shift_and_a_worse_side_stop() -> None:
    ruled = replace(TRIAL, limits=(("topic", 0.05),))
    fine, alarmed = (watched(ruled, [{"topic": Wave(n=200, n_different=x)}]) for x in (2, 40))
    assert [w.standing for w in (*fine, *alarmed)] == [Standing.CERTIFIED, Standing.ALARM]
    same = compare(Sides(a=_items(["x"] * 500), b=_items(["x"] * 500)), ["topic"])
    moved = compare(Sides(a=_items(["x"] * 500), b=_items(["x"] * 400 + ["y"] * 100)), ["topic"])
    assert why_stop(same, fine, accept_shift=False) is None
    assert "stop rule" in (why_stop(same, alarmed, accept_shift=True) or "")
    assert "shifted" in (why_stop(moved, fine, accept_shift=False) or "")
    assert why_stop(moved, fine, accept_shift=True) is None
    gold = pl.DataFrame({"conversation_id": [f"c{i}" for i in range(500)], "topic": ["x"] * 500})
    worse = compare(Sides(a=_items(["x"] * 500), b=_items(["x"] * 400 + ["y"] * 100), gold=gold), ["topic"])
    assert "worse" in (why_stop(worse, fine, accept_shift=True) or "")
    better = compare(Sides(a=_items(["x"] * 400 + ["y"] * 100), b=_items(["x"] * 500), gold=gold), ["topic"])
    assert why_stop(better, fine, accept_shift=False) is None  # it has shifted towards gold


# ── sides ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _settings(project: Path) -> Settings:
    both = (endpoint("one"), endpoint("two", model="gpt-5.4-mini"))
    return Settings(project=project, endpoints=both, columns=Columns(), defaults=Defaults())


def test_a_side_is_an_endpoint_a_model_or_prompts(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    (tmp_path / "variant").mkdir()
    (tmp_path / "variant" / "topic.prompty").write_text("")

    def found(text: str) -> Settings:
        return find_side(None, settings, text).settings

    assert [found(f"model={name}").endpoints[0].name for name in ("two", "gpt-5.4-mini")] == ["two", "two"]
    other = found("model=gpt-4.1-mini").endpoints[0]
    assert (other.base_url, other.model, other.name) == (endpoint().base_url, "gpt-4.1-mini", "one-gpt-4.1-mini")
    for where in (tmp_path / "variant", tmp_path / "variant" / "topic.prompty"):
        side = found(f"prompts={where}")
        assert side.prompts == tmp_path / "variant"
        assert len(side.endpoints) == 1
    assert found(f"model=two,prompts={tmp_path / 'variant'}").endpoints[0].name == "two"
    assert settings.prompts == tmp_path / "prompts"


@pytest.mark.parametrize("text", ["modle=x", "model=", "model=a,model=b", "prompts=nowhere", "p1"])
def test_sides_that_name_nothing(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput):
        find_side(None, _settings(tmp_path), text)


def test_a_side_needs_an_endpoint(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="No endpoint"):
        find_side(None, replace(_settings(tmp_path), endpoints=()), "model=x")


def test_a_plan_whose_prompt_has_changed_can_not_be_asked_again(tmp_path: Path) -> None:
    made = job(tmp_path / "project", plan(BATCH_NAIVE), texts(3))
    (tmp_path / "project" / "prompts").mkdir()
    for name in ("topic", "expertise"):
        text = Path("prompts", f"{name}.prompty").read_text()
        (tmp_path / "project" / "prompts" / f"{name}.prompty").write_text(text)
    store = Store(made.project)
    with pytest.raises(BadInput, match="has changed since plan"):
        find_side(store, _settings(tmp_path / "project"), made.plan.id)
    store.close()


def test_a_grid_crosses_models_and_prompts() -> None:
    assert is_plan("p1a2")
    assert crossed(["model=a", "model=b", "prompts=v1", "prompts=v2"]) == (
        "model=a,prompts=v1",
        "model=a,prompts=v2",
        "model=b,prompts=v1",
        "model=b,prompts=v2",
    )


@pytest.mark.parametrize("sides", [["model=a", "model=b"], ["model=a,prompts=v1", "prompts=v2"]])
def test_a_grid_needs_both_kinds_each_alone(sides: list[str]) -> None:
    with pytest.raises(BadInput, match="--grid"):
        crossed(sides)


def test_a_study_is_kept_and_overwritten(tmp_path: Path) -> None:
    made = job(tmp_path / "project", plan(BATCH_NAIVE), texts(3))
    assert made.store.study("compare-1") is None
    made.store.keep_study("compare-1", "{}", made.plan.created_at)
    made.store.keep_study("compare-1", '{"a": 1}', made.plan.created_at)
    assert made.store.study("compare-1") == '{"a": 1}'
