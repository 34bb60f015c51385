"""What one prompt for several classifiers does to how their labels hang together, from what the store has."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

from fake_provider import FakeClock, FakeProvider, answered, labels_asked
from small_job import BATCH_NAIVE, Job, job, plan, texts

from semtel_batch.plans import Plan, seal
from semtel_batch.records import Answer
from semtel_batch.report import as_json, report
from semtel_batch.results import conversations_folder, final_labels
from semtel_batch.runner import Runner
from semtel_batch.studies.halos import halos
from semtel_batch.transport.shardfile import Call

TOGETHER = replace(BATCH_NAIVE, recipe="combined", classifiers_per_request=0)
N = 60


def swayed(call: Call) -> Answer:
    """Asked alone the two labels have nothing to do with each other; asked together the topic decides on both."""
    _, choices = labels_asked(call)
    found = re.search(r"question (\d+) ", call.body.decode())
    number = int(found[1]) if found else 0
    places = {"topic": number % 2, "expertise": number % 2 if len(choices) > 1 else number // 2 % 2}
    return answered(call, [{"id": 1, **{name: choices[name][places[name]] for name in choices}}])


def ran(made: Job, one: Plan) -> Plan:
    if one.id != made.plan.id:
        shutil.copytree(made.conversations, conversations_folder(made.store, one))
        made.store.add_plan(one)
    provider = FakeProvider(behave=swayed)
    Runner(made.store, one, provider.open, FakeClock(), lambda _tick: None).collect(wait=True)
    return one


def test_a_report_shows_what_sharing_a_prompt_did(tmp_path: Path) -> None:
    together = plan(TOGETHER)
    made = job(tmp_path / "p", together, texts(N))
    ran(made, together)
    assert halos(made.store, together) == (), "nobody asked apart yet"
    apart = ran(made, seal(replace(plan(BATCH_NAIVE, BATCH_NAIVE), id="apart000")))
    (line,) = halos(made.store, together)
    assert (line.first, line.second, line.n) == ("expertise", "topic", N)
    assert line.together_v > 0.99
    assert line.apart_v < 0.01
    assert line.p_value < 0.01
    assert (line.together_plan, line.apart_plan) == (together.id, apart.id)
    (same,) = halos(made.store, apart)
    assert same == line, "the run that asked apart shows the same table"
    found = replace(report(made.store, apart, final_labels(made.store, apart)), halos=(line,))
    assert as_json(found)["halos"][0]["together_v"] == line.together_v
    made.store.close()


def test_other_ways_models_and_small_samples_are_not_compared(tmp_path: Path) -> None:
    together = plan(TOGETHER)
    made = job(tmp_path / "p", together, texts(12))
    ran(made, together)
    ran(made, seal(replace(plan(BATCH_NAIVE, BATCH_NAIVE), id="apart000")))
    assert halos(made.store, together) == (), "of twelve conversations a table says nothing"
    made.store.close()
    cut = replace(BATCH_NAIVE, truncate_to=20)
    other = job(tmp_path / "q", together, texts(N))
    ran(other, together)
    ran(other, seal(replace(plan(cut, cut), id="cut00000")))
    assert halos(other.store, together) == ()
    other.store.close()
