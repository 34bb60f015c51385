"""Packing's instability, and what repairs it, on a scripted model of known truth: `python quality_sandbox.py [router]`.

`router`: the instability that was measured on recorded GPT-4 and GPT-3.5 answers at 16 a prompt (BatchPrompt, RTE: mean
.049 and .20, correlation .52 and .40) is scripted into the sandbox, item by item from a beta. One packed run and the
two-run router are held against the single prompt, and against the closed form that predicts them.

`calibrate DATA…`: what `calibrate` finds on real conversations with the zero-shot sandbox as the model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
from conversation_data import conversations
from quality_statistics import Bar

from semtel_batch.plans import Plan
from semtel_batch.quality.votes import Instability, estimate, router_residual
from semtel_batch.records import Stage
from semtel_batch.results import latest, read_labels
from semtel_batch.sandbox.local import running
from semtel_batch.sandbox.settings import Settings
from semtel_batch.store import Store
from semtel_batch.studies.labelling import labelled

N, PACK, MEDIAN_TOKENS = 6_000, 16, 80
MODELS = {"GPT-4": (0.049, 0.52), "GPT-3.5": (0.20, 0.40)}
LABELS = ("Technology", "Health and medicine", "Travel and transport", "Food and cooking", "Other")
_KEY = "conversation_id"


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class Project:
    """A temporary project whose endpoint is a sandbox."""

    folder: Path
    url: str

    def __call__(self, *arguments: str) -> Any:
        environ = {**os.environ, "OPENAI_BASE_URL": self.url, "OPENAI_API_KEY": "any"}
        command = [sys.executable, "-m", "semtel_batch", *arguments, "--json"]
        done = subprocess.run(command, cwd=self.folder, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{arguments}: {done.stderr[-2_000:]}")
        return json.loads(done.stdout)

    def recipe(self, name: str, **grid: Any) -> str:
        lines = [f'name = "{name}"', 'summary = "For the benchmark."', "[grid]", 'tier = ["realtime"]']
        path = self.folder / f"{name}.toml"
        path.write_text("\n".join([*lines, *(f"{k} = {json.dumps([v])}" for k, v in grid.items())]) + "\n")
        return str(path)

    def run(self, data: Path, recipe: str, *more: str) -> tuple[dict[str, Any], Plan, pl.DataFrame]:
        """The report of a run over the data, its plan and its labels."""
        report = self("run", str(data), "-c", "topic", "--strategy", recipe, "--yes", *more)
        with closing(Store(self.folder)) as store:
            plan = store.plan(report["plan_id"])
            return report, plan, labelled(store, plan).select(_KEY, "row", "label")


@contextmanager
def project(settings: Settings) -> Iterator[Project]:
    with tempfile.TemporaryDirectory() as folder, running(settings) as sandbox:
        yield Project(Path(folder), sandbox.base_url)


def write_data(folder: Path) -> tuple[Path, Path]:
    """Conversations of about a premise and a hypothesis's length, and gold labels for the scripted model."""
    data, gold = folder / "data.jsonl", folder / "gold.jsonl"
    rng = np.random.default_rng(5)
    rows = [orjson.loads(line) for line in conversations(N, median_tokens=MEDIAN_TOKENS, seed=11)]
    data.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    labels = rng.choice(LABELS, size=N)
    gold.write_bytes(
        b"".join(
            orjson.dumps({**row, "labels": {"topic": str(x)}}) + b"\n" for row, x in zip(rows, labels, strict=True)
        )
    )
    return data, gold


def tokens(report: dict[str, Any]) -> int:
    usage = report["actual"]["usage"]
    return int(usage["prompt_tokens"] + usage["completion_tokens"])


def agreement(reference: pl.DataFrame, labels: pl.DataFrame) -> tuple[int, int]:
    both = reference.join(labels, on=_KEY, suffix="_other")
    return int((both["label"] != both["label_other"]).sum()), both.height


def router() -> list[Bar]:
    """Print what was measured of each model, and give the bars."""
    bars: list[Bar] = []
    with tempfile.TemporaryDirectory() as place:
        data, gold = write_data(Path(place))
        for name, (mean, correlation) in MODELS.items():
            settings = Settings(
                model_behind="scripted", gold=str(gold), packed_flip=mean, packed_flip_correlation=correlation
            )
            with project(settings) as at:
                bars += _one_model(at, data, name, Instability(mu=mean, rho=correlation))
    return bars


SECTIONS: Mapping[str, Callable[[], Sequence[Bar]]] = {"router": router}


