"""What a leg asks next, transition by transition. Frames in, asks out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from small_job import packed

from semtel_batch.generations import Ask, Next, in_order, next_generation, once_more
from semtel_batch.parts import LABELS
from semtel_batch.plans import Leg
from semtel_batch.records import Doubt, Outcome, Stage, Strategy, Tier
from semtel_batch.rows import Generation

LEG = Leg(number=3, classifiers=("topic", "expertise"), strategy=packed(5), endpoint="main")
GRADED = replace(LEG, strategy=packed(5, doubt=Doubt.GRADER))
C, G, R = Stage.CLASSIFY, Stage.GRADE, Stage.RECLASSIFY
RERUN = replace(LEG, strategy=packed(5, doubt=Doubt.RERUN))
RANK = {stage: rank for rank, stage in enumerate(Stage)}


def item(row: int, name: str, outcome: str, label: str | None = None, **more: Any) -> dict[str, Any]:
    stage, attempt = more.get("stage", C), more.get("attempt", 0)
    return {
        "row": row,
        "classifier": name,
        "label": label or ("Travel" if outcome == "answered" else None),
        "outcome": outcome,
        "permanent": more.get("permanent", False),
        "leg": 3,
        "stage": stage.value,
        "rank": RANK[stage],
        "attempt": attempt,
        "shard": 1 + attempt,
    }


def read(*items: dict[str, Any]) -> pl.DataFrame:
    frame = pl.DataFrame(list(items), schema_overrides={"row": pl.UInt32, "label": pl.String})
    return frame.with_columns(
        pl.lit(None, kind).alias(name) for name, kind in LABELS.items() if name not in frame.columns
    )


NOTHING = read(item(0, "topic", "answered")).clear()


def generation(stage: Stage, attempt: int = 0, *, ended: bool = True) -> Generation:
    return Generation(leg=3, stage=stage, attempt=attempt, ended=ended)


def after(*history: Generation, labels: pl.DataFrame = NOTHING, leg: Leg = LEG, attempts: int = 4) -> Next | None:
    return next_generation(leg, history, labels, np.array([], dtype=np.uint32), attempts)


def asks(found: Next | None) -> list[tuple[tuple[str, ...], list[int], int]]:
    assert found is not None
    return [(ask.classifiers, ask.rows.tolist(), ask.per_request) for ask in found.asks]


def test_first_all_classifiers_of_all_conversations_are_asked_in_packs() -> None:
    found = next_generation(LEG, [], NOTHING, np.array([0, 2, 3], dtype=np.uint32), 4)
    assert found is not None
    assert found.generation == generation(C, ended=False)
    assert asks(found) == [(("topic", "expertise"), [0, 2, 3], 5)]


def test_a_leg_without_anything_to_ask_ends_at_once() -> None:
    found = after()
    assert found == Next(generation=generation(C), asks=())
    assert after(generation(C)) is None


def test_nothing_is_decided_while_a_generation_runs() -> None:
    labels = read(item(0, "topic", "invalid"))
    assert after(generation(C, ended=False), labels=labels) is None
    assert after(generation(C), generation(C, 1, ended=False), labels=labels) is None


def test_when_all_is_answered_a_leg_without_a_grader_is_finished() -> None:
    assert after(generation(C), labels=read(item(0, "topic", "answered"), item(0, "expertise", "answered"))) is None


def test_only_what_is_missing_is_asked_again_and_alone() -> None:
    labels = read(
        item(0, "topic", "answered"),
        item(0, "expertise", "invalid"),
        item(1, "topic", "missing"),
        item(1, "expertise", "missing"),
        item(2, "topic", "answered"),
        item(2, "expertise", "answered"),
        item(4, "topic", "expired"),
        item(4, "expertise", "expired"),
    )
    found = after(generation(C), labels=labels)
    assert found is not None
    assert found.generation == generation(C, 1, ended=False)
    assert sorted(asks(found)) == [(("expertise",), [0], 1), (("topic", "expertise"), [1, 4], 1)]


def test_classifiers_keep_the_legs_order_so_that_the_prompt_stays_the_same() -> None:
    found = after(generation(C), labels=read(item(0, "expertise", "missing"), item(0, "topic", "missing")))
    assert asks(found)[0][0] == ("topic", "expertise")


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.ANSWERED])
def test_every_failure_is_asked_again_unless_it_is_permanent(outcome: Outcome) -> None:
    assert asks(after(generation(C), labels=read(item(0, "topic", outcome.value)))) == [(("topic",), [0], 1)]
    assert after(generation(C), labels=read(item(0, "topic", outcome.value, permanent=True))) is None


def test_the_last_attempt_counts_not_an_earlier_one() -> None:
    labels = read(item(0, "topic", "missing"), item(0, "topic", "answered", attempt=1))
    assert after(generation(C), generation(C, 1), labels=labels) is None
    refused = read(item(0, "topic", "missing"), item(0, "topic", "refused", attempt=1, permanent=True))
    assert after(generation(C), generation(C, 1), labels=refused) is None


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_attempts_are_bounded(attempts: int) -> None:
    history, labels = [generation(C)], [item(0, "topic", "invalid")]
    while (found := after(*history, labels=read(*labels), attempts=attempts)) is not None:
        history.append(replace(found.generation, ended=True))
        labels.append(item(0, "topic", "invalid", attempt=found.generation.attempt))
    assert [g.attempt for g in history] == list(range(attempts))


def test_what_was_answered_is_graded_in_packs_and_the_rest_is_not() -> None:
    labels = read(
        item(0, "topic", "answered"),
        item(0, "expertise", "invalid", permanent=True),
        item(1, "topic", "answered"),
        item(1, "expertise", "missing"),
        item(1, "expertise", "answered", attempt=1),
        item(2, "topic", "refused", permanent=True),
        item(2, "expertise", "refused", permanent=True),
    )
    found = after(generation(C), generation(C, 1), labels=labels, leg=GRADED)
    assert found is not None
    assert found.generation == generation(G, ended=False)
    assert sorted(asks(found)) == [(("topic",), [0], 5), (("topic", "expertise"), [1], 5)]


def test_grading_waits_until_retries_have_ended() -> None:
    labels = read(item(0, "topic", "answered"), item(1, "topic", "missing"))
    found = after(generation(C), labels=labels, leg=GRADED)
    assert found is not None
    assert found.generation == generation(C, 1, ended=False)


def test_a_second_run_is_packed_and_what_it_splits_on_is_asked_alone() -> None:
    first = [item(row, "topic", "answered", "Travel") for row in range(3)]
    found = after(generation(C), labels=read(*first), leg=RERUN)
    assert found is not None
    assert found.generation == generation(Stage.RERUN, ended=False)
    assert asks(found) == [(("topic",), [0, 1, 2], 5)]
    second = [item(row, "topic", "answered", "Health" if row else "Travel", stage=Stage.RERUN) for row in (0, 1)]
    done = (generation(C), generation(Stage.RERUN))
    found = after(*done, labels=read(*first, *second), leg=RERUN)
    assert found is not None
    assert found.generation == generation(R, ended=False)
    assert asks(found) == [(("topic",), [1], 1)]
    assert after(*done, generation(R), labels=read(*first, *second), leg=RERUN) is None


def test_low_confidence_needs_no_second_pass() -> None:
    leg = replace(LEG, strategy=packed(5, doubt=Doubt.CONFIDENCE, confidence_below=0.9))
    labels = read(item(0, "topic", "answered"), item(1, "topic", "answered"))
    labels = labels.with_columns(confidence=pl.when(pl.col("row") == 1).then(0.2).otherwise(0.99))
    found = after(generation(C), labels=labels, leg=leg)
    assert found is not None
    assert found.generation == generation(R, ended=False)
    assert asks(found) == [(("topic",), [1], 1)]


def packs(outcomes: dict[str, int], size: int, **more: Any) -> pl.DataFrame:
    """Items of consecutive packs of `size`, so many of each outcome."""
    rows = [outcome for outcome, n in outcomes.items() for _ in range(n)]
    labels = read(*(item(row, "topic", outcome, **more) for row, outcome in enumerate(rows)))
    return labels.with_columns(request=(pl.col("row") // size).cast(pl.UInt32))


@pytest.mark.parametrize(
    ("outcomes", "sizes"),
    [
        ({"missing": 10}, [5]),  # the whole pack garbled: halves
        ({"missing": 6, "answered": 4}, [5]),
        ({"missing": 2, "answered": 8}, [1]),  # a good pack left two out
        ({"expired": 10}, [10]),  # never executed: as before
        ({"expired": 10, "errored": 10, "invalid": 1}, [10, 5, 1]),
    ],
)
def test_a_pack_is_asked_again_as_it_failed(outcomes: dict[str, int], sizes: list[int]) -> None:
    leg = replace(LEG, strategy=packed(10))
    assert [size for _, _, size in asks(after(generation(C), labels=packs(outcomes, 10), leg=leg))] == sizes
    last = asks(after(generation(C), labels=packs({"missing": 10}, 10), leg=leg, attempts=2))
    assert [size for _, _, size in last] == [1], "what has one try left is asked alone"
    again = asks(after(generation(C), generation(C, 1), labels=packs({"missing": 10}, 5, attempt=1), leg=leg))
    assert [size for _, _, size in again] == [1], "after the halves, alone"


def test_the_grader_is_asked_again_too() -> None:
    labels = read(item(0, "topic", "answered"), item(0, "topic", "missing", stage=G))
    found = after(generation(C), generation(G), labels=labels, leg=GRADED)
    assert found is not None
    assert found.generation == generation(G, 1, ended=False)
    assert asks(found) == [(("topic",), [0], 1)]


def test_what_the_grader_doubts_is_classified_again_alone() -> None:
    labels = read(
        *(item(row, name, "answered") for row in range(3) for name in ("topic", "expertise")),
        item(0, "topic", "answered", "correct", stage=G),
        item(1, "topic", "answered", "incorrect", stage=G),
        item(2, "topic", "invalid", None, stage=G, permanent=True),
        item(0, "expertise", "answered", "incorrect", stage=G),
        item(1, "expertise", "answered", "incorrect", stage=G),
        item(2, "expertise", "answered", "correct", stage=G),
    )
    found = after(generation(C), generation(G), labels=labels, leg=GRADED)
    assert found is not None
    assert found.generation == generation(R, ended=False)
    assert asks(found) == [(("topic",), [1], 1), (("expertise",), [0, 1], 1)]


def test_a_grader_that_doubts_nothing_leaves_an_empty_generation_and_then_the_end() -> None:
    labels = read(item(0, "topic", "answered"), item(0, "topic", "answered", "correct", stage=G))
    found = after(generation(C), generation(G), labels=labels, leg=GRADED)
    assert found == Next(generation=generation(R), asks=())
    assert after(generation(C), generation(G), generation(R), labels=labels, leg=GRADED) is None


def test_with_nothing_answered_there_is_nothing_to_grade() -> None:
    labels = read(item(0, "topic", "refused", permanent=True))
    assert after(generation(C), labels=labels, leg=GRADED) == Next(generation=generation(G), asks=())


def test_reclassifying_is_asked_again_as_often() -> None:
    labels = read(
        item(0, "topic", "answered"),
        item(0, "topic", "answered", "incorrect", stage=G),
        item(0, "topic", "expired", stage=R),
    )
    history = [generation(C), generation(G), generation(R)]
    found = after(*history, labels=labels, leg=GRADED, attempts=2)
    assert found is not None
    assert found.generation == generation(R, 1, ended=False)
    assert after(*history, generation(R, 1), labels=labels, leg=GRADED, attempts=2) is None


def test_once_more_follows_the_last_attempt_of_the_first_stage() -> None:
    spent = read(item(0, "topic", "invalid", attempt=3), item(7, "expertise", "refused", permanent=True))
    history = [generation(C, n) for n in range(4)] + [generation(G), generation(R)]
    found = once_more(GRADED, history, spent)
    assert found.generation == generation(C, 4, ended=False)
    assert sorted(asks(found)) == [(("expertise",), [7], 1), (("topic",), [0], 1)]
    assert once_more(LEG, [], spent).generation.attempt == 0


def test_a_legs_history_is_its_own_and_in_order() -> None:
    mine = [generation(C), generation(C, 1), generation(C, 2), generation(G), generation(R)]
    others = [replace(each, leg=1) for each in mine]
    assert in_order([*reversed(mine), *others], 3) == mine


def test_the_same_history_leads_to_the_same_asks() -> None:
    labels = read(*(item(row, "topic", "missing") for row in (5, 1, 9)), item(1, "expertise", "missing"))
    first, again = (after(generation(C), labels=labels.sample(fraction=1, shuffle=True, seed=s)) for s in (1, 2))
    assert sorted(asks(first)) == sorted(asks(again)) == [(("topic",), [5, 9], 3), (("topic", "expertise"), [1], 3)]


def test_a_leg_of_one_classifier_and_one_conversation() -> None:
    leg = Leg(number=3, classifiers=("topic",), strategy=Strategy(recipe="naive", tier=Tier.REALTIME), endpoint="main")
    found = next_generation(leg, [], NOTHING, np.array([4], dtype=np.uint32), 4)
    assert asks(found) == [(("topic",), [4], 1)]
    assert isinstance(found.asks[0], Ask)  # type: ignore[union-attr]


def test_what_the_first_model_of_a_cascade_failed_at_goes_to_the_other_one_too() -> None:
    strategy = Strategy(recipe="x", tier=Tier.BATCH, doubt=Doubt.CONFIDENCE, confidence_below=0.9, escalate="dear")
    labels = read(
        {**item(0, "topic", "answered"), "confidence": 0.5},
        {**item(1, "topic", "answered"), "confidence": 0.99},
        item(2, "topic", "refused", permanent=True),
        item(3, "topic", "invalid"),
        {**item(3, "topic", "answered", attempt=1), "confidence": 0.95},
    )
    history = (generation(C), generation(C, 1))
    found = after(*history, labels=labels, leg=replace(LEG, strategy=strategy))
    assert found is not None and found.generation.stage is R
    assert asks(found) == [(("topic",), [0, 2], 1)]
    alone = after(*history, labels=labels, leg=replace(LEG, strategy=replace(strategy, escalate=None)))
    assert asks(alone) == [(("topic",), [0], 1)], "the same model would fail at it again"
