"""A prompt in fewer words: what may change is shorter, and everything else is as it was, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from semtel_batch import classifiers
from semtel_batch.cli import main
from semtel_batch.compose.compress.rules import Rules
from semtel_batch.resources import shipped
from semtel_batch.shorter_prompts import shorten

PROMPT = """\
---
name: mood   # the column
outputs:
  - name: mood
    kind: string
    enumValues: [Glad, Very sad]
metadata:
  labels:
    Glad: "The user is really very glad about it, and says so."   # a note
    Very sad:
      definition: >
        A block that is
        left alone.
      synonyms: [the blue one]
      examples: ["It is the worst"]
inputs:
  - {name: conversations, kind: string}
  - {name: tone, kind: string, default: the plain one}
---
system:
Say what the mood of the user is in the conversation, as it was at the very end of it.

- It is Very sad if that is what the user says of the day, in the end.
- The {{tone}} is the one that counts.

user:
{{conversations}}
"""


def _rules(texts: Sequence[str]) -> Sequence[str | None]:
    return Rules("o200k_base").compress(texts, 0.3)


@pytest.mark.parametrize("path", sorted(shipped("prompts").glob("*.prompty")), ids=lambda path: path.stem)
def test_shipped_prompts_stay_what_they_are(path: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    before = classifiers.load(path)
    made = shorten(text, before.label_names, _rules)
    (tmp_path / path.name).write_text(made, encoding="utf-8")
    after = classifiers.load(tmp_path / path.name)
    assert len(made) < len(text)
    assert after.description == before.description
    for old, new in zip(before.labels, after.labels, strict=True):
        assert (new.name, new.synonyms, new.examples) == (old.name, old.synonyms, old.examples)
        assert bool(new.definition) == bool(old.definition)
        assert len(new.definition) <= len(old.definition)
    for name in before.label_names:
        assert after.instructions.count(name) >= before.instructions.count(name)


def test_only_instructions_and_definitions_are_shorter() -> None:
    made = shorten(PROMPT, ("Glad", "Very sad"), _rules)
    changed = [new for old, new in zip(PROMPT.splitlines(), made.splitlines(), strict=True) if old != new]
    assert changed == [
        '    Glad: "user glad about , says ."   # a note',
        "Say what mood user conversation, end .",
        "- Very sad if what user says day, end.",
    ]
    assert "- The {{tone}} is the one that counts." in made
    assert made.count("Very sad") == PROMPT.count("Very sad")
    assert "A block that is\n        left alone." in made


@pytest.mark.parametrize("given", ["", "   ", None, "a line\nand two", "---", "{{ tone }}", "short: no label"])
def test_what_is_not_as_good_is_not_taken(given: str | None) -> None:
    made = shorten(PROMPT, ("Glad", "Very sad"), lambda texts: [given] * len(texts))
    assert "Very sad if that" in made, "a point that names a label keeps it"
    assert made.partition("\nsystem:")[0].count("\n") == PROMPT.partition("\nsystem:")[0].count("\n")
    assert (made == PROMPT) is (given not in ("---", "short: no label"))


def test_a_text_without_a_prompt_s_parts_is_left_alone() -> None:
    assert shorten("no front matter", (), _rules) == "no front matter"


def _compress(project: Path, *arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["--project", str(project), "compress", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_the_command_writes_a_variant_and_never_over_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    code, said, _ = _compress(tmp_path, "satisfaction", "--rate", "0.5", "--json")
    told = json.loads(said)
    assert code == 0
    assert told["tokens_after"] < told["tokens_before"]
    assert {one["tier"] for one in told["saves_per_1000_requests"]} >= {"realtime", "batch"}
    written = tmp_path / "prompts" / "short" / "satisfaction.prompty"
    assert Path(told["file"]) == written
    variant = classifiers.load(written)
    assert variant.version != classifiers.find(("satisfaction",), tmp_path / "prompts")[0].version, "nothing uses it"
    text = written.read_text(encoding="utf-8")
    code, _, problem = _compress(tmp_path, "satisfaction")
    assert (code, written.read_text(encoding="utf-8")) == (2, text)
    assert "there already" in problem
    code, said, _ = _compress(tmp_path, "satisfaction", "--to", str(tmp_path / "other"))
    assert code == 0
    assert "tokens a request" in said
    for arguments, told_of in ((("nothing",), "nothing"), (("topic", "--with", "magic"), "magic")):
        code, _, problem = _compress(tmp_path, *arguments)
        assert code == 2
        assert told_of in problem


def test_a_definition_with_a_name_of_its_own_is_left_alone() -> None:
    named = PROMPT.replace('Glad: "The user', 'Glad: &g "The user')
    assert '&g "The user is really' in shorten(named, ("Glad", "Very sad"), _rules)
