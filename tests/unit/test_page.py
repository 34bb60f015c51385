"""The page of a report: all of it there, nothing of it alive, whatever stands in labels and messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
import reported_plan

from semtel_batch.errors import BadInput
from semtel_batch.page import Story, comparison_sheet, page_of, rendered, write_page
from semtel_batch.plans import FrontierPoint, MixShare, Plan, ShadowPrice, Strata
from semtel_batch.records import Outcome, Pace
from semtel_batch.report import FailureLine, LabelCount, Report, report
from semtel_batch.studies.compare import Sides, compare
from semtel_batch.studies.tradeoff import tradeoff
from semtel_batch.throughput import RequestFailure

NOW = datetime(2026, 11, 25, tzinfo=UTC)
START = reported_plan.START

ATTACKS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "</text></svg><script>alert(1)</script>",
    "]]><script>alert(1)</script>",
    "<!--<script>-->",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% for x in y %}",
    "$\\frac{1}{0}$ $unclosed \\undefined",
    'url(#x) id="money-title" href="#evil"',
    "</style><style>*{display:none}",
    "\x00\x08\x1b[31m\u202egnp.exe\ud7ff\ufffe",
    "日本語 עברית 👩‍👩‍👧",
)
"""What a label, a file name, or a provider's message may say to a page."""


