"""From labels to networks: what is learned, certified, compared with before; and embeddings that are paid for once."""

from __future__ import annotations

import base64
import os
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from semtel_batch import tokens
from semtel_batch.conversations import Columns, ingest, load_index
from semtel_batch.embeddings import Embeddings
from semtel_batch.errors import BadConfig, EndpointError, StoreError
from semtel_batch.networks import keep, learned_from, newest, remove
from semtel_batch.offers import priced, promises, worded
from semtel_batch.quality.certificate import Target
from semtel_batch.studies.distill import Source, data_hash, distil
from semtel_batch.studies.training import check
from semtel_batch.transport.client import Reply
from semtel_batch.transport.connection import connection
from semtel_batch.transport.embed import Embedder, Window, grouped, pooled, split
from tests.unit.small_job import TOPIC, endpoint

TARGET = Target(max_disagreement=0.05, delta=0.05)


def _source(n: int = 500, seed: int = 1) -> Source:
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, n)
    x = np.eye(3, 12)[y] + 0.3 * random.standard_normal((n, 12))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    labels: list[str | None] = [TOPIC.label_names[i] for i in y]
    labels[::10] = [None] * len(labels[::10])
    return Source(
        embeddings=x.astype(np.float16),
        labels=labels,
        embedding_model="small",
        reference="plan 1",
        data_hash="d1",
        created_at="2026-11-25T10:00:00+00:00",
        seed=seed,
    )


def test_a_run_becomes_a_network_with_the_words_of_its_certificate(tmp_path: Path) -> None:
    made = distil(TOPIC, _source(), TARGET, None)
    assert made.network is not None
    assert made.held is not None
    card = made.network.card
    assert card.n_trained + card.n_calibrated == 450  # those with a label
    assert made.wording.startswith("with 95 % confidence at least 95 % of topic labels equal those of plan 1 (n=")
    assert made.held.kept_agreement is not None
    assert made.held.kept_agreement >= 0.95
    keep(tmp_path, made.network)
    again = newest(tmp_path, TOPIC, "small")
    assert again is not None
    assert again.card == card
    assert newest(tmp_path, TOPIC, "large") is None
    assert newest(tmp_path, replace(TOPIC, version="other"), "small") is None


def test_a_later_run_is_compared_with_the_network_of_before() -> None:
    before = distil(TOPIC, _source(200), TARGET, None).network
    later = distil(TOPIC, replace(_source(900, 2), created_at="2026-11-26T10:00:00+00:00"), TARGET, before)
    assert later.previous is not None
    assert later.drift is not None
    assert later.held is not None
    assert later.previous.n == later.held.n


@pytest.mark.parametrize("labels", [[None] * 300, ["Travel"] * 300, ["no such label"] * 300])
def test_what_cannot_be_learned_is_said(labels: list[str | None]) -> None:
    made = distil(TOPIC, replace(_source(300), labels=labels), TARGET, None)
    assert made.network is None
    assert made.problem


def test_the_data_s_identity_does_not_depend_on_order() -> None:
    assert data_hash([b"a", b"b"]) == data_hash([b"b", b"a"]) != data_hash([b"a", b"c"])


def test_each_text_is_embedded_once_also_for_later_plans(tmp_path: Path) -> None:
    data = pl.DataFrame({"conversation_id": list("abcd"), "text": ["one", "two", "one", "three"]})
    data.write_csv(tmp_path / "d.csv")
    for plan in ("p1", "p2"):
        ingest(str(tmp_path / "d.csv"), Columns(), tmp_path / plan / "conversations", "o200k_base")
    asked: list[str] = []

    def embed(texts: list[str]) -> npt.NDArray[np.float32]:
        asked.extend(texts)
        return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)

    rows = load_index(tmp_path / "p1" / "conversations")["row"].to_numpy()
    first = Embeddings(tmp_path / "p1", "small")
    first.add(first.missing(rows), embed)
    assert sorted(asked) == ["one", "three", "two"]
    second = Embeddings(tmp_path / "p2", "small")
    assert not len(second.missing(rows))
    assert second.load(rows)[:, 0].tolist() == [3, 3, 3, 5]
    assert len(Embeddings(tmp_path / "p2", "large").missing(rows)) == 3


