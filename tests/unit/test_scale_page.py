"""docs/scale.md plans 300 million conversations a week on paper: its multiplication is done again."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = " ".join((ROOT / "docs" / "scale.md").read_text(encoding="utf-8").split())
README = (ROOT / "README.md").read_text(encoding="utf-8")

N, MINUTES, CLASSIFIERS = 300e6, 7 * 24 * 60, 4
_N_EXAMPLES = 65  # conversations of README's session
_NUMBER = r"([\d.,]*\d)"


def stated(text: str) -> float:
    """The number that stands on the page where `text` has N."""
    found = re.findall(re.escape(text).replace("N", _NUMBER, 1), PAGE)
    assert len(found) == 1, f"{text!r} stands there {len(found)} times"
    return float(found[0].replace(",", ""))


def row(way: str) -> tuple[float, float, float]:
    """Tokens a conversation, billions of tokens and US dollars a week."""
    found = re.search(rf"\| {re.escape(way)} \| {_NUMBER} \| {_NUMBER} billion \| {_NUMBER} \|", PAGE)
    assert found, way
    tokens, billions, usd = (float(cell.replace(",", "")) for cell in found.groups())
    return tokens, billions, usd


WAYS = {
    "batch, one and one": ("batch", "1×1"),
    "batch, 1 × all classifiers": ("combined", "1×all"),
    "batch, 20 × all, changes about a third of labels (assumed)": ("packed", "20×all"),
}
ONE, _, PACKED = map(row, WAYS)


@pytest.mark.parametrize("way", WAYS)
def test_a_week_is_readmes_session_multiplied(way: str) -> None:
    """Not to the dollar: the session is run anew for each version, and the page is not."""
    tokens, billions, usd = row(way)
    recipe, size = WAYS[way]
    cells = rf"^\s*>?\s*{recipe}\s+batch\s+{size}\s+[\d,]+\s+(\d+) k\s+[\d,]+\s+\$([\d.]+)"
    found = re.search(cells, README, re.MULTILINE)
    assert found, recipe
    assert tokens == pytest.approx(float(found[1]) * 1_000 / _N_EXAMPLES, rel=0.1)
    assert billions == pytest.approx(N * tokens / 1e9, rel=0.01)
    assert usd == pytest.approx(N * float(found[2]) / _N_EXAMPLES, rel=0.1)


FIGURES = {
    "evenly, are N million tokens a minute": PACKED[1] * 1e3 / MINUTES,
    "one and one are N million. In realtime": ONE[1] * 1e3 / MINUTES,
    "that is N or 59 endpoints": math.ceil(PACKED[1] * 1e9 / MINUTES / 2e6),
    "that is 7 or N endpoints": math.ceil(ONE[1] * 1e9 / MINUTES / 2e6),
    "wait at once: N billion packed": PACKED[1] / 7,
    "packed, N billion one and one. With": ONE[1] / 7,
    "Global Batch), N or 169 deployments": PACKED[1] / 7,
    "with 15 billion, 2 or N.": math.ceil(ONE[1] / 7 / 15),
    "**Files**: N million packed requests": N / 20 / 1e6,
    "a week are N files of 50,000": N / 20 / 50_000,
    "may have end one after N:": 200e6 / 30e3,
    "6,700: N files a week": N / 20 / 6_700,
    "One and one: N billion requests": N * CLASSIFIERS / 1e9,
    "billion requests, N files": N * CLASSIFIERS / 50_000,
    "would be N parts": N * 4_000 / (8 * 2**20),
    "it numbers N billion conversations": 2**32 / 1e9,
    "**One plan a day** (N million": N / 7 / 1e6,
    "planning takes N bytes of its memory": (stated("(614 MiB for 1 million, N MiB for 3") - 614) * 2**20 / 2e6,
    "workers aside): N GB for a day": N / 7 * stated("planning takes N bytes of its memory") / 1e9,
    "four items, so N GB for a day": N / 7 * 0.9e-6,
    "say of 5 million: N a week": N / 5e6,
    "packed N minutes a week": N / 20 * 14e-6 / 60,
    "one and one N hours": N * CLASSIFIERS * 14e-6 / 3_600,
    "(400 tokens): N core hours": N / 100_000 * 4.4 / 3_600,
    "measured on 4,000): N GB": N * 353 / 1e9,
    "106 GB and N GB a week": N * CLASSIFIERS * 35 / 1e9,
}


@pytest.mark.parametrize("text", FIGURES)
def test_what_follows_is_reckoned_right(text: str) -> None:
    """Rounded as the page rounds: endpoints up, the rest to two or three digits."""
    assert stated(text) == pytest.approx(FIGURES[text], rel=0.04), text


def test_a_figure_that_is_wrong_is_found() -> None:
    with pytest.raises(AssertionError, match="stands there 0 times"):
        stated("evenly, are N billion tokens a minute")
