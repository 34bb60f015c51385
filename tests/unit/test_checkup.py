"""What doctor sees: offline, without touching anything."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from semtel_batch import checkup
from semtel_batch.checkup import Finding, examine
from semtel_batch.store import Store, store_path
from semtel_batch.transport.model_list import ModelList

NOW = datetime(2026, 11, 22, tzinfo=UTC)
KEY = {"OPENAI_API_KEY": "sk-secret"}


def looked(project: Path, environ: dict[str, str], document: str = "") -> list[Finding]:
    if document:
        (project / "semtel.toml").write_text(document, encoding="utf-8")
    return examine(project, environ, NOW, offline=True)


def fatal(findings: list[Finding]) -> list[str]:
    return [finding.about for finding in findings if finding.is_fatal]


def test_a_sound_project_has_nothing_fatal_and_nothing_is_made(tmp_path: Path) -> None:
    findings = looked(tmp_path, KEY)
    assert fatal(findings) == []
    assert {"project", "store", "endpoints", "classifiers", "recipes", "endpoint openai"} <= {f.about for f in findings}
    assert list(tmp_path.iterdir()) == []
    assert not any("sk-secret" in finding.said for finding in findings)


def test_a_missing_key_and_a_missing_endpoint_are_fatal(tmp_path: Path) -> None:
    assert fatal(looked(tmp_path, {})) == ["endpoints"]
    document = '[[endpoint]]\nname = "main"\nkind = "openai"\nmodel = "gpt-6-luna"\napi_key_env = "MY_KEY"\n'
    findings = looked(tmp_path, {}, document)
    assert fatal(findings) == ["endpoint main"]
    assert any("MY_KEY" in finding.said for finding in findings if finding.is_fatal)


def test_who_embeds_is_told_and_whoever_can_not_is_no_reason_to_stop(tmp_path: Path) -> None:
    document = '[[endpoint]]\nname = "main"\nkind = "openai"\nmodel = "gpt-6-luna"\napi_key_env = "OPENAI_API_KEY"\n'
    (told,) = (f for f in looked(tmp_path, KEY, document) if f.about == "embedding")
    assert told.is_good
    assert "main/text-embedding-3-small" in told.said and "batch: $0.01 " in told.said
    findings = looked(tmp_path, KEY, document + '[embedding]\nendpoint = "eu"\n')
    (told,) = (f for f in findings if f.about == "embedding")
    assert not told.is_good and not told.is_fatal
    assert "'eu'" in told.said and "main" in told.said
    assert fatal(findings) == []


def test_a_broken_file_is_one_finding_and_the_rest_is_still_seen(tmp_path: Path) -> None:
    findings = looked(tmp_path, KEY, "[[endpoint]\n")
    assert [finding.about for finding in findings] == ["project", "store", "semtel.toml"]
    assert fatal(findings) == ["semtel.toml"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "project" in fatal(looked(tmp_path / "nowhere", KEY))


def test_a_store_is_counted_and_a_broken_one_is_fatal(tmp_path: Path) -> None:
    Store(tmp_path).close()
    assert any("0 plans" in finding.said for finding in looked(tmp_path, KEY))
    store_path(tmp_path).write_bytes(b"not a database, whatever its name says" * 30)
    assert "store" in fatal(looked(tmp_path, KEY))


@pytest.mark.parametrize(("model", "is_fatal"), [("gpt-4.1-nano", True), ("gpt-5-mini", False), ("gpt-6-luna", False)])
def test_a_models_end_is_seen_before_it_comes(tmp_path: Path, model: str, is_fatal: bool) -> None:
    document = f'[[endpoint]]\nname = "main"\nkind = "openai"\nmodel = "{model}"\n'
    findings = looked(tmp_path, KEY, document)
    assert bool(fatal(findings)) is is_fatal
    assert all(finding.is_good for finding in findings) is (model == "gpt-6-luna")


@pytest.mark.parametrize(("day", "is_fatal"), [("2026-12-01", False), ("2026-11-01", True), (None, False)])
def test_what_an_endpoint_says_of_its_models_end_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, day: str | None, is_fatal: bool
) -> None:
    ends = date.fromisoformat(day) if day else None
    monkeypatch.setattr(checkup, "look_up_models", lambda *_: ModelList(said="it answers", shuts_down_on=ends))
    document = '[[endpoint]]\nname = "main"\nkind = "openai"\nmodel = "gpt-6-luna"\n'
    (tmp_path / "semtel.toml").write_text(document, encoding="utf-8")
    findings = examine(tmp_path, KEY, NOW, offline=False)
    assert bool(fatal(findings)) is is_fatal
    assert any(str(day) in finding.said for finding in findings) is (day is not None)


def test_a_users_broken_classifier_is_named(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "mine.prompty").write_text("no front matter", encoding="utf-8")
    findings = looked(tmp_path, KEY)
    assert fatal(findings) == ["classifiers"]
    assert any("mine.prompty" in finding.said for finding in findings)
