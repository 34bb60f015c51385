"""The interface for Python against a sandbox: the command line's verbs, over frames, also where an event loop runs."""

from __future__ import annotations

import asyncio
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

import semtel_batch
from semtel_batch.errors import BadConfig, BadData, BadInput, Infeasible
from semtel_batch.rows import PlanState
from semtel_batch.sandbox.local import SandboxHandle, running
from semtel_batch.sandbox.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FRAME = pl.DataFrame({"conversation_id": ["a", "b", "c"], "text": ["user: trains", "user: laptops", "user: trains"]})


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxHandle]:
    quick = Settings(model_behind="scripted", validating_s=0.02, in_progress_s=0.05, finalizing_s=0.02)
    with running(quick) as handle:
        yield handle


@pytest.fixture(autouse=True)
def project(tmp_path: Path, sandbox: SandboxHandle, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_BASE_URL", sandbox.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    return tmp_path


def test_the_surface_is_what_it_says() -> None:
    assert semtel_batch.__all__ == ["PlanHandle", "__version__", "find_plan", "plan", "run"]
    assert all(getattr(semtel_batch, name) is not None for name in semtel_batch.__all__)
    assert set(semtel_batch.__all__) <= set(dir(semtel_batch))
    assert not hasattr(semtel_batch, "no_such_name")
    public = [getattr(semtel_batch, name) for name in semtel_batch.__all__ if name != "__version__"]
    verbs = [one for name, one in vars(semtel_batch.PlanHandle).items() if callable(one) and not name.startswith("_")]
    assert all(one.__doc__ for one in [*public, *verbs])


def test_importing_it_loads_nothing_heavy() -> None:
    loaded = "import sys, semtel_batch; print(*{'polars', 'aiohttp', 'openai', 'rich', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_plan_is_made_run_and_found_again_inside_a_running_loop(project: Path) -> None:
    async def in_a_notebook() -> pd.DataFrame:
        given = FRAME.to_pandas()
        plan = semtel_batch.plan(given, ["topic"], deadline=timedelta(hours=1), strategies=["naive"], progress=False)
        assert plan.plan.data.source == "pandas.DataFrame"
        assert plan.plan.objective.deadline_s == 3600
        assert f"Plan {plan.id}" in str(plan)
        assert plan.id in repr(plan)
        assert plan._repr_html_().startswith("<pre>") and f"Plan {plan.id}" in plan._repr_html_()
        assert plan.status().state is PlanState.PLANNED
        assert plan.submit().state is PlanState.DONE
        labels: pd.DataFrame = plan.labels()
        return labels

    labels = asyncio.run(in_a_notebook())
    assert labels["conversation_id"].tolist() == ["a", "b", "c"]
    assert labels["topic"].notna().all()
    found = semtel_batch.find_plan()
    assert found.labels().equals(pl.from_pandas(labels))
    assert found.report().items.labelled == 3
    assert 0 < found.report().actual.usd <= found.most_usd
    with pytest.raises(BadInput, match="is done; there is nothing to cancel"):
        found.cancel()
    assert list(project.rglob("given*")) == [], "what was written down to be read is not kept twice"
    assert all(not path.stat().st_mode & 0o077 for path in (project / "state" / "files").rglob("*"))


def test_batches_are_waited_for_and_that_they_are_not_there_yet_is_no_error() -> None:
    plan = semtel_batch.plan(FRAME.lazy(), ["topic", "task"], strategies=["batch"], progress=False)
    assert plan.submit().state is PlanState.RUNNING
    assert plan.labels().collect()["topic"].null_count() == 3
    assert plan.collect(wait=True).state is PlanState.DONE
    assert plan.labels(detail=True).collect()["topic"].null_count() == 0
    assert plan.retry() == 0


def test_it_works_in_another_thread_than_the_main_one() -> None:
    states: list[PlanState] = []

    def work() -> None:
        states.append(semtel_batch.run(FRAME, ["topic"], strategies=["naive"], progress=False).status().state)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert states == [PlanState.DONE]


def test_a_file_is_data_too(project: Path) -> None:
    FRAME.rename({"text": "body"}).write_parquet(project / "chats.parquet")
    path = project / "chats.parquet"
    plan = semtel_batch.plan(path, ["topic"], columns={"text": "body"}, sample=2, seed=1, progress=False)
    assert (plan.plan.data.n_conversations, plan.plan.data.source) == (2, str(path))
    assert plan.cost_usd < plan.most_usd


def test_bad_input_is_named_before_anything_is_written(project: Path) -> None:
    twice = pl.concat([FRAME, FRAME])
    with pytest.raises(BadData, match=r"Id 'a', and 2 more ids are there more than once \(polars.DataFrame, row 1;"):
        semtel_batch.plan(twice, ["topic"])
    with pytest.raises(BadConfig, match="classifiers='topic' is one text; give a list of names"):
        semtel_batch.plan(FRAME, "topic")
    with pytest.raises(BadConfig, match="min_agreement=95 is no share"):
        semtel_batch.plan(FRAME, ["topic"], min_agreement=95)
    with pytest.raises(BadConfig, match="'soon' is not a duration"):
        semtel_batch.plan(FRAME, ["topic"], deadline="soon")
    with pytest.raises(TypeError, match="there is no keyword 'sampel'; there are deadline, budget"):
        semtel_batch.plan(FRAME, ["topic"], sampel=3)  # type: ignore[call-arg]
    with pytest.raises(Infeasible):
        semtel_batch.plan(FRAME, ["topic"], budget=0.0000001)
    with pytest.raises(BadInput, match="There is no store"):
        semtel_batch.find_plan()
    assert list(project.iterdir()) == []


def test_the_example_runs_and_is_what_the_page_shows(capsys: pytest.CaptureFixture[str]) -> None:
    example = ROOT / "examples" / "from_python.py"
    runpy.run_path(str(example), run_name="__main__")
    assert "US dollars were paid" in capsys.readouterr().out
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    shown = page.partition("```python\n")[2].partition("```")[0]
    code = example.read_text(encoding="utf-8").partition('"""\n\n')[2]
    assert shown.split() == code.replace("  # noqa: T201 - ", "  # ").replace("  # noqa: T201", "").split()
