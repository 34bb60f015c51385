"""The confidence from which on a label is kept: certified step by step, and used by the next plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from test_calibrate import NAIVE, counted
from test_planner import OPENAI, TASK, TOPIC, job

from semtel_batch.measurements import Kind
from semtel_batch.planner.evidence import measured, with_threshold
from semtel_batch.quality.certificate import Target
from semtel_batch.records import Doubt, Tier
from semtel_batch.studies.threshold import TARGET, as_it_ran, threshold


def frames(n: int, wrong_below: float, seed: int = 3) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """A model that is wrong in half of what it gives less confidence than this, and never else."""
    rng = np.random.default_rng(seed)
    sure = rng.random(2 * n)
    wrong = (sure < wrong_below) & (rng.random(2 * n) < 0.5)
    items = {"conversation_id": [f"c{i // 2}" for i in range(2 * n)], "classifier": ["topic", "task"] * n}
    first = pl.DataFrame({**items, "label": np.where(wrong, "b", "a"), "confidence": sure})
    reference = pl.DataFrame({**items, "label": ["a"] * (2 * n)})
    return first, reference, reference


def test_a_threshold_is_certified_up_to_where_the_labels_go_wrong() -> None:
    found = threshold(*frames(400, 0.4), seed=1)
    assert found is not None
    assert 0.3 < found.below < 0.45
    assert found.certified
    assert {one.classifier for one in found.held} == {"topic", "task"}
    assert all(one.n == 400 - 134 for one in found.held)
    assert all(one.n_different == one.n_kept_different for one in found.held), "asked again they are the reference's"


def test_too_few_items_certify_nothing_and_none_keeps_a_model_that_does_not_know() -> None:
    few = threshold(*frames(40, 0.4), seed=1)
    assert few is None or not few.certified
    first, reference, again = frames(200, 2.0)
    unsure = threshold(first, reference, again, seed=1)
    assert unsure is None or not unsure.certified


def test_a_certified_threshold_is_rarely_wrong() -> None:
    """Labels wrong as often as the target forbids, whatever the confidence: certified in at most 5 % of the worlds."""
    n_certified = 0
    for seed in range(60):
        rng = np.random.default_rng(1_000 + seed)
        first, reference, again = frames(150, 0.0, seed)
        wrong = rng.random(first.height) < TARGET.max_disagreement + 0.001
        first = first.with_columns(label=pl.when(pl.Series(wrong)).then(pl.lit("b")).otherwise(pl.lit("a")))
        found = threshold(first, reference, again, seed=1)
        n_certified += found is not None and found.certified
    assert n_certified <= 7  # binomial 60, .05: more than 7 in 1.5 of 100


def test_what_has_no_confidence_is_kept() -> None:
    first, reference, again = frames(300, 0.0)
    none = first.with_columns(confidence=pl.when(pl.col("confidence") > 0.1).then(pl.col("confidence")))
    found = threshold(none, reference, again, seed=1)
    assert found is not None
    assert all(one.n_kept >= 0.85 * one.n for one in found.held)


@pytest.mark.parametrize("source", ["conversations.jsonl", "other.jsonl"])
def test_the_next_plan_doubts_by_it_on_the_same_data(source: str) -> None:
    assumed = replace(NAIVE, conversations_per_request=10, doubt=Doubt.CONFIDENCE, confidence_below=0.9)
    bound = replace(assumed, confidence_below=0.62)
    evidence = [
        counted(bound, x, 200, name, kind=kind, source=source)
        for name in ("topic", "task")
        for kind, x in ((Kind.KEPT, 1), (Kind.CHANGE, 2))
    ]
    asked = job([50] * 100, classifiers=(TOPIC, TASK), measured=tuple(evidence))
    found = with_threshold(asked, replace(assumed, tier=Tier.BATCH, recipe="x"), OPENAI)
    assert found.confidence_below == (0.62 if source == "conversations.jsonl" else 0.9)
    assert (found.tier, found.recipe) == (Tier.BATCH, "x")
    own = replace(assumed, confidence_below=0.8)
    assert with_threshold(asked, own, OPENAI) == own, "what the user wrote stands"
    if source == "conversations.jsonl":
        quality = measured(asked, found, OPENAI)
        assert quality is not None
        assert not quality.assumed


def test_what_a_run_kept_and_asked_again_is_counted_apart() -> None:
    items = {"conversation_id": ["c0", "c1", "c2", "c3"], "classifier": ["topic"] * 4}
    stages = ["classify", "classify", "reclassify", "reclassify"]
    labels = pl.DataFrame({**items, "label": ["a", "b", "a", "b"], "stage": stages})
    (held,) = as_it_ran(labels, pl.DataFrame({**items, "label": ["a"] * 4}))
    assert (held.n_kept, held.n_kept_different, held.n, held.n_different) == (2, 1, 4, 2)
    twice = pl.concat([labels, labels])
    assert as_it_ran(twice, pl.DataFrame({**items, "label": ["a"] * 4})) == (held,), "the same text counts once"


def test_a_stricter_target_is_harder_to_certify() -> None:
    targets = [Target(max_disagreement=share, delta=0.05) for share in (0.1, 0.01)]
    loose, strict = (threshold(*frames(200, 0.4), seed=1, target=target) for target in targets)
    assert loose is not None and loose.certified
    assert strict is None or not strict.certified, "200 items can't show one in a hundred"
