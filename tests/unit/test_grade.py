"""Which items the grader doubts."""

from __future__ import annotations

import polars as pl
import pytest

from semtel_batch.quality.grade import counts, doubtful, grade
from semtel_batch.records import Outcome

SCHEMA = {"row": pl.Int64, "classifier": pl.String, "label": pl.String, "outcome": pl.String}


def verdicts(*rows: tuple[int, str, str | None, Outcome]) -> pl.DataFrame:
    plain = [(row, classifier, label, outcome.value) for row, classifier, label, outcome in rows]
    return pl.DataFrame(plain, schema=SCHEMA, orient="row")


def test_each_item_has_its_own_grade() -> None:
    said = verdicts(
        (7, "topic", "correct", Outcome.ANSWERED),
        (7, "mood", "incorrect", Outcome.ANSWERED),
        (2, "topic", "incorrect", Outcome.ANSWERED),
    )
    assert grade(said).rows() == [(7, "topic", "correct"), (7, "mood", "incorrect"), (2, "topic", "incorrect")]
    assert doubtful(grade(said)).rows() == [(7, "mood"), (2, "topic")]
    assert counts(grade(said)).rows() == [("mood", 0, 1, 0), ("topic", 1, 1, 0)]


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.ANSWERED])
def test_a_silent_grader_keeps_the_label(outcome: Outcome) -> None:
    # A label beside a failed outcome is no verdict either.
    said = verdicts((1, "topic", None, outcome), (2, "topic", "incorrect", outcome))
    assert grade(said)["graded"].to_list() == ["ungraded", "ungraded"]
    assert doubtful(grade(said)).is_empty()


def test_a_later_attempt_counts_and_doubt_wins() -> None:
    said = verdicts(
        (1, "topic", None, Outcome.MISSING),
        (1, "topic", "correct", Outcome.ANSWERED),
        (2, "topic", "incorrect", Outcome.ANSWERED),
        (2, "topic", "correct", Outcome.ANSWERED),
        (3, "topic", "something else", Outcome.ANSWERED),
    )
    assert grade(said).rows() == [(1, "topic", "correct"), (2, "topic", "incorrect"), (3, "topic", "ungraded")]


def test_items_without_any_verdict_are_ungraded() -> None:
    items = pl.DataFrame({"row": [3, 1, 2], "classifier": ["topic"] * 3, "label": ["a", "b", "c"]})
    said = verdicts((1, "topic", "incorrect", Outcome.ANSWERED), (9, "topic", "incorrect", Outcome.ANSWERED))
    assert grade(said, items).rows() == [(3, "topic", "ungraded"), (1, "topic", "incorrect"), (2, "topic", "ungraded")]


def test_no_verdicts_at_all() -> None:
    empty = grade(verdicts())
    assert empty.columns == ["row", "classifier", "graded"] and empty.is_empty()
    assert doubtful(empty).is_empty() and counts(empty).is_empty()
