"""What --explain and --what-if are made of: frontiers nobody beats, steps that save, a plot that shows every point."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from small_job import BATCH_NAIVE, REALTIME_NAIVE, packed, plan

from semtel_batch.cli import main
from semtel_batch.console.explain_view import plot, stratum_name, view_explanation
from semtel_batch.console.layout import Page
from semtel_batch.planner.constraints import constraints
from semtel_batch.planner.tradeoffs import frontier, steps
from semtel_batch.plans import (
    Estimate,
    FrontierPoint,
    Leg,
    MixShare,
    Objective,
    Plan,
    Quality,
    ShadowPrice,
    Slice,
    Strata,
    Uncertainty,
)
from semtel_batch.records import Strategy

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "conversations.jsonl"
HOUR = 3_600.0


def estimate(usd: str, hours: float, change: float, strategy: Strategy = BATCH_NAIVE) -> Estimate:
    return Estimate(
        strategy=strategy,
        endpoint="main",
        lines=(),
        usd=Decimal(usd),
        usd_high=Decimal(usd),
        time_s=hours * HOUR,
        quality=Quality(label_change=change, assumed=True, basis="by hand"),
    )


ESTIMATES = st.lists(
    st.builds(
        lambda usd, hours, change: estimate(str(usd), hours, change / 10),
        st.integers(1, 20),
        st.sampled_from([0.001, 0.01, 6.0, 24.0]),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=25,
)


@given(ESTIMATES, st.data())
def test_nothing_on_the_frontier_is_beaten_and_all_else_is(found: list[Estimate], data: st.DataObject) -> None:
    chosen = data.draw(st.sampled_from(found))
    made = frontier(found, chosen)
    assert sum(point.is_chosen for point in made) == 1
    kept = {(p.usd, p.time_s, p.label_change) for p in made if not p.is_chosen}
    for one in found:
        key = (one.usd, one.time_s, one.quality.label_change)
        better = [
            o
            for o in found
            if o.usd <= one.usd and o.quality.label_change <= one.quality.label_change and o.time_s <= one.time_s
        ]
        if key in kept:
            assert all(
                (o.usd, o.quality.label_change) == (one.usd, one.quality.label_change) or o is one for o in better
            )


def test_times_that_nobody_tells_apart_do_not_crowd_the_frontier() -> None:
    cheap, quick = estimate("1", 0.001, 0.1), estimate("2", 0.0005, 0.1)
    assert [p.usd for p in frontier([cheap, quick], cheap)] == [1]
    assert [p.usd for p in frontier([estimate("1", 24, 0.1), quick], quick)] == [1, 2]


def test_the_nearest_step_beyond_each_limit_is_priced() -> None:
    chosen = estimate("10", 2, 0.0)
    overnight, batch, risky = estimate("7", 8, 0.0), estimate("5", 24, 0.0), estimate("3", 2, 0.04)
    limits = constraints(Objective(deadline_s=4 * HOUR, min_agreement=0.99))
    found = steps(limits, [chosen, overnight, batch, risky], [estimate("2", 2, 0.005, packed(5))], chosen)
    assert found == (
        ShadowPrice(constraint="deadline", step="8h instead of 4h", usd=Decimal(-3)),
        ShadowPrice(constraint="agreement", step="96.0 % instead of 99.0 %", usd=Decimal(-7)),
        ShadowPrice(
            constraint="evidence", step="packed measured or assumed: 0.5 % of labels may change", usd=Decimal(-8)
        ),
    )


def test_what_would_break_another_limit_too_or_saves_nothing_is_no_step() -> None:
    chosen = estimate("10", 2, 0.0)
    limits = constraints(Objective(deadline_s=4 * HOUR, min_agreement=0.99))
    assert steps(limits, [chosen, estimate("5", 24, 0.1), estimate("9.99", 24, 0.0)], [], chosen) == ()


# ── on the screen ───────────────────────────────────────────────────────────────────────────────────────────────────


def shown(made: Plan, width: int = 120, *, ascii_only: bool = False) -> str:
    screen = Console(file=StringIO(), width=width, color_system=None)
    for view in view_explanation(made, Page(width=width, ascii_only=ascii_only)):
        screen.print(view)
    return screen.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def share(usd: str, **fields: Any) -> MixShare:
    return MixShare(share=1.0, usd=Decimal(usd), **fields)


def explained() -> Plan:
    points = (
        FrontierPoint(name="packed", usd=Decimal(1), usd_high=Decimal(2), time_s=24 * HOUR, label_change=0.2),
        FrontierPoint(
            name="a mix", usd=Decimal(2), usd_high=Decimal(3), time_s=24 * HOUR, label_change=0.05, is_chosen=True
        ),
        FrontierPoint(name="naive", usd=Decimal(9), usd_high=Decimal(9), time_s=60.0, label_change=0.0),
    )
    both = ("topic", "expertise")
    legs = (
        Leg(number=0, classifiers=both, strategy=packed(10), endpoint="main", slices=(Slice(stratum=0),)),
        Leg(number=1, classifiers=both, strategy=REALTIME_NAIVE, endpoint="main", slices=(Slice(stratum=1),)),
    )
    base = plan()
    return replace(
        base,
        legs=legs,
        strata=Strata(edges=(200,)),
        mix=(
            MixShare(
                leg=1, stratum=1, share=1.0, n_conversations=40, usd=Decimal("1.5"), label_change=0.0, reason="r1"
            ),
            MixShare(
                leg=0, stratum=0, share=1.0, n_conversations=60, usd=Decimal("0.5"), label_change=0.1, reason="r0"
            ),
        ),
        frontier=points,
        shadow_prices=(ShadowPrice(constraint="deadline", step="one hour more", usd=Decimal("-4.10")),),
        chosen=replace(
            base.chosen,
            usd_low=Decimal("0.9"),
            uncertainties=(
                Uncertainty(what="output tokens", usd_low=Decimal("0.8"), usd_high=Decimal("1.2"), basis="assumed"),
            ),
        ),
    )


def test_a_mix_is_shown_stratum_by_stratum_with_its_reasons() -> None:
    text = shown(explained(), 150)
    lines = [line for line in text.splitlines() if "tokens" in line and "conversations" not in line]
    assert "below 200 tokens" in lines[0] and " 1 " in lines[0] and "r0" in lines[0]
    assert "from 200 tokens" in lines[1] and " 2 " in lines[1] and "r1" in lines[1]
    assert "1 packed: topic, expertise; 10 conversations a request, batch, main" in text
    assert "deadline: one hour more: saves $4.10" in text
    assert "output tokens" in text and "assumed" in text


@pytest.mark.parametrize("ascii_only", [False, True])
def test_every_point_has_its_mark_in_the_plot(ascii_only: bool) -> None:
    made = explained()
    screen = Console(file=StringIO(), width=100, color_system=None)
    screen.print(plot(made.frontier, "abc", Page(width=100, ascii_only=ascii_only)))
    text: str = screen.file.getvalue()  # type: ignore[attr-defined]
    assert all(text.count(mark) >= 1 for mark in "abc")
    assert text.isascii() is ascii_only
    first, last = text.splitlines()[0], text.splitlines()[-3]
    assert first.strip().startswith("20 %") and "a" in first
    assert last.strip().startswith("0 %") and last.rstrip().endswith("c")


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_mix_fits_a_narrow_screen_and_says_its_reasons_below(width: int) -> None:
    text = shown(explained(), width)
    row = next(line for line in text.splitlines() if "below 200 tokens" in line)
    assert row.split()[-1] == "a" and "a r0" in text
    assert max(map(len, text.splitlines())) <= width


def test_points_in_one_place_are_all_seen() -> None:
    same = tuple(
        FrontierPoint(name=str(i), usd=Decimal(1), usd_high=Decimal(1), time_s=1.0, label_change=0.0) for i in range(26)
    )
    screen = Console(file=StringIO(), width=80, color_system=None)
    marks = [chr(ord("a") + i) for i in range(26)]
    screen.print(plot(same, marks, Page(width=80)))
    body = screen.file.getvalue().rsplit("└", 1)[0]  # type: ignore[attr-defined]
    assert {mark for mark in marks if mark in body} == set(marks)


def test_a_plan_with_nothing_to_explain_says_nothing() -> None:
    assert shown(plan()) == ""


@pytest.mark.parametrize(
    ("strata", "number", "name"),
    [
        (Strata(), 0, "all lengths"),
        (Strata(edges=(10, 20)), 1, "from 10 below 20 tokens"),
        (Strata(edges=(1_000,), levels=2), 3, "from 1,000 tokens, level 1"),
    ],
)
def test_strata_have_names(strata: Strata, number: int, name: str) -> None:
    assert stratum_name(strata, number) == name


# ── the command line ────────────────────────────────────────────────────────────────────────────────────────────────


def asked(project: Path, *more: str) -> tuple[int, str, str]:
    found = CliRunner().invoke(
        main,
        ["--project", str(project), "--json", "plan", str(EXAMPLES), "-c", "topic", *more],
        env={"OPENAI_API_KEY": "sk-none", "COLUMNS": "200"},
    )
    return found.exit_code, found.stdout, found.stderr


def test_what_if_sweeps_and_keeps_nothing(tmp_path: Path) -> None:
    code, out, _ = asked(tmp_path / "p", "--what-if", "deadline=1h,30h", "--what-if", "budget=0.0000001")
    found = json.loads(out)
    assert code == 0
    assert [one["asked"] for one in found] == ["deadline=1h", "deadline=30h", "budget=0.0000001"]
    assert [one["plan"] and one["plan"]["chosen"]["strategy"]["recipe"] for one in found] == ["flex", "batch", None]
    assert "what binds is the budget" in found[2]["reason"]
    assert not (tmp_path / "p").exists()


def test_where_no_variant_has_a_plan_the_exit_code_says_so(tmp_path: Path) -> None:
    code, _, _ = asked(tmp_path / "p", "--what-if", "budget=0.0000001")
    assert code == 4


@pytest.mark.parametrize("text", ["deadline", "deadline=", "deadline=soon", "price=3", "min-agreement=95", "budget=x"])
def test_a_sweep_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    code, _, err = asked(tmp_path / "p", "--what-if", text)
    assert code == 2
    assert text.partition("=")[2].split(",")[0] in err


def test_a_saved_plan_has_its_frontier_and_steps(tmp_path: Path) -> None:
    code, out, _ = asked(tmp_path, "--deadline", "2h", "--assume", "--strategy", "naive", "--strategy", "batch")
    assert code == 0
    made = orjson.loads(out)
    assert [point["is_chosen"] for point in made["frontier"]].count(True) == 1
    assert made["shadow_prices"][0]["constraint"] == "deadline"
    assert float(made["shadow_prices"][0]["usd"]) < 0
    assert {one["basis"] for one in made["chosen"]["uncertainties"]} == {"assumed"}
