"""Bad input: one sentence of what, which and what next; the right exit code; nothing written."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from command_line import CANARY, INFEASIBLE, USAGE, Project, Result

_GOOD_LINES = "".join(f'{{"conversation_id": "c{n}", "text": "user: hello {n}"}}\n' for n in range(4))

GRID = 'name = "mine"\nsummary = "x"\n[grid]\ntier = ["batch"]\n'

PROMPTY = """\
---
name: mood
description: The user's mood.
outputs:
  mood:
    kind: string
    enumValues: [Good, Bad]
inputs:
  conversations:
    kind: string
---
system:
Say what the mood is.

user:
{{conversations}}
"""


@dataclass(frozen=True)
class Case:
    """A command line that must be refused, the words its sentence must have, and how the folder comes to that."""

    name: str
    arguments: tuple[str, ...]
    words: tuple[str, ...]
    files: tuple[tuple[str, str | bytes], ...] = ()
    settings: str | None = None  # semtel.toml as a whole
    more: str = ""  # lines after the good endpoint
    exit_code: int = USAGE


def plan(
    name: str, data: str | bytes | None, *words: str, file: str = "d.jsonl", options: tuple[str, ...] = ()
) -> Case:
    """A plan over one file of data."""
    files = () if data is None else ((file, data),)
    return Case(name, ("plan", file, "-c", "domain", *options), words, files)


def option(name: str, options: tuple[str, ...], *words: str) -> Case:
    return plan(name, _GOOD_LINES, *words, options=options)


def prompt(name: str, text: str | bytes, *words: str) -> Case:
    files: tuple[tuple[str, str | bytes], ...] = (("d.jsonl", _GOOD_LINES), ("prompts/mood.prompty", text))
    return Case(f"prompt {name}", ("plan", "d.jsonl", "-c", "mood"), ("mood.prompty", *words), files)


def recipe(name: str, text: str, *words: str) -> Case:
    files: tuple[tuple[str, str | bytes], ...] = (("d.jsonl", _GOOD_LINES), ("mine.toml", text))
    arguments = ("plan", "d.jsonl", "-c", "domain", "--strategy", "mine.toml")
    return Case(f"recipe {name}", arguments, ("mine.toml", *words), files)


def settings(name: str, text: str, *words: str) -> Case:
    arguments = ("plan", "d.jsonl", "-c", "domain")
    return Case(f"settings {name}", arguments, ("semtel.toml", *words), (("d.jsonl", _GOOD_LINES),), settings=text)


def more(name: str, lines: str, *words: str) -> Case:
    arguments = ("plan", "d.jsonl", "-c", "domain")
    return Case(f"settings {name}", arguments, words, (("d.jsonl", _GOOD_LINES),), more=lines)


def endpoint(**keys: str) -> str:
    """An endpoint's section; values are TOML as it stands."""
    good = {"name": '"main"', "kind": '"openai"', "model": '"gpt-6-luna"'}
    return "[[endpoint]]\n" + "".join(f"{key} = {value}\n" for key, value in (good | keys).items() if value)