def test_long_texts_are_windows_and_nothing_is_lost() -> None:
    texts = ["", "short", "many words of a long text, " * 400]
    windows = list(split(texts, "o200k_base", limit=100))
    assert "".join(w.text for w in windows if w.text_number == 2) == texts[2]
    assert all(0 < w.n_tokens <= 100 for w in windows)
    assert all(w.n_tokens == int(tokens.count([w.text], "o200k_base")[0]) for w in windows)
    assert {w.text_number for w in windows} == {1, 2}
    assert [w for group in grouped(windows * 20) for w in group] == windows * 20
    assert all(len(group) <= 256 for group in grouped(windows * 20))


def test_windows_are_averaged_by_tokens_to_unit_length() -> None:
    windows = [Window(0, 3, "a"), Window(0, 1, "b"), Window(2, 5, "c")]
    vectors = np.array([[1, 0], [0, 1], [0, 2]], dtype=np.float32)
    made = pooled(3, windows, vectors)
    assert made[0] == pytest.approx(np.array([3, 1]) / np.sqrt(10))
    assert made[1].tolist() == [0, 0]
    assert made[2].tolist() == [0, 1]


def _reply(data: object, status: int = 200) -> Reply:
    return Reply(status_code=status, body={"data": data, "usage": {"prompt_tokens": 7}})


def test_replies_are_read_by_index_as_base64_or_numbers() -> None:
    embedder = Embedder(endpoint(), connection(endpoint(), {"OPENAI_API_KEY": "k"}), encoding="o200k_base")
    packed = base64.b64encode(np.array([1, 2], dtype="<f4").tobytes()).decode()
    windows = [Window(0, 1, "a"), Window(1, 1, "b")]
    vectors, used = embedder._read(
        windows, _reply([{"index": 1, "embedding": [3.0, 4.0]}, {"index": 0, "embedding": packed}])
    )
    assert vectors.tolist() == [[1, 2], [3, 4]]
    assert used == 7
    for odd in ([], [{"index": 0, "embedding": packed}], [{"index": 5, "embedding": "%%"}] * 2, "text"):
        with pytest.raises(EndpointError, match="embedding model"):
            embedder._read(windows, _reply(odd))
    with pytest.raises(EndpointError, match="status 500"):
        embedder._read(windows, _reply([], status=500))


def test_without_its_extra_training_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    check()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadConfig, match=r"pip install 'semtel-batch\[distill\]'"):
        check()


def test_networks_are_private_and_found_by_the_plan_they_learned_from(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        one = distil(TOPIC, _source(200), TARGET, None).network
        other = distil(TOPIC, replace(_source(200, 2), reference="plan 2", data_hash="d2"), TARGET, None).network
        assert one is not None
        assert other is not None
        places = [keep(tmp_path / "models", network) for network in (one, other)]
    finally:
        os.umask(before)
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "models").rglob("*"))
    assert learned_from(tmp_path / "models", "1") == places[:1]
    remove(places[:1])
    assert learned_from(tmp_path / "models", "1") == []
    (places[1] / "network.json").write_text("{")
    with pytest.raises(StoreError, match="train it again"):
        newest(tmp_path / "models", TOPIC, "small")
    remove(places[1:])
    assert list((tmp_path / "models").iterdir()) == []
    assert learned_from(tmp_path / "nowhere", "1") == []


def test_networks_are_offered_where_they_are_cheaper() -> None:
    network = distil(TOPIC, _source(), TARGET, None).network
    assert network is not None
    card = replace(network.card, coverage=0.8)
    one = priced([card], Decimal("0.01"), Decimal(1))
    assert one.coverage == pytest.approx(0.8)
    assert one.usd == Decimal("0.21")
    assert one.pays
    assert priced([card, card], Decimal("0.01"), Decimal(1)).coverage == pytest.approx(0.6)
    assert not priced([card] * 5, Decimal("0.01"), Decimal(1)).pays
    assert not priced([card], Decimal("0.9"), Decimal(1)).pays
    assert promises(card, None)
    assert promises(card, 0.95)
    assert not promises(card, 0.99)
    assert not promises(replace(card, threshold=None), None)
    assert "semtel-batch distill abc --apply abc" in worded(one, "abc")
    assert "about 80% of these" in worded(one, "abc")
