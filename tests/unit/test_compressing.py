"""Compressing as a run does it: once a text, in the way that was planned, kept beside the plan, and priced before."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from test_planner import job

from semtel_batch import strategies
from semtel_batch.compose.compress import results
from semtel_batch.compose.compress.backends import Way, Workers, check, open_compressor, run_here
from semtel_batch.compose.compress.results import Ahead, Compression, Spent, cpu_seconds
from semtel_batch.compose.prompt import word
from semtel_batch.errors import BadStrategy
from semtel_batch.legs import compressing, way_of_asking
from semtel_batch.planner.optimize import choose
from semtel_batch.planner.shorter import Shortened, foresee
from semtel_batch.records import Stage, Strategy, Tier
from tests.unit.small_job import TOPIC, endpoint

WAY = Way(compressor="rules", rate=0.5, encoding="o200k_base")
LONG = "user: I would like to know what the trains of this city are like, and what it is that they cost, please. " * 5
TEXTS = pl.Series("text", [f"{LONG}\nassistant: number {i} is the one." for i in range(6)] + ["user: short"])
COMPRESSING = Strategy(recipe="compressed", tier=Tier.BATCH, compress_rate=0.5, compressor="rules")


def test_each_text_is_compressed_once_and_known_to_later_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Compression(tmp_path / "plan1", WAY)(TEXTS)
    assert first[6] == "user: short"
    assert all(a != b for a, b in zip(first[:6], TEXTS[:6], strict=True))
    monkeypatch.setattr(results, "run_here", lambda *_: pytest.fail("compressed again"))
    assert Compression(tmp_path / "plan2", WAY)(TEXTS[::-1]).to_list() == first.to_list()[::-1]
    spent = Compression(tmp_path / "plan2", WAY).spent()
    assert spent is not None
    assert spent.n_texts == 7
    assert 0.3 < spent.rate < 0.95
    assert cpu_seconds(tmp_path / "plan1") == pytest.approx(spent.cpu_s)
    assert cpu_seconds(tmp_path / "plan2") == 0


def test_a_part_that_is_torn_is_passed_over_and_its_texts_compressed_again(tmp_path: Path) -> None:
    first = Compression(tmp_path / "plan1", WAY)(TEXTS)
    for path in (tmp_path / "plan1" / "compressed").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    assert cpu_seconds(tmp_path / "plan1") == 0
    assert Compression(tmp_path / "plan1", WAY).spent() is None
    assert Compression(tmp_path / "plan1", WAY)(TEXTS).to_list() == first.to_list()


@pytest.mark.parametrize("other", [replace(WAY, rate=0.9), replace(WAY, encoding="cl100k_base")])
def test_another_way_is_another_result(tmp_path: Path, other: Way) -> None:
    Compression(tmp_path / "plan1", WAY)(TEXTS)
    assert Compression(tmp_path / "plan1", other).spent() is None


def test_equal_texts_are_compressed_together(tmp_path: Path) -> None:
    twice = pl.concat([TEXTS[:2], TEXTS[:2]])
    made = Compression(tmp_path / "plan1", WAY)(twice)
    assert made[:2].to_list() == made[2:].to_list()
    assert Compression(tmp_path / "plan1", WAY).spent().n_texts == 2  # type: ignore[union-attr]


def test_workers_give_what_this_process_gives() -> None:
    workers = Workers(WAY, 1)
    try:
        there = list(workers.run(TEXTS.to_list()))
    finally:
        workers.close()
    here = run_here(TEXTS.to_list(), WAY)
    assert [replace(d, cpu_s=0) for d in there] == [replace(d, cpu_s=0) for d in here]


def test_work_ahead_is_found_when_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compression = Compression(tmp_path / "plan1", WAY)
    ahead = Ahead(compression, lambda rows: TEXTS.gather(rows), np.arange(len(TEXTS)))
    ahead._thread.join()
    monkeypatch.setattr(results, "run_here", lambda *_: pytest.fail("compressed again"))
    assert compression(TEXTS)[0] != TEXTS[0]
    ahead.stop()


def test_what_is_foreseen_is_measured_and_says_so(tmp_path: Path) -> None:
    lengths = np.array([110] * 6 + [5])
    seen = foresee(lengths, lambda places: TEXTS.gather(places).to_list(), WAY, tmp_path / "plan1", 1)
    assert not seen.problem
    assert not seen.earlier
    assert seen.lengths[6] == 5  # too short to be compressed
    assert (seen.lengths[:6] == np.ceil(110 * seen.spent.rate)).all()
    assert seen.cpu_s == pytest.approx(seen.spent.cpu_s_per_1k * lengths.sum() / 1000)


def test_what_cannot_run_here_is_said_with_what_to_do(tmp_path: Path) -> None:
    way = replace(WAY, compressor=f"llmlingua2:{tmp_path}/none-bert-base-multilingual-cased")
    seen = foresee(np.array([100]), lambda _: pytest.fail("read"), way, tmp_path / "plan1", 1)
    assert "hf download" in seen.problem or "semtel-batch[compress]" in seen.problem
    assert check("rules") == ""
    with pytest.raises(BadStrategy, match="rules, llmlingua2"):
        open_compressor("zip", "o200k_base")


def test_the_way_of_asking_tells_compressors_apart_and_reclassifying_sees_the_whole_text() -> None:
    one = endpoint()

    def way(strategy: Strategy, stage: Stage = Stage.CLASSIFY) -> str:
        return way_of_asking(word([TOPIC], stage, one, None), one, strategy, per_request=1)

    plain = Strategy(recipe="batch", tier=Tier.BATCH)
    model = replace(COMPRESSING, compressor="llmlingua2:a-bert-base-multilingual-cased")
    assert len({way(s) for s in (plain, COMPRESSING, replace(COMPRESSING, compress_rate=0.6), model)}) == 4
    assert compressing(COMPRESSING, Stage.RECLASSIFY) is None
    assert compressing(COMPRESSING, Stage.GRADE) == ("rules", 0.5)


def test_a_recipe_names_its_compressor(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = 'name = "mine"\nsummary = "s"\n[grid]\ntier = "batch"\ncompress_rate = [0.5, 1]\ncompressor = {}\n'
    path.write_text(text.format('["rules", "llmlingua2:/m"]'))
    found = {(s.compressor, s.compress_rate) for s in strategies.load(path).strategies()}
    assert found == {("rules", 0.5), ("llmlingua2:/m", 0.5), (None, None)}
    path.write_text(text.format('"zip"'))
    with pytest.raises(BadStrategy, match=r"grid\.compressor"):
        strategies.load(path)


def test_the_shipped_recipe_has_evidence_for_all_its_points() -> None:
    recipe = next(iter(strategies.find(["compressed"])))
    assert {recipe.label_change(s).label_change for s in recipe.strategies()} == {0.15}


@pytest.mark.parametrize(
    ("cpu_s", "usd_per_hour", "verdict"),
    [
        (0.1, "0.04", "; it pays."),
        (0.1, "40000", "; it is dearer than sending the text as it is."),
        (1e7, "0.0000001", "; it pays, but is slower."),
        (1e7, "40", "; it is dearer than sending the text as it is and slower."),
    ],
)
def test_the_plan_says_whether_compressing_pays(cpu_s: float, usd_per_hour: str, verdict: str) -> None:
    lengths = np.full(50, 300, dtype=np.int64)
    spent = Spent(n_texts=50, tokens_before=15_000, tokens_after=9_000, cpu_s=cpu_s)
    shortened = Shortened(lengths=lengths * 6 // 10, cpu_s=cpu_s, spent=spent, earlier=False)
    made = choose(
        job(
            lengths.tolist(),
            recipes=["compressed", "batch", "naive"],
            named=True,
            compressed=lambda compressor, _: shortened if compressor == "rules" else replace(shortened, problem="gone"),
            cpu_usd_per_hour=Decimal(usd_per_hour),
        )
    )
    told = [one for one in made.warnings if one.startswith("Compressing with rules (realtime), asked to keep 50 %")]
    assert len(told) == 1
    assert "keeps 60 % of the tokens" in told[0]
    assert told[0].endswith(verdict)
