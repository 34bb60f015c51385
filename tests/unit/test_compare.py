"""Two labellings against each other: what is paired, what is measured, and what may be said of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from semtel_batch.errors import BadData
from semtel_batch.quality.excess import Excess
from semtel_batch.studies.compare import (
    Criteria,
    Gain,
    Sides,
    Verdict,
    compare,
    frames,
    hanging_together,
    overall,
    ranked,
    said,
)


def _items(labels: Sequence[str | None], classifier: str = "topic", how: str = "exact", first: int = 0) -> pl.DataFrame:
    ids = [f"c{i}" for i in range(first, first + len(labels))]
    return pl.DataFrame(
        {"conversation_id": ids, "classifier": classifier, "label": list(labels), "how": how},
        schema={name: pl.String for name in ("conversation_id", "classifier", "label", "how")},
    )


def _drawn(n: int, seed: int = 0) -> list[str]:
    return np.random.default_rng(seed).choice(["Travel", "Media", "Health"], n).tolist()


def _changed(labels: list[str], every: int, to: str) -> list[str]:
    return [to if i % every == 0 else label for i, label in enumerate(labels)]


def test_equal_labellings_are_aligned() -> None:
    a = _items(_drawn(500))
    (found,) = compare(Sides(a=a, b=a), ["topic"])
    assert (found.verdict, found.n, found.n_same, found.kappa) == (Verdict.ALIGNED, 500, 500, 1.0)
    assert found.shift.p_value == 1.0
    assert found.changes.is_empty()
    assert (found.noise, found.net, found.net_interval) == (None, None, None)


def test_a_moved_share_is_a_shift() -> None:
    labels = _drawn(500)
    (found,) = compare(Sides(a=_items(labels), b=_items(_changed(labels, 8, "Media"))), ["topic"])
    assert found.verdict is Verdict.SHIFTED
    assert (found.shift.label, found.gold) == ("Media", None)
    assert set(found.changes["b"]) == {"Media"}


def test_few_items_decide_nothing() -> None:
    labels = _drawn(30)
    (found,) = compare(Sides(a=_items(labels), b=_items(_changed(labels, 10, "Media"))), ["topic"])
    assert found.verdict is Verdict.UNDECIDED


def test_a_certain_but_small_move_is_still_aligned() -> None:
    labels = ["Travel"] * 4_000
    b = ["Media" if i < 30 else label for i, label in enumerate(labels)]
    (found,) = compare(Sides(a=_items(labels), b=_items(b)), ["topic"])
    assert found.shift.p_value < 0.001
    assert found.verdict is Verdict.ALIGNED


def test_only_what_both_labelled_is_compared() -> None:
    a, b = _items(["Travel", None, "Media", "Media"]), _items(["Media", "Health", None], first=1)
    (found,) = compare(Sides(a=a, b=b), ["topic"])
    assert (found.n, found.n_unlabelled, found.n_same) == (1, 2, 0)


def test_the_noise_floor_takes_no_label_for_its_own_repetition() -> None:
    labels = _drawn(200)
    a, again = _items(labels), _items(_changed(labels, 20, "Media"))
    mixed = pl.concat([again[:100], again[100:].with_columns(how=pl.lit("reused"))])
    (found,) = compare(Sides(a=a, b=a, again=mixed), ["topic"])
    assert found.noise is not None
    assert found.noise.n == 100


def test_changes_are_told_net_of_noise() -> None:
    labels = _drawn(400)
    a, again = _items(labels), _items(_changed(labels, 40, "Media"))
    (found,) = compare(Sides(a=a, b=again, again=again), ["topic"])
    assert found.noise is not None
    assert found.net == Excess(n_worse=0, n_same=400, n_better=0)
    assert found.net_interval is not None
    low, high = found.net_interval
    assert low < 0 < high < 0.03


def test_gold_says_which_is_better() -> None:
    gold = _drawn(400)
    worse = _changed(gold, 7, "Health")
    truth = pl.DataFrame({"conversation_id": [f"c{i}" for i in range(400)], "topic": [[g] for g in gold]})
    (up,) = compare(Sides(a=_items(worse), b=_items(gold), gold=truth), ["topic"])
    (down,) = compare(Sides(a=_items(gold), b=_items(worse), gold=truth), ["topic"])
    (same,) = compare(Sides(a=_items(gold), b=_items(gold), gold=truth), ["topic"])
    assert up.gold is not None
    assert down.gold is not None
    assert same.gold is not None
    assert [up.gold.gain, down.gold.gain, same.gold.gain] == [Gain.BETTER, Gain.WORSE, Gain.OPEN]
    assert up.gold.accuracy_b == 1.0
    assert (down.gold.low, down.gold.high) == pytest.approx((-up.gold.high, -up.gold.low))
    other = truth.rename({"topic": "task"})
    assert compare(Sides(a=_items(gold), b=_items(gold), gold=other), ["topic"])[0].gold is None


def test_the_whole_is_shifted_if_one_is_and_aligned_if_all_are() -> None:
    labels = _drawn(500)
    moved = _changed(labels, 8, "Media")
    a = pl.concat([_items(labels), _items(labels, "task")])
    b = pl.concat([_items(labels), _items(moved, "task")])
    assert overall(compare(Sides(a=a, b=b), ["topic", "task"])) is Verdict.SHIFTED
    assert overall(compare(Sides(a=a, b=a), ["topic", "task"])) is Verdict.ALIGNED
    few = pl.concat([_items(labels), _items(moved[:30], "task")])
    assert overall(compare(Sides(a=a, b=few), ["topic", "task"])) is Verdict.UNDECIDED
    assert overall(()) is Verdict.UNDECIDED


def test_criteria_decide() -> None:
    labels = _drawn(500)
    sides = Sides(a=_items(labels), b=_items(_changed(labels, 8, "Media")))
    assert compare(sides, ["topic"], Criteria(max_shift=0.2))[0].verdict is Verdict.ALIGNED


def test_all_tables_are_frames() -> None:
    labels = _drawn(100)
    tables = frames(compare(Sides(a=_items(labels), b=_items(_changed(labels, 5, "Media"))), ["topic"]))
    assert set(tables) == {"classifiers", "shares", "changes"}
    assert tables["classifiers"].select("classifier", "n", "noise").row(0) == ("topic", 100, None)
    assert tables["shares"].columns == [
        *("classifier", "label", "n_a", "n_b", "share_a", "share_b", "change", "low", "high")
    ]


def test_nothing_in_common_is_said() -> None:
    with pytest.raises(BadData, match="no classifier in common"):
        compare(Sides(a=_items(["a"]), b=_items(["a"], "task")), ["topic"])
    with pytest.raises(BadData, match="no conversation_id in common"):
        compare(Sides(a=_items(["a"]), b=_items(["a"], first=7)), ["topic"])


def test_labels_that_were_pulled_together_are_seen() -> None:
    topics, tasks = _drawn(600, 1), _drawn(600, 2)
    pulled = [t if i % 4 == 0 else own for i, (t, own) in enumerate(zip(topics, tasks, strict=True))]
    a = pl.concat([_items(topics), _items(tasks, "task")])
    b = pl.concat([_items(topics), _items(pulled, "task")])
    (found,) = hanging_together(Sides(a=a, b=b), ["topic", "task"])
    assert (found.first, found.second, found.n) == ("topic", "task", 600)
    assert found.together_v > found.apart_v
    assert found.p_value < 0.01
    assert hanging_together(Sides(a=a, b=b), ["topic"]) == ()


def test_sides_are_ranked_by_gold_else_by_agreement() -> None:
    gold = _drawn(300)
    truth = pl.DataFrame({"conversation_id": [f"c{i}" for i in range(300)], "topic": gold})
    a, near, far = _items(_changed(gold, 10, "Media")), _items(gold), _items(_changed(gold, 3, "Health"))
    found = [compare(Sides(a=a, b=b, gold=truth), ["topic"]) for b in (far, near)]
    ranking = ranked(["a", "far", "near"], found, [0.1, 0.2, 0.3])
    assert ranking["side"].to_list() == ["near", "a", "far"]
    assert ranking["rank"].to_list() == [1, 2, 3]
    assert said(found[1]).endswith("better")
    bare = [compare(Sides(a=a, b=b), ["topic"]) for b in (far, near)]
    assert ranked(["a", "far", "near"], bare, [0.1, 0.2, 0.3])["side"].to_list() == ["a", "near", "far"]
