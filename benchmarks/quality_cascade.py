"""A cheap model first: cost and agreement of cheap only, the cascade and dear only, in worlds whose truth is known.

The sandbox's scripted model serves both: the cheap one is wrong in some items, always the same ones, and tells a low
probability for a share of those and for a few others. `calibrate` measures and certifies on 600 of 6,000 conversations;
then the job is planned with an agreement of 95 % and run anew in each way on all conversations, and as it was planned:
the cascade alone or mixed with other ways. Agreement is counted against the dear model's labels, all of them. In the
second world the cheap model does not know when it is wrong: there the plan may use it for a few conversations at most.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from quality_sandbox import Project, agreement, project, say, write_data
from quality_statistics import Bar

from semtel_batch.sandbox.settings import Settings
from semtel_batch.store import Store
from semtel_batch.studies.labelling import labelled

CHEAP, DEAR = "gpt-4o-mini", "gpt-4.1"  # 0.15 and 2 dollars a million tokens in
WRONG, UNSURE_OTHERS = 0.12, 0.05  # of the cheap model's labels; of its right ones, those it gives a low probability
N_CALIBRATED, MIN_AGREEMENT = 600, 0.95

_ENDPOINT = """
[[endpoint]]
name = "{name}"
kind = "openai"
base_url = "{url}"
model = "{model}"
api_key_env = "OPENAI_API_KEY"
tiers = ["realtime"]
"""


@dataclass(frozen=True, slots=True)
class Ran:
    """One way over the whole job."""

    usd: float
    labels: pl.DataFrame


def cascade() -> list[Bar]:
    """Print the three ways beside each other in both worlds, and give the bars."""
    with tempfile.TemporaryDirectory() as place:
        data, gold = write_data(Path(place))
        knowing, blind = (_world(data, gold, unsure) for unsure in (0.9, UNSURE_OTHERS))
    return [*knowing, *blind]


SECTIONS: Mapping[str, Callable[[], Sequence[Bar]]] = {"cascade": cascade}


def _world(data: Path, gold: Path, unsure: float) -> list[Bar]:
    settings = Settings(
        model_behind="scripted",
        gold=str(gold),
        models=(CHEAP, DEAR),
        model_error_rates={CHEAP: WRONG},
        unsure_flips=unsure,
        unsure_others=UNSURE_OTHERS,
        exact_tokens=False,
    )
    with project(settings) as at:
        endpoints = (_ENDPOINT.format(name=name, url=at.url, model=m) for name, m in (("dear", DEAR), ("cheap", CHEAP)))
        (at.folder / "semtel.toml").write_text("".join(endpoints), encoding="utf-8")
        found = at("calibrate", str(data), *_HOW, "--strategy", "cascade", "--budget", "50", "-n", str(N_CALIBRATED))
        plan = at("plan", str(data), "-c", "topic", "--min-agreement", str(MIN_AGREEMENT), "--fresh")
        at("submit", plan["id"])
        ways = {
            "cheap only": _ran(at, data, at.recipe("cheap", model=CHEAP)),
            "cascade": _ran(at, data, "cascade"),
            "as planned": _planned(at, plan["id"]),
            "dear only": _ran(at, data, at.recipe("dear", model=DEAR)),
        }
    recipes = dict.fromkeys(leg["strategy"]["recipe"] for leg in plan["legs"])
    shown = {"told": unsure, "chosen": " + ".join(recipes), "found": found}
    return _told(ways, shown)


_HOW = ("-c", "topic", "--tier", "realtime", "--seed", "1", "--yes")


def _ran(at: Project, data: Path, recipe: str) -> Ran:
    report, _, labels = at.run(data, recipe, "--fresh")
    return Ran(usd=float(report["actual"]["usd"]), labels=labels)


def _planned(at: Project, plan_id: str) -> Ran:
    report = at("report", plan_id)
    with closing(Store(at.folder)) as store:
        labels = labelled(store, store.plan(plan_id)).select("conversation_id", "row", "label")
    return Ran(usd=float(report["actual"]["usd"]), labels=labels)


def _told(ways: Mapping[str, Ran], shown: Mapping[str, Any]) -> list[Bar]:
    (doubting,) = shown["found"]["doubting"]
    bound, dear = doubting["threshold"], ways["dear only"]
    certified = f"{bound['confidence']:.4f}" if bound and bound["certified"] else "none"
    say(
        f"cheap model wrong in {WRONG:.0%}, unsure of {shown['told']:.0%} of those: calibrate spent "
        f"${float(shown['found']['spent_usd']):.2f}, certified threshold {certified}; plan chose {shown['chosen']}"
    )
    agrees = {}
    for name, ran in ways.items():
        x, n = agreement(dear.labels, ran.labels)
        agrees[name] = 1 - x / n
        say(f"  {name:10}  ${ran.usd:8.4f}  {ran.usd / dear.usd:6.1%} of dear   agrees {agrees[name]:.2%} (n={n:,})")
    knows = shown["told"] > UNSURE_OTHERS
    world = "a cheap model that knows its errors" if knows else "a cheap model that does not"
    agreed = agrees["as planned"]
    bars = [
        Bar(
            what=f"{world}: the plan for {MIN_AGREEMENT:.0%} ({shown['chosen']}) agrees",
            figure=f"{agreed:.2%} at {ways['as planned'].usd / dear.usd:.1%} of dear only's cost",
            bar=f"at least {MIN_AGREEMENT:.0%}",
            holds=agreed >= MIN_AGREEMENT,
        )
    ]
    if knows:
        share, agreed = ways["cascade"].usd / dear.usd, agrees["cascade"]
        bars += [
            Bar(
                what=f"{world}: the cascade agrees with the dear model (cheap only: {agrees['cheap only']:.2%})",
                figure=f"{agreed:.2%}",
                bar=f"at least {MIN_AGREEMENT:.0%}",
                holds=agreed >= MIN_AGREEMENT,
            ),
            Bar(
                what=f"{world}: the cascade's cost (cheap only: {ways['cheap only'].usd / dear.usd:.1%})",
                figure=f"{share:.1%} of dear only",
                bar="at most 40 %",
                holds=share <= 0.4,
            ),
        ]
    return bars