class Reader(HTMLParser):
    """Takes down a page's elements, their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, Mapping[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


def reported(folder: Path) -> tuple[Report, Plan]:
    made = reported_plan.plan()
    store = reported_plan.executed(folder, made)
    found = report(store, made, reported_plan.items())
    store.close()
    return found, made


def hostile(found: Report) -> Report:
    """The report with an attack in every place where foreign text can stand."""
    labels = tuple(LabelCount(label=text, n=n + 1, share=0.05) for n, text in enumerate(ATTACKS))
    n_labelled = sum(label.n for label in labels)
    lines = tuple(replace(line, labels=labels, n_labelled=n_labelled) for line in found.classifiers)
    failure = FailureLine(
        outcome=Outcome.INVALID, n_items=3, classifiers=("topic",), details=tuple((text, 1) for text in ATTACKS)
    )
    requests = tuple(
        RequestFailure(outcome=Outcome.ERRORED, status_code=500, error_code=text, n_requests=1, example=text)
        for text in ATTACKS
    )
    return replace(
        found,
        source="/".join(ATTACKS),
        classifiers=lines,
        failures=(failure,),
        request_failures=requests,
        warnings=ATTACKS,
        trace=tuple(pace(n, ATTACKS[0]) for n in range(900)),
    )


def pace(n: int, endpoint: str = "main") -> Pace:
    return Pace(
        endpoint=endpoint,
        at=START + timedelta(seconds=n),
        span_s=1.0,
        limit=20,
        in_flight=n % 20,
        n_answered=n % 7,
        n_limited=0,
        n_failed=0,
        p50_s=0.5,
    )


def story(found: Report, made: Plan) -> Story:
    written = [(START + timedelta(seconds=n), 5, 0.01) for n in range(1, 30)]
    return Story(report=found, plan=made, tradeoff=tradeoff(made, (), made.endpoints), written=written, now=NOW)


def test_nothing_that_is_shown_is_alive(tmp_path: Path) -> None:
    found, made = reported(tmp_path)
    page = page_of(story(hostile(found), made))
    read = Reader(page)
    tags = {tag for tag, _ in read.elements}
    assert (
        tags & {"script", "img", "iframe", "object", "embed", "form", "base", "foreignobject", "image", "a "} == set()
    )
    assert [a for _, a in read.elements for name in a if name.startswith("on")] == []
    links = {value for _, a in read.elements for name, value in a.items() if name in ("href", "xlink:href", "src")}
    assert all(link is not None and link.startswith("#") for link in links)
    assert sum(tag == "style" for tag, _ in read.elements) == 1 + sum(tag == "svg" for tag, _ in read.elements)
    for text in ATTACKS[:13]:
        assert text in read.text, text
    assert "49" not in re.findall(r"\{\{.*?\}\}", read.text)
    assert not any(ord(c) < 32 and c not in "\n\t" for c in page)
    assert "\u202e" not in page


def test_a_page_can_be_read_without_its_pictures(tmp_path: Path) -> None:
    found, made = reported(tmp_path)
    read = Reader(page_of(story(found, made)))
    ids = [a["id"] for _, a in read.elements if "id" in a]
    assert len(ids) == len(set(ids))
    pictures = [a for tag, a in read.elements if tag == "svg"]
    assert pictures
    for picture in pictures:
        assert picture["role"] == "img"
        assert picture["aria-labelledby"] in ids
    assert ("html", {"lang": "en"}) in read.elements
    assert sum(tag == "h1" for tag, _ in read.elements) == 1
    assert sum(tag == "caption" for tag, _ in read.elements) == sum(tag == "table" for tag, _ in read.elements)
    targets = {a["href"] for tag, a in read.elements if tag == "a"}
    assert targets <= {f"#{one}" for one in ids}
    for line in found.classifiers:
        assert line.classifier in read.text


def test_the_colours_of_charts_follow_the_pages_scheme(tmp_path: Path) -> None:
    found, made = reported(tmp_path)
    page = page_of(story(found, made))
    assert "var(--ink)" in page
    assert set(re.findall(r"#[0-9a-f]{6}\b", page[page.index("<body>") :])) == set(), "a colour of no scheme"
    style = page[: page.index("</style>")]
    for name in set(re.findall(r"var\((--\w+)\)", page)):
        assert style.count(f"{name}:") >= 2, name


def test_the_largest_page_stays_small(tmp_path: Path) -> None:
    found, made = reported(tmp_path)
    labels = tuple(LabelCount(label=f"label number {n} with a longish name", n=5, share=0.0025) for n in range(400))
    lines = tuple(
        replace(found.classifiers[0], classifier=f"classifier_{n}", labels=labels, n_labelled=2_000) for n in range(8)
    )
    large = replace(found, classifiers=lines, trace=tuple(pace(n) for n in range(50_000)))
    assert len(page_of(story(large, made)).encode()) <= 2_000_000


def test_the_same_report_gives_the_same_page(tmp_path: Path) -> None:
    found, made = reported(tmp_path)
    assert page_of(story(found, made)) == page_of(story(found, made))


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    found, made = reported(tmp_path)
    size = write_page(story(found, made), tmp_path / "r.html")
    assert (tmp_path / "r.html").stat().st_size == size
    with pytest.raises(BadInput, match="can't be written"):
        write_page(story(found, made), tmp_path / "gone" / "r.html")
    assert [path.name for path in tmp_path.glob(".*")] == []


def compared() -> str:
    """Two runs that give each label of ATTACKS, and differ in one of three."""
    n = 30 * len(ATTACKS)
    labels = [ATTACKS[i % len(ATTACKS)] for i in range(n)]
    others = [ATTACKS[(i + (i % 3 == 0)) % len(ATTACKS)] for i in range(n)]
    a, b = (
        pl.DataFrame(
            {"conversation_id": list(map(str, range(n))), "classifier": "topic", "label": said, "how": "exact"}
        )
        for said in (labels, others)
    )
    found = compare(Sides(a=a, b=b), ["topic"])
    return rendered(comparison_sheet(found, [("A", ATTACKS[0]), ("B", ATTACKS[1])], "shifted", NOW))


def test_two_runs_stand_side_by_side_and_nothing_of_them_is_alive() -> None:
    read = Reader(compared())
    assert {tag for tag, _ in read.elements} & {"script", "img", "iframe"} == set()
    assert [a for _, a in read.elements for name in a if name.startswith("on")] == []
    for text in ATTACKS[:13]:
        assert text in read.text, text
    assert "verdict: shifted" in read.text
    assert "Most frequent changes of topic" in read.text
    ids = [a["id"] for _, a in read.elements if "id" in a]
    assert len(ids) == len(set(ids))


def test_the_frontier_and_what_limits_the_cost_are_on_the_page(tmp_path: Path) -> None:
    found, made = reported(tmp_path)
    assert "best trades" not in page_of(story(found, made))
    frontier = tuple(
        FrontierPoint(name=f"way {n}", usd=Decimal(4 - n), usd_high=Decimal(5 - n), time_s=1.0, label_change=n / 10)
        for n in range(3)
    )
    limits = (ShadowPrice(constraint="deadline", step="one <b>hour</b> more", usd=Decimal("-4.10")),)
    read = Reader(page_of(story(found, replace(made, frontier=frontier, shadow_prices=limits))))
    for text in ("best trades", "What limits the cost", "one <b>hour</b> more", "-$4.10"):
        assert text in read.text, text


def test_what_goes_where_in_a_mix_is_on_the_page(tmp_path: Path) -> None:
    found, made = reported(tmp_path)
    first = made.legs[0]
    legs = (first, replace(first, number=1, endpoint="</svg><script>"))
    mix = (
        MixShare(leg=0, stratum=0, share=1.0, n_conversations=900, usd=Decimal("1.5"), label_change=0.0, reason="<b>"),
        MixShare(leg=0, stratum=1, share=0.25, n_conversations=25, usd=Decimal("0.3"), label_change=0.0, reason="why"),
        MixShare(leg=1, stratum=1, share=0.75, n_conversations=75, usd=Decimal("0.2"), label_change=0.04, reason="why"),
    )
    mixed = replace(made, legs=legs, mix=mix, strata=Strata(edges=(500,)))
    page = page_of(story(found, mixed))
    read = Reader(page)
    assert ("section", {"id": "mix", "aria-labelledby": "mix-head"}) in read.elements
    assert {tag for tag, _ in read.elements} & {"script", "b"} == set()
    for told in ("below 500 tokens, way 1", "from 500 tokens, way 2", "75 %", "4 %", "</svg><script>", "<b>"):
        assert told in read.text, told
    assert "What goes where" not in page_of(story(found, made))
