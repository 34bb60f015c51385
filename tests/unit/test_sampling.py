"""A sample is uniform, the same whatever the order of rows, and parts of one seed are disjoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from semtel_batch.conversations import Columns, Ingested, ingest, load_index
from semtel_batch.errors import BadData
from semtel_batch.plans import Sample


def _data(path: Path, ids: list[int]) -> Path:
    path.write_text("".join(json.dumps({"conversation_id": n, "text": f"text {n}"}) + "\n" for n in ids))
    return path


def _drawn(tmp_path: Path, data: Path, sample: Sample | None) -> tuple[Ingested, list[str]]:
    kept = ingest(str(data), Columns(), tmp_path / "kept", "o200k_base", sample=sample, chunk_rows=30)
    return kept, load_index(tmp_path / "kept")["conversation_id"].to_list()


def test_a_sample_has_its_size_and_knows_its_population(tmp_path: Path) -> None:
    kept, ids = _drawn(tmp_path, _data(tmp_path / "d.jsonl", list(range(200))), Sample(seed=1, n=25))
    assert (len(ids), kept.n_conversations, kept.n_population) == (25, 25, 200)
    assert ids == sorted(ids, key=int)  # in the order of the data


def test_the_order_of_rows_changes_nothing_and_the_seed_all(tmp_path: Path) -> None:
    there, back = _data(tmp_path / "a.jsonl", list(range(200))), _data(tmp_path / "b.jsonl", list(range(199, -1, -1)))
    first = _drawn(tmp_path, there, Sample(seed=1, n=25))[1]
    assert set(_drawn(tmp_path, back, Sample(seed=1, n=25))[1]) == set(first)
    assert set(_drawn(tmp_path, there, Sample(seed=2, n=25))[1]) != set(first)


def test_parts_of_one_seed_are_disjoint_and_make_up_the_whole(tmp_path: Path) -> None:
    data = _data(tmp_path / "d.jsonl", list(range(100)))
    parts = [Sample(seed=9, n=10), Sample(seed=9, n=40, skip=10), Sample(seed=9, n=1000, skip=50)]
    ids = [_drawn(tmp_path, data, part)[1] for part in parts]
    assert [len(part) for part in ids] == [10, 40, 50]
    assert sorted((name for part in ids for name in part), key=int) == [str(n) for n in range(100)]


def test_every_conversation_is_as_likely(tmp_path: Path) -> None:
    data = _data(tmp_path / "d.jsonl", list(range(40)))
    seen = np.zeros(40, dtype=int)
    for seed in range(60):
        seen[[int(name) for name in _drawn(tmp_path, data, Sample(seed=seed, n=10))[1]]] += 1
    assert stats.chisquare(seen).pvalue > 0.001


def test_all_of_the_data_is_its_own_population(tmp_path: Path) -> None:
    kept, ids = _drawn(tmp_path, _data(tmp_path / "d.jsonl", [3, 1, 2]), None)
    assert (ids, kept.n_population) == (["3", "1", "2"], 3)


@pytest.mark.parametrize("sample", [Sample(seed=1, n=5, skip=3), Sample(seed=1, n=0)])
def test_there_must_be_something_to_draw(tmp_path: Path, sample: Sample) -> None:
    with pytest.raises(BadData, match="3 conversations"):
        _drawn(tmp_path, _data(tmp_path / "d.jsonl", [1, 2, 3]), sample)


def test_places_of_the_order_can_be_named(tmp_path: Path) -> None:
    data = _data(tmp_path / "d.jsonl", list(range(60)))
    order = [name for k in range(60) for name in _drawn(tmp_path / f"one{k}", data, Sample(seed=3, n=1, skip=k))[1]]
    picked = Sample(seed=3, n=6, skip=2, runs=((2, 4), (10, 13), (59, 60)))
    found = _drawn(tmp_path / "runs", data, picked)[1]
    assert sorted(found) == sorted(order[k] for k in (2, 3, 10, 11, 12, 59))
