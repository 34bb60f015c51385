"""A small network: what is kept of it is certified, what it has not seen it leaves, and its files hold numbers only."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from semtel_batch.errors import StoreError
from semtel_batch.quality.certificate import Target
from semtel_batch.quality.network import Card, Network, drift, forward, guess, load, save
from semtel_batch.quality.selective import NOTHING, Guide, certified_threshold
from semtel_batch.studies.training import Examples, calibrate, split, train

TARGET = Target(max_disagreement=0.05, delta=0.05)
CARD = Card(
    classifier="topic",
    labels=("a", "b", "c", "d"),
    classifier_version="v1",
    embedding_model="test",
    dimensions=16,
    data_hash="00",
    reference="gpt",
    seed=3,
    created_at="2026-11-25T00:00:00+00:00",
    n_trained=0,
    n_calibrated=0,
    temperature=1.0,
    min_similarity=0.0,
)


def _world(n: int, seed: int, noise: float = 0.3) -> Examples:
    """Three kinds (the fourth label is never given) round their centres, on the unit sphere."""
    random = np.random.default_rng(seed)
    centres = np.eye(3, 16, dtype=np.float32)
    y = random.integers(0, 3, n)
    x = centres[y] + noise * random.standard_normal((n, 16)).astype(np.float32)
    return Examples(embeddings=x / np.linalg.norm(x, axis=1, keepdims=True), labels=y)


@pytest.fixture(scope="module")
def trained() -> Network:
    return train(_world(400, 1), CARD)[0]


def test_it_learns_and_keeps_what_is_certified(trained: Network) -> None:
    sample, everyone = _world(400, 2), _world(4000, 5)
    told = guess(trained, everyone.embeddings)
    network, kept = calibrate(trained, sample, told, TARGET)
    assert kept.certified
    assert 0.3 < kept.coverage < 1
    chosen = told.kept(network.card.threshold)
    assert (told.label[chosen] == everyone.labels[chosen]).mean() > 0.95
    assert (told.label[chosen] == everyone.labels[chosen]).mean() > (told.label == everyone.labels).mean()
    assert abs(chosen.mean() - kept.coverage) < 1e-9


def test_a_label_without_examples_is_never_given(trained: Network) -> None:
    assert set(guess(trained, _world(500, 8).embeddings).label.tolist()) <= {0, 1, 2}


def test_what_is_unlike_all_kinds_is_never_kept(trained: Network) -> None:
    odd = np.zeros((5, 16), np.float32)
    odd[:, 10] = -1
    told = guess(trained, odd)
    assert not told.kept(0.0).any()
    assert np.isneginf(told.sureness).all()


def test_the_temperature_makes_confidence_honest(trained: Network) -> None:
    everyone = _world(4000, 6)
    told = guess(trained, everyone.embeddings)
    assert abs(float(told.confidence.mean()) - float((told.label == everyone.labels).mean())) < 0.03


def test_the_parts_are_disjoint_and_the_same_every_time() -> None:
    first, second = split(300, 4), split(300, 4)
    assert sorted(np.concatenate(first).tolist()) == list(range(300))
    assert [part.tolist() for part in first] == [part.tolist() for part in second]


def test_it_survives_saving_to_the_last_bit(trained: Network, tmp_path: Path) -> None:
    save(trained, tmp_path)
    x = _world(50, 3).embeddings
    again = load(tmp_path)
    assert again.card == trained.card
    assert (guess(again, x).confidence == guess(trained, x).confidence).all()
    assert (forward(again.layers, x) == forward(trained.layers, x)).all()


def test_half_precision_changes_little(trained: Network) -> None:
    x = _world(500, 3).embeddings
    assert (guess(trained, x.astype(np.float16)).label == guess(trained, x).label).mean() > 0.99


@pytest.mark.parametrize("harm", ["json", "npz", "format", "none"])
def test_a_torn_network_is_told(trained: Network, tmp_path: Path, harm: str) -> None:
    if harm != "none":
        save(trained, tmp_path)
    if harm == "json":
        (tmp_path / "network.json").write_text("{")
    elif harm == "npz":
        (tmp_path / "network.npz").write_bytes(b"PK\x03\x04 torn")
    elif harm == "format":
        (tmp_path / "network.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(StoreError, match="semtel-batch distill"):
        load(tmp_path)


def test_a_pickle_in_the_arrays_is_refused(trained: Network, tmp_path: Path) -> None:
    save(trained, tmp_path)
    np.savez(tmp_path / "network.npz", kinds=np.array([{"a": 1}], dtype=object))
    with pytest.raises(StoreError):
        load(tmp_path)


def test_drift_is_seen_and_sameness_is_not(trained: Network) -> None:
    told = guess(trained, _world(4000, 5).embeddings)
    network, _ = calibrate(trained, _world(400, 2), told, TARGET)
    assert drift(network.card, guess(trained, _world(4000, 7).embeddings).confidence) < 0.02
    assert drift(network.card, guess(trained, _world(4000, 7, noise=1.0).embeddings).confidence) > 0.25
    assert drift(replace(network.card, confidence_deciles=()), told.confidence) == 0


def _sample(n: int, n_wrong_at_end: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    confidence = np.linspace(1.0, 0.0, n)
    right = np.ones(n, dtype=bool)
    right[n - n_wrong_at_end :] = False
    return confidence, right


def test_the_boldest_threshold_before_the_first_failure() -> None:
    confidence, right = _sample(400, 100)
    kept = certified_threshold(confidence, right, np.repeat(confidence, 20), TARGET)
    assert kept.certified
    assert 280 <= kept.n <= 320
    assert kept.p_value <= 0.05
    assert abs(kept.coverage - kept.n / 400) < 0.01


def test_nothing_is_kept_of_a_small_or_bad_sample() -> None:
    assert certified_threshold(*_sample(40, 0), np.linspace(0, 1, 5000), TARGET) is NOTHING
    confidence, _ = _sample(400, 0)
    wrong = np.zeros(400, dtype=bool)
    assert certified_threshold(confidence, wrong, confidence, TARGET) is NOTHING


def test_a_sample_of_all_there_is_proves_no_more_than_any_other() -> None:
    """The labels promised are those still to come: 40 of 200 wrong can't say that at most a fifth will be."""
    confidence, right = _sample(200, 40)
    kept = certified_threshold(confidence, right, confidence, Target(max_disagreement=0.2))
    assert kept.certified and kept.n < 200
    assert certified_threshold(np.full(200, 0.5), right, np.full(200, 0.5), Target(max_disagreement=0.2)) is NOTHING


def test_ties_are_kept_together_and_minus_infinity_never() -> None:
    confidence = np.array([0.9] * 200 + [-np.inf] * 50)
    right = np.array([True] * 250)
    kept = certified_threshold(confidence, right, confidence, TARGET)
    assert (kept.n, kept.coverage) == (200, 0.8)


def test_the_certificate_errs_no_more_often_than_it_says() -> None:
    """2,000 samples of a world whose labels get worse as the model gets less sure; binomial slack of three sigma."""
    random = np.random.default_rng(11)
    confidence = np.sort(random.random(3000))[::-1].copy()
    right = random.random(3000) > 0.004 + 0.25 * (1 - confidence) ** 2
    guide = Guide(confidence=confidence[::10], right=right[::10])
    errors = certified = 0
    for _ in range(2000):
        rows = random.choice(3000, 300, replace=False)
        kept = certified_threshold(confidence[rows], right[rows], confidence, TARGET, guide)
        certified += kept.certified
        errors += bool((~right[confidence >= kept.threshold]).mean() > 0.05) if kept.certified else 0
    assert certified > 1000
    assert errors <= 2000 * 0.05 + 3 * (2000 * 0.05 * 0.95) ** 0.5
