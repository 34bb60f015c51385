"""The real llmlingua over a model that the test makes: two random layers, a vocabulary of letters. No download."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semtel_batch import tokens
from semtel_batch.compose.compress.compressor import compress_texts
from semtel_batch.compose.compress.llmlingua2 import DEFAULT_MODEL, LLMLingua2, check, is_there, keep_words
from semtel_batch.compose.compress.spans import are_kept, protected
from semtel_batch.errors import BadConfig

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.xdist_group("llmlingua2")]

ENCODING = "o200k_base"
CHAT = (
    "user: hello there, my order of twelve chairs has not arrived and I would like to know where it is now.\n"
    "assistant: sorry to hear that! order 48213-AX left us on 12 March 2027 for $1,299.50; see https://ex.com/t?id=7\n"
    'user: it says `status is pending` and the page shows {"eta": null} but nobody called me about that at all.\n'
)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("llmlingua", reason="extra `compress` is not installed")
    import torch
    from transformers import BertConfig, BertForTokenClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "bert-base-multilingual-cased-tiny"
    folder.mkdir()
    letters = [chr(c) for c in (*range(33, 127), *range(0xE0, 0xFF))]
    words = ["hello", "order", "the", "would", "##ing", "of", "and", "that"]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters), *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=False).save_pretrained(folder)
    state = torch.get_rng_state()
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        num_labels=2,
    )  # fmt: skip
    BertForTokenClassification(config).save_pretrained(folder)
    torch.set_rng_state(state)
    return folder


@pytest.fixture(scope="session")
def compressor(tiny: Path) -> LLMLingua2:
    made = LLMLingua2(ENCODING, str(tiny))
    made.load()
    return made


def test_loading_leaves_random_numbers_and_the_environment_alone(tiny: Path) -> None:
    import torch

    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    expected = random.random(), np.random.random(), torch.rand(1).item()
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    before = dict(os.environ)
    LLMLingua2(ENCODING, str(tiny)).load()
    assert (random.random(), np.random.random(), torch.rand(1).item()) == expected
    changed = {name for name in {*before, *os.environ} if before.get(name) != os.environ.get(name)}
    assert changed <= {"TOKENIZERS_PARALLELISM"}


def test_prose_goes_and_everything_else_stays(compressor: LLMLingua2) -> None:
    text = compressor.compress([CHAT], 0.7)[0]
    assert text is not None
    assert are_kept(CHAT, protected(CHAT), text)
    assert text.count("\n") == CHAT.count("\n")
    assert [line.partition(":")[0] for line in text.splitlines()] == ["user", "assistant", "user"]
    assert tokens.count([text], ENCODING)[0] < tokens.count([CHAT], ENCODING)[0]
    assert "  " not in text


def test_less_is_kept_at_a_lower_rate_and_each_text_alone_is_the_same(compressor: LLMLingua2) -> None:
    long = CHAT * 12  # more than one window
    rates = [compress_texts(compressor, [long], rate, ENCODING).rate for rate in (0.9, 0.7, 0.5)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[-1] + 0.05
    together = compressor.compress([CHAT, long, CHAT], 0.6)
    assert together == [compressor.compress([text], 0.6)[0] for text in (CHAT, long, CHAT)]


def test_words_at_the_border_of_windows_are_not_glued(compressor: LLMLingua2) -> None:
    text = "user: " + " ".join(f"{'abcdefghij'[i % 10] * (i % 7 + 2)}" for i in range(900))
    made = compressor.compress([text], 0.5)[0]
    assert made is not None
    words = iter(text.split())
    assert all(word in words for word in made.split())  # a subsequence of the words


ODD = [
    "",
    " ",
    "[CLS] [SEP] [NEW0] [PAD]",
    "<|endoftext|><|fim_prefix|>",
    "🧠" * 80,
    "a" * 5000,
    "\ud800",
    "你好" * 300,
]


@pytest.mark.parametrize("odd", [*ODD, "\n" * 50])
def test_odd_texts_never_raise_and_lose_nothing_that_must_stay(compressor: LLMLingua2, odd: str) -> None:
    text = f"user: please tell me all that you know of {odd} and of whatever else there may be to be said of it"
    for one in (odd, text):
        made = compress_texts(compressor, [one], 0.5, ENCODING)
        assert are_kept(one, protected(one), made.texts[0])
    assert "[CLS]" not in odd or "[CLS]" in made.texts[0]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(min_size=80, max_size=300))
def test_any_text_ends_well(compressor: LLMLingua2, text: str) -> None:
    made = compress_texts(compressor, [text], 0.5, ENCODING)
    assert are_kept(text, protected(text), made.texts[0])
    assert made.tokens_after <= made.tokens_before


def test_a_model_that_breaks_costs_only_the_saving(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = LLMLingua2(ENCODING, str(tiny))
    broken.load()
    monkeypatch.setattr(broken._loaded.model, "forward", lambda *a, **k: 1 / 0)
    made = compress_texts(broken, [CHAT, CHAT], 0.6, ENCODING)
    assert made.texts == [CHAT, CHAT]
    assert made.kept_whole == {"failed": 2}


def test_a_missing_model_is_told_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llmlingua", reason="extra `compress` is not installed")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert not is_there(DEFAULT_MODEL)
    with pytest.raises(BadConfig, match=f"hf download {re.escape(DEFAULT_MODEL)}"):
        check(DEFAULT_MODEL)
    (tmp_path / "my-model").mkdir()
    with pytest.raises(BadConfig, match="must contain bert-base-multilingual-cased"):
        check(str(tmp_path / "my-model"))


def test_words_are_found_again_in_the_original() -> None:
    text = "user: The café's coffee, at 7 pm, wasn't cold.\n\n  code stays\nassistant:  Fine then"
    spans = protected(text)
    words = ["user", ":", "The", "cafe", "'", "s", "coffee", ",", "at", "7", "pm", ",", "wasn", "'", "t", "cold", "."]
    words += ["Fine", "then"]
    gone = {"coffee", "at", "pm", "then", "7"}
    made = keep_words(text, spans, [(word, word not in gone) for word in words])
    assert made == "user: The café's , 7 , wasn't cold.\n\n  code stays\nassistant:  Fine "
