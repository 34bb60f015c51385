"""From labels to networks: what is learned, certified, compared with before; and embeddings that are paid for once."""

from __future__ import annotations

import base64
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest

from semtel_batch import tokens
from semtel_batch.conversations import Columns, ingest, load_hashes, load_index
from semtel_batch.embeddings import Embeddings
from semtel_batch.errors import BadConfig, BadInput, StoreError
from semtel_batch.networks import (
    certified,
    data_hash,
    keep,
    learned_from,
    network_share,
    newest,
    planned,
    plans_of,
    remove,
)
from semtel_batch.quality.certificate import Target
from semtel_batch.quality.network import guess
from semtel_batch.records import Answer, Outcome
from semtel_batch.studies.distill import Against, Labelled, Source, against, distil
from semtel_batch.studies.training import Examples, check, is_learned
from semtel_batch.transport.replies import answer_from
from semtel_batch.vectors import Window, pooled, read, split
from tests.unit.small_job import TOPIC

TARGET = Target(max_disagreement=0.05, delta=0.05)


def _source(n: int = 500, seed: int = 1) -> Source:
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, n)
    x = np.eye(3, 12)[y] + 0.3 * random.standard_normal((n, 12))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    labels: list[str | None] = [TOPIC.label_names[i] for i in y]
    labels[::10] = [None] * len(labels[::10])
    return Source(
        run=Labelled(
            text_hashes=[f"{seed}-{i}".encode() for i in range(n)], embeddings=x.astype(np.float16), labels=labels
        ),
        embedding_model="small",
        reference="plan 1",
        data_hash="d1",
        created_at="2026-11-25T10:00:00+00:00",
        seed=seed,
    )


def _with_labels(source: Source, labels: list[str | None]) -> Source:
    return replace(source, run=replace(source.run, labels=labels))


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
    assert later.against is not None
    assert later.against.n == later.held.n
    assert later.against.verdict in ("better", "worse", "no different")


def test_the_sign_of_what_changed_is_tested_exactly() -> None:
    assert Against(n=100, n_gained=9, n_lost=0, p_value=0.004).verdict == "better"
    assert Against(n=100, n_gained=0, n_lost=9, p_value=0.004).verdict == "worse"
    assert Against(n=100, n_gained=3, n_lost=2, p_value=1.0).verdict == "no different"
    network = distil(TOPIC, _source(200), TARGET, None).network
    assert network is not None
    sample = Examples(embeddings=np.eye(3, 12, dtype=np.float32), labels=np.arange(3))
    same = against(network, network, sample)
    assert (same.n_gained, same.n_lost, same.p_value) == (0, 0, 1.0)


def test_other_runs_labels_are_learned_and_never_checked_against() -> None:
    more = _source(600, 2)
    alone = distil(TOPIC, _source(200), TARGET, None).network
    both = distil(TOPIC, replace(_source(200), also=(more.run,), also_plans=("2",)), TARGET, None).network
    assert alone is not None
    assert both is not None
    assert both.card.n_calibrated == alone.card.n_calibrated
    learned = [
        one
        for one, label in zip(more.run.text_hashes, more.run.labels, strict=True)
        if label is not None and is_learned(one)
    ]
    assert both.card.n_trained == alone.card.n_trained + len(learned)
    assert plans_of(both.card) == ("1", "2")
    assert 0.5 < sum(map(is_learned, more.run.text_hashes)) / 600 < 0.7


@pytest.mark.parametrize("labels", [[None] * 300, ["Travel"] * 300, ["no such label"] * 300])
def test_what_cannot_be_learned_is_said(labels: list[str | None]) -> None:
    made = distil(TOPIC, _with_labels(_source(300), labels), TARGET, None)
    assert made.network is None
    assert made.problem


def test_the_data_s_identity_does_not_depend_on_order() -> None:
    assert data_hash([b"a", b"b"]) == data_hash([b"b", b"a"]) != data_hash([b"a", b"c"])


def test_each_text_is_embedded_once_also_for_later_plans(tmp_path: Path) -> None:
    data = pl.DataFrame({"conversation_id": list("abcd"), "text": ["one", "two", "one", "three"]})
    data.write_csv(tmp_path / "d.csv")
    for plan in ("p1", "p2"):
        ingest(str(tmp_path / "d.csv"), Columns(), tmp_path / plan / "conversations", "o200k_base")
    folder = tmp_path / "p1" / "conversations"
    rows = load_index(folder)["row"].to_numpy()
    first = Embeddings(tmp_path / "p1", "small")
    missing = first.missing(rows)
    assert missing.tolist() == [0, 1, 3]
    for number, row in enumerate(missing[:2]):
        first.keep(f"s.{number:05d}", load_hashes(folder, [row]), np.array([[row, 1.0]], dtype=np.float32))
    second = Embeddings(tmp_path / "p2", "small")
    assert second.missing(rows).tolist() == [3]
    assert second.load(rows).tolist() == [[0, 1], [1, 1], [0, 1], [0, 0]]
    assert [places.tolist() for places, _ in second.each(rows)] == [[0, 2], [1]]
    assert len(Embeddings(tmp_path / "p2", "large").missing(rows)) == 3
    first.merge("s")
    assert len(list((tmp_path / "p1" / "embeddings").iterdir())) == 1
    assert second.load(rows).tolist() == [[0, 1], [1, 1], [0, 1], [0, 0]]