DATA = [
    plan("no such file", None, "nowhere.jsonl", "check the path", file="nowhere.jsonl"),
    plan("an empty file", "", "d.jsonl", "no conversation"),
    plan("a file of blank lines", "\n \n\n", "d.jsonl", "no conversation"),
    Case("a folder without data", ("plan", "data"), ("data", "no parquet"), (("data/readme.txt", "hello"),)),
    Case("two formats", ("plan", "data"), ("several formats",), (("data/a.csv", "x"), ("data/b.jsonl", _GOOD_LINES))),
    plan("an unknown ending", "x", "d.txt", "convert", file="d.txt"),
    plan("no id column", '{"id": "a", "text": "user: hi"}\n', "'conversation_id'", "'id'", "[columns]"),
    plan("no text column", '{"conversation_id": "a", "body": "hi"}\n', "'turns' or 'text'", "'body'", "[columns]"),
    plan("an id twice", _GOOD_LINES + '{"conversation_id": "c1", "text": "x"}\n', "'c1'", "row 2", "row 5"),
    plan("an id of null", _GOOD_LINES + '{"conversation_id": null, "text": "x"}\n', "row 5", "'conversation_id'"),
    plan("an empty id", '{"conversation_id": "", "text": "x"}\n', "row 1", "'conversation_id'"),
    plan("a line cut short", _GOOD_LINES + '{"conversation_id": "c9", "te\n', "d.jsonl, row 5", "JSON"),
    plan("a list a line", '["a", "b"]\n', "row 1", "one object a line"),
    plan("a file that is one JSON list", '[\n{"conversation_id": "a", "text": "x"}\n]\n', "row 1", "one object a line"),
    plan("bad UTF-8", _GOOD_LINES.encode() + b'{"conversation_id": "c9", "text": "caf\xe9"}\n', "row 5", "UTF-8"),
    plan("turns that are a text", '{"conversation_id": "a", "turns": "user: hi"}\n', "row 1", "'turns'", "`text`"),
    plan("turns that are texts", '{"conversation_id": "a", "turns": ["hi"]}\n', "row 1", "role, content"),
    plan("a turn without a role", '{"conversation_id": "a", "turns": [{"content": "hi"}]}\n', "row 1", "'role'"),
    plan("csv without a header", "c1,user: hi\nc2,user: ho\n", "d.csv", "'c1'", file="d.csv"),
    plan("csv with a field too many", "conversation_id,text\na,hi\nb,hi,there\n", "row 2", "quote", file="d.csv"),
    plan("csv that is not UTF-8", b"conversation_id,text\na,caf\xe9\n", "row 1", "UTF-8", file="d.csv"),
    plan("a parquet that is none", b"PAR1 not really PAR1", "d.parquet", "check", file="d.parquet"),
    plan("a gz that is none", b"not gzip", "d.jsonl.gz", "check", file="d.jsonl.gz"),
    plan("only empty conversations", '{"conversation_id": "a", "turns": []}\n', "nothing to classify"),
]

CLASSIFIERS = [
    Case(
        "an unknown classifier", ("plan", "d.jsonl", "-c", "topci"), ("'topci'", "topic"), (("d.jsonl", _GOOD_LINES),)
    ),
    prompt("without front matter", "system:\nSay the mood.\n", "---"),
    prompt("with broken YAML", PROMPTY.replace("name: mood", "name: [mood"), "line 3"),
    prompt("without labels", PROMPTY.replace("    enumValues: [Good, Bad]\n", ""), "enumValues"),
    prompt("with a label twice", PROMPTY.replace("[Good, Bad]", "[Good, Good]"), "Good"),
    prompt("without a place for conversations", PROMPTY.replace("{{conversations}}", "Well?"), "conversations"),
    prompt(
        "with a secret in it", PROMPTY.replace("The user's mood.", "${env:SANDBOX_KEY}"), "description", "environment"
    ),
    prompt("with an unknown field", PROMPTY.replace("name: mood", "name: mood\nlables: x"), "lables"),
    prompt("of another name", PROMPTY.replace("name: mood", "name: topic"), "name"),
    prompt("that is not UTF-8", b"---\nname: mood\xff\n---\n", "UTF-8"),
    prompt("with broken jinja", PROMPTY.replace("{{conversations}}", "{{conversations"), "template"),
    prompt("that is empty", "", "front matter"),
]

RECIPES = [
    option("an unknown recipe", ("--strategy", "cheapest"), "'cheapest'", "packed"),
    option("a recipe file that is not there", ("--strategy", "gone/mine.toml"), "gone/mine.toml"),
    recipe("with broken TOML", 'name = "mine\n', "TOML"),
    recipe("without a grid", 'name = "mine"\nsummary = "x"\n', "grid"),
    recipe("with an unknown key", GRID + "speed = [1]\n", "speed"),
    recipe("with an unknown tier", 'name = "mine"\nsummary = "x"\n[grid]\ntier = ["weekly"]\n', "tier", "weekly"),
    recipe(
        "with packs of none",
        'name = "mine"\nsummary = "x"\n[grid]\ntier = ["batch"]\nconversations_per_request = [0]\n',
        "0",
    ),
]

OPTIONS = [
    option("a deadline without a unit", ("--deadline", "24"), "'24'", "24h"),
    option("a deadline of nothing", ("--deadline", "0h"), "'0h'"),
    option("a budget that is no number", ("--budget", "ten"), "'ten'", "12.50"),
    option("a negative budget", ("--budget", "-5"), "-5"),
    option("an agreement above 1", ("--min-agreement", "95"), "--min-agreement"),
    option("an unknown column", ("--column", "name=x"), "name=x", "conversation_id"),
    option("a column without a name", ("--column", "text="), "text="),
    option("an unknown option", ("--dead-line", "3h"), "--dead-line"),
    Case("an unknown command", ("plam",), ("plam",)),
    Case("no data", ("plan",), ("DATA",)),
    Case("a project that is a file", ("--project", "d.jsonl", "status"), ("d.jsonl",), (("d.jsonl", "x"),)),
]