def _one_model(at: Project, data: Path, name: str, scripted: Instability) -> list[Bar]:
    naive, _, reference = at.run(data, "naive")
    packed, _, once = at.run(data, at.recipe("once", conversations_per_request=PACK))
    twice = at.recipe("twice", conversations_per_request=PACK, doubt="rerun")
    second, plan, routed = at.run(data, twice, "--fresh")
    naive_tokens = tokens(naive)
    say(f"{name}: mean {scripted.mu}, correlation {scripted.rho}; {N:,} conversations, {PACK} a prompt")
    say(
        f"  tokens: naive {naive_tokens:,}; packed {tokens(packed) / naive_tokens:.1%}; router "
        f"{tokens(second) / naive_tokens:.1%}"
    )
    (x1, n), (x2, _) = agreement(reference, once), agreement(reference, routed)
    closed = router_residual(scripted)
    say(
        f"  agrees with the single prompt: packed {1 - x1 / n:.2%}, router {1 - x2 / n:.2%}, "
        f"closed form {1 - closed:.2%}"
    )
    fitted, (low, high), measured = _predicted(at, plan, reference, routed)
    say(
        f"  predicted from 1,500 items' two runs: {fitted:.2%} differ ({low:.2%} to {high:.2%}); "
        f"measured on the others {measured:.2%}"
    )
    bars = [
        Bar(
            what=f"{name}: measured, within the prediction's interval",
            figure=f"{measured:.2%}",
            bar=f"{low:.2%} to {high:.2%}",
            holds=low <= measured <= high,
        ),
        Bar(
            what=f"{name}: the router changes, within a point of the closed form",
            figure=f"{x2 / n:.2%}",
            bar=f"{closed:.2%}",
            holds=abs(x2 / n - closed) <= 0.01,
        ),
    ]
    if name == "GPT-4":
        once_agrees, twice_agrees, share = 1 - x1 / n, 1 - x2 / n, tokens(second) / naive_tokens
        found = (
            ("one packed run agrees", once_agrees, "at most 95.5 %", once_agrees <= 0.955),
            ("the router agrees", twice_agrees, "at least 97 %", twice_agrees >= 0.97),
            ("the router's share of the naive tokens", share, "at most 45 %", share <= 0.45),
        )
        bars += [Bar(what=f"{name}: {what}", figure=f"{x:.2%}", bar=bar, holds=ok) for what, x, bar, ok in found]
    return bars


def _predicted(
    at: Project, plan: Plan, reference: pl.DataFrame, routed: pl.DataFrame
) -> tuple[float, tuple[float, float], float]:
    """The closed form fitted on the first 1,500 rows with its 95 % prediction interval, and what came of the rest.

    The interval is of what will be counted: the items that were fitted on are drawn anew, and then a binomial of the
    rest's size.
    """
    with closing(Store(at.folder)) as store:
        read = read_labels(store, plan)
    both = routed.rename({"label": "final"}).join(reference.select(_KEY, truth="label"), on=_KEY)
    for number, stage in enumerate((Stage.CLASSIFY, Stage.RERUN)):
        given = latest(read.filter(pl.col("stage") == stage.value, pl.col("label").is_not_null()))
        both = both.join(given.select("row", pl.col("label").alias(f"run{number}")), on="row")
    first, rest = both.sort("row").head(1_500), both.sort("row").slice(1_500)
    wrong = (first["run0"] != first["truth"]).cast(pl.Int64) + (first["run1"] != first["truth"]).cast(pl.Int64)
    counts, rng = wrong.to_numpy(), np.random.default_rng(1)
    redrawn = [router_residual(estimate(rng.choice(counts, len(counts)), 2)) for _ in range(1_000)]
    low, high = np.quantile(rng.binomial(rest.height, redrawn) / rest.height, (0.025, 0.975))
    measured = float((rest["final"] != rest["truth"]).mean())
    return router_residual(estimate(counts, 2)), (float(low), float(high)), measured


def bench_calibrate(files: list[Path], n: int) -> None:
    """Print what `calibrate` finds on each data set."""
    with project(Settings()) as at:
        for file in files:
            found = at(
                "calibrate",
                str(file),
                "-c",
                "domain",
                "-c",
                "satisfaction",
                "--budget",
                "20",
                "-n",
                str(n),
                "--seed",
                "1",
                "--yes",
            )
            c = found["calibration"]
            say(
                f"{file.name}: {c['n_explore']} of {c['n_population']:,} conversations, "
                f"${float(found['spent_usd']):.3f}"
            )
            for floor in found["noise_floor"]:
                say(f"  noise floor {floor['classifier']}: {floor['n_flipped']} of {floor['n']}")
            for s in found["strategies"]:
                shape = f"{s['conversations_per_request']}x{s['classifiers_per_request'] or 'all'}"
                cut = f" <={s['truncate_to']} {s['keep']}" if s["truncate_to"] else ""
                rate = f" kept {s['compress_rate']} by {s['compressor']}" if s["compress_rate"] else ""
                low, high = s["interval"]
                say(
                    f"  {s['recipe'] + ' ' + shape + cut + rate:40} {s['n_different'] / max(1, s['n']):6.1%} "
                    f"({low:.1%} to {high:.1%}, n={s['n']})  ${float(s['usd_per_1000']):.4f} per 1,000"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["router", "calibrate"], nargs="?", default="router")
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("-n", type=int, default=100)
    asked = parser.parse_intermixed_args()
    if asked.what == "calibrate":
        bench_calibrate([file.resolve() for file in asked.files], asked.n)
        return
    bars = router()
    for bar in bars:
        say(f"  {'kept  ' if bar.holds else 'MISSED'} {bar.what}: {bar.figure}; bar: {bar.bar}")
    if not all(bar.holds for bar in bars):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