def test_a_crash_between_merging_and_tidying_up_loses_no_vector(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("conversation_id,text\na,one\nb,two\n")
    ingest(str(tmp_path / "d.csv"), Columns(), tmp_path / "p1" / "conversations", "o200k_base")
    hashes = load_hashes(tmp_path / "p1" / "conversations", [0, 1])
    kept = Embeddings(tmp_path / "p1", "small")
    for number, one in enumerate(hashes):
        kept.keep(f"s.{number:05d}", [one], np.ones((1, 2), dtype=np.float32))
    pieces = sorted((tmp_path / "p1" / "embeddings").iterdir())
    last = pieces[1].read_bytes()
    kept.merge("s")
    pieces[1].write_bytes(last)  # the first piece was gone, the second one not yet
    kept.merge("s")
    assert not len(kept.missing(np.array([0, 1], np.uint32)))


def test_long_texts_are_windows_and_nothing_is_lost() -> None:
    texts = ["", "short", "many words of a long text, " * 400]
    windows = list(split(texts, "o200k_base", limit=100))
    assert "".join(w.text for w in windows if w.text_number == 2) == texts[2]
    assert all(0 < w.n_tokens <= 100 for w in windows)
    assert all(w.n_tokens == int(tokens.count([w.text], "o200k_base")[0]) for w in windows)
    assert {w.text_number for w in windows} == {1, 2}


def test_windows_are_averaged_by_tokens_to_unit_length() -> None:
    windows = [Window(0, 3, "a"), Window(0, 1, "b"), Window(2, 5, "c")]
    vectors = np.array([[1, 0], [0, 1], [0, 2]], dtype=np.float32)
    made = pooled(3, windows, vectors)
    assert made[0] == pytest.approx(np.array([3, 1]) / np.sqrt(10))
    assert made[1].tolist() == [0, 0]
    assert made[2].tolist() == [0, 1]


def _reply(data: object) -> Answer:
    return answer_from("c-0", 200, {"object": "list", "data": data, "usage": {"prompt_tokens": 7, "total_tokens": 7}})


def test_replies_are_read_by_index_as_base64_or_numbers() -> None:
    packed = base64.b64encode(np.array([1, 2], dtype="<f4").tobytes()).decode()
    got = _reply([{"index": 1, "embedding": [3.0, 4.0]}, {"index": 0, "embedding": packed}])
    assert got.outcome is Outcome.ANSWERED
    assert got.usage.prompt_tokens == 7
    assert read(got.content, 2).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match="not 3 vectors"):
        read(got.content, 3)
    for odd in ([{"index": 5, "embedding": packed}], [{"index": 0, "embedding": packed}] * 2, ["text"]):
        assert _reply(odd).outcome is Outcome.ERRORED
    for odd in ([{"index": 0, "embedding": "%%"}], [{"index": 0, "embedding": ["a"]}], [{"index": 0}]):
        with pytest.raises(ValueError, match=r".+"):
            read(_reply(odd).content, 1)


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


def test_more_labels_make_another_network_beside_the_first(tmp_path: Path) -> None:
    few, more = _source(400), replace(_source(400), created_at="2026-11-26T10:00:00+00:00")
    few = _with_labels(few, [None if i % 3 == 0 else one for i, one in enumerate(few.run.labels)])
    made = [distil(TOPIC, one, TARGET, None).network for one in (few, more)]
    places = [keep(tmp_path, network) for network in made if network is not None]
    assert len(set(places)) == 2
    found = certified(tmp_path, TOPIC, "small", 0.95)
    assert found is not None
    assert found[0] == places[1]
    assert certified(tmp_path, TOPIC, "small", 0.99) is None
    assert certified(tmp_path, TOPIC, "large", None) is None


def test_a_network_that_was_changed_is_not_the_one_that_was_planned(tmp_path: Path) -> None:
    network = distil(TOPIC, _source(200), TARGET, None).network
    assert network is not None
    folder = keep(tmp_path, network)
    share = network_share(network.card, folder, tmp_path)
    assert planned(tmp_path, share, "p1").card == network.card
    (folder / "network.json").write_text((folder / "network.json").read_text() + " ")
    with pytest.raises(BadInput, match="gone or was changed"):
        planned(tmp_path, share, "p1")


def test_a_vector_that_is_no_direction_is_not_kept() -> None:
    for numbers in ([np.nan, 1.0], [np.inf, 1.0], []):
        told = base64.b64encode(np.array(numbers, "<f4").tobytes()).decode()
        for content in ([told], [[1e39, 1.0]], [[]]):
            with pytest.raises(ValueError, match="no list of finite numbers"):
                read(orjson.dumps(content).decode(), 1)
    large = read(orjson.dumps([[3e38, 3e38]]).decode(), 1)
    assert pooled(1, [Window(0, 8_000, "")], large)[0] == pytest.approx([0.5**0.5] * 2)


def test_a_network_is_not_asked_about_vectors_of_another_length() -> None:
    network = distil(TOPIC, _source(), TARGET, None).network
    assert network is not None
    with pytest.raises(BadInput, match="vectors of 12 numbers, and small gives 3 now"):
        guess(network, np.ones((1, 3), np.float16))


def test_files_that_another_run_merges_meanwhile_are_read_all_the_same(tmp_path: Path) -> None:
    kept = Embeddings(tmp_path / "p", "m")
    for number in range(2):
        kept.keep(f"s.0000{number}", [bytes([number])], np.ones((1, 2), np.float32))
    reading = kept._parts(["text_hash"])
    found = [next(reading)]
    kept.merge("s")
    found += reading
    assert set(pl.concat(found)["text_hash"]) == {b"\0", b"\1"}