SETTINGS = [
    settings("without an endpoint", "", "[[endpoint]]", "OPENAI_API_KEY"),
    settings("with broken TOML", "[[endpoint]\n", "TOML", "line 1"),
    settings("with an unknown key", endpoint(rmp="500"), "rmp"),
    settings("with a wrong type", endpoint(rpm='"many"'), "rpm"),
    settings("with a limit below 1", endpoint(tpm="0"), "tpm"),
    settings("with an endpoint twice", endpoint() + endpoint(), "same name"),
    settings("with an unencrypted address", endpoint(base_url='"http://example.com/v1"'), "https"),
    settings("with a password in the address", endpoint(base_url='"https://me:hush@example.com/v1"'), "password"),
    settings("with an address of another kind", endpoint(base_url='"ftp://example.com"'), "ftp://example.com"),
    settings("with a key instead of its variable", endpoint(api_key_env=f'"{CANARY}"'), "api_key_env"),
    settings("with an unknown kind", endpoint(kind='"opanai"'), "kind", "azure"),
    settings("with no model", endpoint(model=""), "model"),
    settings("with no name", endpoint(name=""), "name"),
    settings("with azure and no address", endpoint(kind='"azure"'), "base_url"),
    settings("with a tier that there is not", endpoint(tiers='["weekly"]'), "tiers"),
    settings("with no tiers", endpoint(tiers="[]"), "tiers"),
    settings("with a timeout of words", endpoint(timeout='"soon"'), "soon"),
    settings("with columns of one name", endpoint() + '[columns]\ntext = "turns"\n', "columns"),
    settings("with an unknown default", endpoint() + "[defaults]\nspeed = 1\n", "speed"),
    more("with an unknown encoding", 'encoding = "o300k"', "o300k"),
    Case(
        "a model past its shutdown date",
        ("plan", "d.jsonl", "-c", "domain"),
        ("gpt-4.1-nano", "20"),
        (("d.jsonl", _GOOD_LINES),),
        settings=endpoint(model='"gpt-4.1-nano"'),
    ),
    Case(
        "a model without a price",
        ("plan", "d.jsonl", "-c", "domain"),
        ("gpt-9-sol", "price"),
        (("d.jsonl", _GOOD_LINES),),
        settings=endpoint(model='"gpt-9-sol"'),
    ),
]

INFEASIBLES = [
    Case("a deadline nobody keeps", ("plan", "d.jsonl", "--deadline", "0.001s"), ("deadline",), exit_code=INFEASIBLE),
    Case("a budget that buys nothing", ("plan", "d.jsonl", "--budget", "0.0000001"), ("budget",), exit_code=INFEASIBLE),
    Case(
        "an agreement that the recipe misses",
        ("plan", "d.jsonl", "--min-agreement", "0.99", "--strategy", "packed", "--assume"),
        ("agreement",),
        exit_code=INFEASIBLE,
    ),
]

WITHOUT_STORE = [
    Case(f"{' '.join(command[:2])} before any plan", command, ("plan something first",))
    for command in (
        ("submit",),
        ("collect",),
        ("report",),
        ("report", "--tradeoff"),
        ("status",),
        ("cancel", "abc"),
        ("retry", "abc"),
        ("labels", "-o", "l.csv"),
    )
]


def check_refused(result: Result, case: Case) -> None:
    assert result.exit_code == case.exit_code, result
    assert result.stdout == ""
    sentence = result.stderr.strip()
    for word in case.words:
        assert word in sentence, sentence
    usage = sentence.startswith("Usage:")  # click's own, of three lines
    assert usage or len(sentence.splitlines()) == 1, sentence


@pytest.mark.parametrize(
    "case",
    DATA + CLASSIFIERS + RECIPES + OPTIONS + SETTINGS + INFEASIBLES + WITHOUT_STORE,
    ids=lambda case: case.name.replace(" ", "-"),
)
def test_refused_in_a_sentence_and_nothing_written(project: Project, case: Case) -> None:
    for name, content in case.files or (("d.jsonl", _GOOD_LINES),):
        path = project.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if case.settings is None:
        project.configure(case.more)
    else:
        (project.folder / "semtel.toml").write_text(case.settings, encoding="utf-8")
    before = project.listing()
    result = project(*case.arguments)
    check_refused(result, case)
    assert project.listing() == before
    assert not (project.folder / "state").exists()
    assert project.sandbox.books()["paths"] == {}
