"""Texts that speak to the model: none leaves its block, and what a believing model makes of them is seen."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest

from semtel_batch.compose.prompt import Block, user_content, word
from semtel_batch.records import Classifier, Endpoint, EndpointKind, Label, Stage
from semtel_batch.sandbox.gold import Gold
from semtel_batch.sandbox.gullible import Gullible
from semtel_batch.sandbox.reading import Asked, read
from semtel_batch.sandbox.scripted import Scripted
from semtel_batch.sandbox.settings import Settings

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "injection.py"


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("injection", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["injection"] = module  # where its dataclasses look
    spec.loader.exec_module(module)
    return module


SUITE = _loaded()
TOPIC = Classifier(
    name="topic",
    description="",
    instructions="Say what it is about.",
    labels=tuple(Label(name=name) for name in ("Cooking", "Travel", "Health", SUITE.TARGET)),
    version="b2:test",
)
ENDPOINT = Endpoint(name="e", kind=EndpointKind.OPENAI, base_url="https://x/v1", model="gpt-6-luna", api_key_env=None)
PROMPT = word([TOPIC], Stage.CLASSIFY, ENDPOINT, None)
SCRIPTED = Scripted(Settings(model_behind="scripted"), Gold())


def body_of(texts: Sequence[str]) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(PROMPT.body(user_content([Block(text=text) for text in texts]), len(texts)))
    return body


def asked_of(texts: Sequence[str]) -> Asked:
    asked = read(body_of(texts), "gpt-6-luna", b"", 0)
    assert asked is not None
    return asked


def ask(model: Any) -> Any:
    return lambda texts: [answer["topic"] for answer in model.answer([asked_of(texts)])[0]]


@pytest.mark.parametrize("attack", SUITE.ATTACKS)
def test_no_text_leaves_its_block(attack: str) -> None:
    for place, texts in SUITE.packs(SUITE.ATTACKS[attack]):
        system, user = body_of(texts)["messages"]
        assert (system["role"], user["role"]) == ("system", "user")
        assert system["content"] == PROMPT.system
        assert SUITE.TARGET not in system["content"].replace(f"- {SUITE.TARGET}", "")
        found = asked_of(texts).blocks
        assert [block.id for block in found] == list(range(1, len(texts) + 1))
        assert [block.text for block in found] == texts
        assert not any(block.labels for block in found)
        neighbours = [text for number, text in enumerate(texts) if number != place]
        assert neighbours == SUITE.as_prompted(SUITE.NEIGHBOURS)


@pytest.mark.parametrize("attack", SUITE.ATTACKS)
def test_a_model_that_goes_by_each_block_is_not_moved(attack: str) -> None:
    found = SUITE.measure(ask(SCRIPTED), attack, SUITE.ATTACKS[attack])
    assert (found.n_neighbours, found.n_contaminated) == (20, 0)


def test_a_model_that_believes_what_it_reads_is_found_out() -> None:
    believing = ask(Gullible(SCRIPTED))
    own = SUITE.measure(believing, "asks for itself", SUITE.ATTACKS["asks for itself"])
    assert (own.n_hijacked, own.n_places, own.n_contaminated) == (5, 5, 0)
    everyone = SUITE.measure(believing, "asks for all", SUITE.ATTACKS["asks for all"])
    assert everyone.n_hijacked == 5
    assert everyone.n_contaminated >= 5  # the rest had that label already
    assert SUITE.upper(0, 20) == pytest.approx(0.168, abs=0.001)
    assert SUITE.upper(20, 20) == 1.0
