"""Fewer tokens and no LLM: `python benchmarks/shorter.py FOLDER`, which holds sgd.jsonl and its like.

Truncation in MB/s beside plain counting; what each compressor takes of the CPU and saves of the price, with every
digit, address and code span held against the original; small networks on the sandbox's embeddings with gold labels as
their teacher: certified coverage, how often the certificate errs over resamplings, and conversations a second. Set
OMP_NUM_THREADS=1: torch's threads spin. `--part NAME` runs one of truncation, compression, networks, picture.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from semtel_batch import tokens
from semtel_batch.compose.compress import llmlingua2
from semtel_batch.compose.compress.compressor import Compressor, compress_texts
from semtel_batch.compose.compress.rules import Rules
from semtel_batch.compose.truncate import truncate_texts
from semtel_batch.conversations import read
from semtel_batch.quality.certificate import Target
from semtel_batch.quality.network import Card, Network, guess
from semtel_batch.quality.selective import Guide, certified_threshold
from semtel_batch.records import Keep
from semtel_batch.sandbox.zero_shot import embed
from semtel_batch.studies.training import Examples, split, train

ENCODING = "o200k_base"
TARGET = Target(max_disagreement=0.05, delta=0.05)
TEACHERS = (("sgd", "first_domain", 0.60), ("multidogo", "domain", 0.90), ("clinc150", "domain", 0.40))
CPU_USD_PER_HOUR = 0.04
USD_PER_MILLION = 0.05  # gpt-6-luna in batch: the least that a token saves here
N_RESAMPLED = 200

_DIGITS = re.compile(r"\d+")
_URLS = re.compile(r"https?://\S+")
_CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def texts_of(folder: Path, name: str) -> pl.Series:
    return pl.concat(read(str(folder / f"{name}.jsonl")))["text"]


@dataclass(frozen=True)
class Timed:
    wall_s: float
    cpu_s: float


def timed(run: Callable[[], Any]) -> Timed:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Timed(time.perf_counter() - wall, time.process_time() - cpu)


def truncation(folder: Path) -> None:
    """100,000 conversations, each cut that is longer; beside counting, and the plain way that reads all for a cut."""
    one = texts_of(folder, "sgd")
    texts = pl.concat([one] * (100_000 // len(one) + 1))[:100_000]
    mb = float(texts.str.len_bytes().sum()) / 1e6
    tokens.count(texts[:100], ENCODING)  # the vocabulary is loaded once
    base = timed(lambda: tokens.count(texts, ENCODING))
    say(f"truncation: {len(texts):,} conversations, {mb:.0f} MB; load {os.getloadavg()[0]:.1f}")
    say(f"  counting alone    {_speed(mb, base)}")
    few = texts[:10_000]
    few_mb = float(few.str.len_bytes().sum()) / 1e6
    for name, naive in (("head", _naive_head), ("tail", _naive_tail)):
        took = timed(lambda naive=naive: [naive(text, 256) for text in few.to_list()])  # type: ignore[misc]
        say(f"    256 {name}, naively {_speed(few_mb, took)} (no marker, {len(few):,} of them)")
    for limit in (256, 512):
        share = float(np.mean(tokens.count(few, ENCODING) > limit))
        say(f"  {limit} tokens: {share:.0%} of the conversations are cut")
        for keep in Keep:
            took = timed(lambda limit=limit, keep=keep: truncate_texts(texts, limit, keep, ENCODING))  # type: ignore[misc]
            say(f"  {limit:5d} {keep:10s}  {_speed(mb, took)}; {took.cpu_s / base.cpu_s:.1f} times counting's CPU")


def _naive_head(text: str, limit: int) -> str:
    return tokens.truncate(text, limit, ENCODING)


def _naive_tail(text: str, limit: int) -> str:
    total = int(tokens.count([text], ENCODING)[0])
    return text[len(tokens.truncate(text, max(0, total - limit), ENCODING)) :]


def _speed(mb: float, took: Timed) -> str:
    return f"{mb / took.wall_s:6.1f} MB/s, {mb / took.cpu_s:6.1f} MB per CPU-second"


def compression(folder: Path, models: Sequence[str]) -> None:
    """CPU per 1,000 tokens beside the price it saves; and what must not change, counted."""
    compressors: list[Compressor] = [Rules(ENCODING)]
    for model in models:
        compressors.append(llmlingua2.LLMLingua2(ENCODING, model))
        compressors[-1].load()  # type: ignore[attr-defined]
    for name in ("qmsum_long_a", "arena_hard_v2"):
        texts = texts_of(folder, name).to_list()
        for compressor in compressors:
            chosen = texts if compressor.is_cheap else texts[:8]
            started = time.process_time()
            made = compress_texts(compressor, chosen, 0.5, ENCODING)
            per_1k = 1000 * (time.process_time() - started) / made.tokens_before
            cost, saves = per_1k / 3600 * CPU_USD_PER_HOUR, (1 - made.rate) * USD_PER_MILLION / 1000
            altered = sum(_altered(a, b) for a, b in zip(chosen, made.texts, strict=True))
            say(
                f"compression {name} by {compressor.name} ({len(chosen)} texts): keeps {made.rate:.1%}, "
                f"{per_1k:.4f} CPU-s per 1,000 tokens = ${cost:.8f}, saves ${saves:.8f} at ${USD_PER_MILLION}/M "
                f"({saves / cost:.1f} times its cost); altered digits, URLs, code spans: {altered}; "
                f"as they were: {dict(made.kept_whole)}"
            )


def _altered(before: str, after: str) -> int:
    return sum(kind.findall(before) != kind.findall(after) for kind in (_DIGITS, _URLS, _CODE))


@dataclass(frozen=True)
class Taught:
    vectors: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    names: tuple[str, ...]


def taught(folder: Path, name: str, key: str) -> Taught:
    rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = ["\n".join(f"{turn['role']}: {turn['content']}" for turn in row["turns"]) for row in rows]
    gold = [row["labels"][key] for row in rows]
    names = tuple(sorted(set(gold)))
    return Taught(embed(texts), np.array([names.index(one) for one in gold]), names)


def networks(folder: Path) -> None:
    """Certified coverage with gold as the teacher, on conversations that nothing was trained on."""
    for name, key, bar in TEACHERS:
        data = taught(folder, name, key)
        found = [_coverage(data, seed) for seed in range(10)]
        coverage, agreement, kept = (float(np.mean([one[i] for one in found])) for i in range(3))
        errors, n, certified = _errors(data)
        say(
            f"networks {name} {key}: agree on {agreement:.1%}; keep {coverage:.1%} (mean of 10 splits, least "
            f"{min(one[0] for one in found):.1%}; bar {bar:.0%}), of which {kept:.1%} agree; certificate wrong in "
            f"{errors} of {n} resamplings ({certified} certified; at most {TARGET.delta:.0%} is promised)"
        )
    data = taught(folder, "sgd", "first_domain")
    network, _ = _trained(data, np.arange(len(data.labels)), 0)
    many = np.tile(data.vectors.astype(np.float16), (120, 1))
    took = timed(lambda: guess(network, many))
    say(f"inference: {len(many):,} cached vectors, {len(many) / took.wall_s:,.0f} conversations/s (bar 50,000)")


def _trained(data: Taught, rows: npt.NDArray[np.int64], seed: int) -> tuple[Network, Guide]:
    card = Card(
        classifier="x",
        labels=data.names,
        classifier_version="",
        embedding_model="wordllama",
        dimensions=data.vectors.shape[1],
        data_hash="",
        reference="gold",
        seed=seed,
        created_at="",
        n_trained=0,
        n_calibrated=0,
        temperature=1.0,
        min_similarity=0.0,
    )
    return train(Examples(embeddings=data.vectors[rows], labels=data.labels[rows]), card)


def _coverage(data: Taught, seed: int) -> tuple[float, float, float]:
    """Coverage and agreement over all that was not trained on."""
    learned, held = split(len(data.labels), seed)
    network, guide = _trained(data, learned, seed)
    told = guess(network, data.vectors[held])
    right = told.label == data.labels[held]
    kept = certified_threshold(told.sureness, right, told.sureness, TARGET, guide)
    chosen = told.sureness >= kept.threshold
    return float(chosen.mean()), float(right.mean()), float(right[chosen].mean()) if chosen.any() else 1.0


def _errors(data: Taught) -> tuple[int, int, int]:
    """How often what is kept disagrees by more than was certified, when the certificate rests on a sample of half."""
    errors = certified = 0
    random = np.random.default_rng(7)
    for seed in range(4):
        learned, held = split(len(data.labels), 100 + seed)
        network, guide = _trained(data, learned, 100 + seed)
        told = guess(network, data.vectors[held])
        right = told.label == data.labels[held]
        for _ in range(N_RESAMPLED // 4):
            sample = random.choice(len(held), len(held) // 2, replace=False)
            kept = certified_threshold(told.sureness[sample], right[sample], told.sureness, TARGET, guide)
            chosen = told.sureness >= kept.threshold
            certified += kept.certified
            errors += bool(kept.certified and (~right[chosen]).mean() > TARGET.max_disagreement)
    return errors, N_RESAMPLED, certified


def picture(folder: Path) -> None:
    """Cost against agreement on one data set: the teacher is gold, the reader a network on the shortened text."""
    data = taught(folder, "sgd", "first_domain")
    texts = texts_of(folder, "sgd")
    learned, held = split(len(texts), 1)
    network, guide = _trained(data, learned, 1)
    whole = int(tokens.count(texts, ENCODING).sum())
    points = []
    for name, shortened in _shortened(texts):
        told = guess(network, embed(shortened.to_list())[held])
        points.append(
            (
                name,
                int(tokens.count(shortened, ENCODING).sum()) / whole,
                float((told.label == data.labels[held]).mean()),
            )
        )
    told = guess(network, data.vectors[held])
    right = told.label == data.labels[held]
    kept = certified_threshold(told.sureness, right, told.sureness, TARGET, guide)
    points.append(
        (
            "network, rest whole",
            1 - kept.coverage,
            float(1 - (~right[told.sureness >= kept.threshold]).sum() / len(right)),
        )
    )
    say("cost (text tokens, share of all) against agreement with gold; sgd first_domain")
    for name, cost, agreement in sorted(points, key=lambda one: one[1]):
        say(f"  {name:22s} {cost:6.1%} {agreement:6.1%}  {'#' * round(40 * cost)}{'.' * (40 - round(40 * cost))}")


def _shortened(texts: pl.Series) -> Iterator[tuple[str, pl.Series]]:
    yield "whole", texts
    for limit in (64, 128, 256):
        for keep in (Keep.HEAD, Keep.TAIL, Keep.HEAD_TAIL):
            yield f"{keep} {limit}", truncate_texts(texts, limit, keep, ENCODING)
    yield "rules", pl.Series(compress_texts(Rules(ENCODING), texts.to_list(), 0.5, ENCODING).texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--part", choices=["truncation", "compression", "networks", "picture"])
    parser.add_argument("--model", action="append", default=[], help="A model of LLMLingua-2; repeat.")
    wish = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "truncation": lambda: truncation(wish.folder),
        "compression": lambda: compression(wish.folder, wish.model),
        "networks": lambda: networks(wish.folder),
        "picture": lambda: picture(wish.folder),
    }
    for name, run in parts.items():
        if wish.part in (None, name):
            run()


if __name__ == "__main__":
    main()
