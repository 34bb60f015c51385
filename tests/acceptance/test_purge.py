"""`purge`: what was said is gone, here and at the provider; what was paid, and labels that were to stay, are not."""

from __future__ import annotations

import json
import urllib.request
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from command_line import CANARY, DONE, EXAMPLES, INCOMPLETE, USAGE, Project

pytestmark = pytest.mark.xdist_group("purge")

SAID = "the purple heron sings at noon"


def files_there(project: Project) -> list[str]:
    """What the provider has of the account."""
    asked = urllib.request.Request(f"{project.sandbox.base_url}/files", headers={"Authorization": f"Bearer {CANARY}"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return [file["filename"] for file in json.load(answer)["data"]]


def words_here(folder: Path) -> str:
    """All text that can be read in a project: every file's bytes, and every text column of every part."""
    texts = []
    for path in folder.rglob("*"):
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path)
            texts += [str(v) for name, kind in frame.schema.items() if kind == pl.String for v in frame[name]]
        elif path.is_file():
            texts.append(path.read_bytes().decode("latin-1"))
    return "\n".join(texts)


def done_plan(project: Project, *how: str) -> dict[str, Any]:
    first = json.loads((EXAMPLES / "conversations.jsonl").read_text(encoding="utf-8").splitlines()[0])
    said = {"conversation_id": "heron", "turns": [{"role": "user", "content": SAID}]}
    data = project.write("../chats.jsonl", [first, said])
    plan = project.plan(data, "-c", "topic", *how)
    project.done("collect", "--wait")
    return plan


def test_labels_may_stay_and_then_go(project: Project) -> None:
    plan = done_plan(project, "--strategy", "batch")
    labels, report = project.labels("--detail"), project.report()
    assert SAID in words_here(project.folder)
    assert any(name.startswith(plan["id"]) for name in files_there(project))

    refused = project("purge", plan["id"])
    assert refused.exit_code == INCOMPLETE
    assert "--yes" in refused.stderr
    assert SAID in words_here(project.folder)

    kept = project.done("purge", plan["id"], "--keep-labels", "--yes", "--json").document
    assert kept[0]["labels_kept"]
    assert kept[0]["n_remote"] >= 2  # what went out, what came back
    assert files_there(project) == []
    assert SAID not in words_here(project.folder / "state")
    assert project.labels("--detail") == labels
    after = project.report()
    assert (after["actual"], after["classifiers"]) == (report["actual"], report["classifiers"])
    assert project("retry", plan["id"]).exit_code == USAGE
    again = project.plan(str(project.folder / "../chats.jsonl"), "-c", "topic", "--strategy", "batch")
    assert Decimal(again["chosen"]["usd"]) == 0, "what was answered is not paid again"
    assert project.done("status", "--verify", plan["id"]).exit_code == DONE

    project.done("purge", plan["id"], "--yes")
    project.done("purge", plan["id"], "--yes", "--local")  # again, and nothing is wrong with that
    assert not (project.folder / "state" / "files" / plan["id"]).exists()
    gone = project("report", plan["id"])
    assert gone.exit_code == USAGE
    assert "deleted" in gone.stderr
    (row,) = project.done("status", plan["id"], "--json").document
    assert row["usd"] == report["actual"]["usd"]
    assert row["purged_at"]
    assert project.done("status", "--verify", plan["id"]).exit_code == DONE


def test_retention_is_kept_on_demand(project: Project) -> None:
    plan = done_plan(project)
    assert project("purge", "--expired").exit_code == USAGE
    project.configure('[retention]\ntexts = "1d"')
    assert "nothing was deleted" in project.done("purge", "--expired", "--yes").stdout
    project.configure('[retention]\ntexts = "0.001s"')
    assert plan["id"] in project.done("purge", "--expired", "--yes").stdout
    assert SAID not in words_here(project.folder / "state")
    assert project("purge").exit_code == project("purge", plan["id"], "--expired").exit_code == USAGE
