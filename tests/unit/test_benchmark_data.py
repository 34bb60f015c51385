"""The benchmarks' conversations: the same every time, all different, about as long as asked for."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import orjson
import pytest

from semtel_batch.tokens import count

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "conversation_data.py"


@pytest.fixture(scope="module")
def data() -> ModuleType:
    spec = importlib.util.spec_from_file_location("conversation_data", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_seed_always_gives_the_same(data: ModuleType) -> None:
    assert list(data.conversations(50)) == list(data.conversations(50))
    assert list(data.conversations(50)) != list(data.conversations(50, seed=2))


@pytest.mark.parametrize("median_tokens", [60, 400])
def test_lengths_spread_around_the_median(data: ModuleType, median_tokens: int) -> None:
    rows = [orjson.loads(line) for line in data.conversations(1_000, median_tokens=median_tokens)]
    texts = ["\n".join(f"{turn['role']}: {turn['content']}" for turn in row["turns"]) for row in rows]
    lengths = count(texts, "o200k_base")
    assert len({row["conversation_id"] for row in rows}) == len(set(texts)) == 1_000
    assert 0.8 < np.median(lengths) / median_tokens < 1.3
    assert np.quantile(lengths, 0.95) > 1.8 * np.median(lengths)
