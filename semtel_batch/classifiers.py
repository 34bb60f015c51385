"""From .prompty files to classifiers: instructions, label set, version.

A template is rendered and split into roles once, with a mark where the conversations go; conversations themselves
never pass through jinja or Prompty's role parser, which trips over a text that holds a line `user:`. Prompty's loader
would expand `${env:…}` and `${file:…}`; prompts are text that is stored and sent out, so such references are refused
and the file is read here, with Prompty's own `Agent` and role parser behind it.

A project's own file shadows a shipped one of the same name.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import prompty
import yaml
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from semtel_batch import front_matter
from semtel_batch.errors import BadPrompt
from semtel_batch.records import Classifier, Label
from semtel_batch.resources import shipped

DEFAULT = ("topic", "task", "expertise", "satisfaction")
GRADER = "grader"
SUFFIX = ".prompty"

MAX_BYTES = 1_000_000
MAX_LABELS = 1_000  # the most enum values a strict schema takes
MAX_LABEL_CHARS = 120

_INPUT = "conversations"
_MARK = "\x00conversations\x00"  # NUL is refused in files, so nothing but the renderer can write it
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
# The answer's own keys, and the columns of the label table that are not a classifier's.
_RESERVED = {"id", "results", "conversation_id", "strategy"}
_REFERENCE = re.compile(r"\$\{\s*(env|file)\b[^}]*\}", re.IGNORECASE)
_CONTROL_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
_LABEL_FIELDS = {"definition", "synonyms", "examples"}
_FIELDS = ("name", "displayName", "description", "metadata", "inputs", "outputs", "model", "template")


def find(names: Sequence[str], folder: Path | None) -> tuple[Classifier, ...]:
    """Load classifiers by name, each once and in the order named; no names means `DEFAULT`."""
    paths = known(folder)
    wanted = tuple(dict.fromkeys(names or DEFAULT))
    for name in wanted:
        if name not in paths:
            raise BadPrompt(_unknown(name, paths, folder))
    _refuse_alike(wanted)
    return tuple(load(paths[name]) for name in wanted)


def known(folder: Path | None) -> dict[str, Path]:
    """The classifiers that can be named, with their files; the grader is none of them."""
    return {name: path for name, path in _files(folder).items() if name != GRADER}


def grader(folder: Path | None) -> Classifier:
    """The classifier whose instructions head the grading pass: the project's own or the shipped one."""
    return load(_files(folder)[GRADER])


def load(path: Path) -> Classifier:
    """Read one .prompty file (Prompty 2.x); raise BadPrompt with file and field if anything in it is wrong."""
    source = _Source(path)
    front, body = _split(source, _read(source))
    _check_front(source, front)
    agent = _agent(source, front, body)
    name = _classifier_name(source, agent)
    labels = _labels(source, agent)
    instructions = _instructions(source, agent, body)
    if name == GRADER and {label.name for label in labels} != {"correct", "incorrect"}:
        source.refuse("outputs.0.enumValues", 'a grader\'s labels are "correct" and "incorrect"; change the label set')
    return Classifier(
        name=name,
        description=agent.description or "",
        instructions=instructions,
        labels=labels,
        version=version_of(name, instructions, labels),
    )


@dataclass(frozen=True, slots=True)
class _Source:
    """The file being read, so that every complaint names it."""

    path: Path

    def refuse(self, field: str, what: str) -> NoReturn:
        raise BadPrompt(f"{self.path}: {field}: {what}.")


def _files(folder: Path | None) -> dict[str, Path]:
    return _in_folder(shipped("prompts")) | (_in_folder(folder) if folder is not None else {})


def _in_folder(folder: Path) -> dict[str, Path]:
    # Names that begin with a dot are an editor's or a file system's, not the user's.
    paths = sorted(p for p in folder.glob(f"*{SUFFIX}") if p.is_file() and not p.name.startswith("."))
    return {path.stem: path for path in paths}


def _unknown(name: str, paths: Mapping[str, Path], folder: Path | None) -> str:
    by_key = {_key(known_name): known_name for known_name in paths}
    near = difflib.get_close_matches(_key(name), by_key, n=1)
    hint = f" Did you mean {by_key[near[0]]}?" if near else ""
    if name == GRADER:
        hint = " The grader judges labels and gives none; strategies with grading use it by themselves."
    where = f" or add {folder / (name + SUFFIX)}" if folder is not None and _NAME.fullmatch(name) else ""
    return f"There is no classifier {name!r}.{hint} Name one of {', '.join(sorted(paths))}{where}."


def _refuse_alike(names: Sequence[str]) -> None:
    # Names become columns, and SQLite and many readers of label files take columns without regard to case.
    by_key: dict[str, str] = {}
    for name in names:
        other = by_key.setdefault(name.casefold(), name)
        if other != name:
            raise BadPrompt(f"Classifiers {other!r} and {name!r} differ only in case; rename one of the files.")


def _read(source: _Source) -> str:
    try:
        with source.path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadPrompt(f"{source.path} can't be read ({error.strerror}); check path and permissions.") from error
    if len(content) > MAX_BYTES:
        source.refuse("file", f"it is larger than {MAX_BYTES:,} bytes; a prompt holds instructions, not data")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadPrompt(f"{source.path}: byte {error.start} is not UTF-8; save the file as UTF-8.") from error
    if "\x00" in text:
        source.refuse("file", "it contains a NUL character; remove it")
    return text.replace("\r\n", "\n")


def _split(source: _Source, text: str) -> tuple[dict[str, Any], str]:
    parts = re.match(r"\s*---[ \t]*\n(.*?)^---[ \t]*$\n?(.*)", text, re.DOTALL | re.MULTILINE)
    if parts is None:
        source.refuse("file", "it has no front matter; begin with a line ---, YAML, and a second line ---")
    front_text, body = parts.groups()
    if "---" in front_text or "+++" in front_text:
        # Prompty itself ends the front matter there and would read the rest as the body.
        source.refuse("front matter", "it contains --- or +++ before its end; write another dash")
    try:
        front = front_matter.parse(front_text, is_ours=source.path.parent == shipped("prompts"))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise BadPrompt(f"{source.path}: front matter: {_yaml_complaint(error)}; quote or correct it.") from error
    if not isinstance(front, dict):
        source.refuse("front matter", "it holds no fields; give at least name and outputs")
    return front, body.strip()


def _yaml_complaint(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    mark = getattr(error, "problem_mark", None)  # counts lines from 0; the front matter begins on the second
    return f"line {mark.line + 2}: {problem}" if mark is not None else str(problem)


def _check_front(source: _Source, front: dict[str, Any]) -> None:
    _refuse_old_format(source, front)
    for field in front:
        if field not in _FIELDS:
            source.refuse(str(field), f"no such field; a classifier has {', '.join(_FIELDS)}")
        if field in ("inputs", "outputs") and not isinstance(front[field], (list, dict)):
            source.refuse(field, "it is not a list; write each as - name: … and kind: …")
    # `model` is not read, so its keys are not either.
    found = _find_reference({k: v for k, v in front.items() if k != "model"}, "", set())
    if found is not None:
        source.refuse(found, "references to environment or files are not followed; write the text itself")


def _refuse_old_format(source: _Source, front: dict[str, Any]) -> None:
    model = front.get("model")
    properties = [p for field in ("inputs", "outputs") for p in _entries(front.get(field))]
    signs = {
        "template": isinstance(front.get("template"), str),
        "sample": "sample" in front,
        "model": isinstance(model, dict) and bool({"api", "configuration", "parameters"} & set(model)),
        "inputs or outputs": any("type" in p and "kind" not in p for p in properties),
    }
    old = next((field for field, is_old in signs.items() if is_old), None)
    if old is not None:
        source.refuse(old, "this is written as in Prompty 1; use the 2.x format, as the shipped prompts do")


def _entries(properties: Any) -> list[dict[str, Any]]:
    values = list(properties.values()) if isinstance(properties, dict) else properties
    return [p for p in values if isinstance(p, dict)] if isinstance(values, list) else []


def _find_reference(value: Any, field: str, seen: set[int]) -> str | None:
    """The first field that holds a `${env:…}` or `${file:…}`, if any does; `seen` ends YAML's cycles."""
    if isinstance(value, str):
        return field if _REFERENCE.search(value) else None
    if not isinstance(value, (dict, list)) or id(value) in seen:
        return None
    seen.add(id(value))
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = (_find_reference(item, f"{field}.{key}".lstrip("."), seen) for key, item in items)
    return next((hit for hit in found if hit is not None), None)


def _agent(source: _Source, front: dict[str, Any], body: str) -> prompty.Agent:
    # `model` and its connection are left out: endpoints and keys come from semtel.toml only.
    fields = {field: value for field, value in front.items() if field != "model"}
    try:
        return prompty.Agent.load({**fields, "instructions": body})
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise BadPrompt(f"{source.path}: front matter: Prompty can't read it: {error}; correct the field.") from error


def _classifier_name(source: _Source, agent: prompty.Agent) -> str:
    name = agent.name
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        source.refuse("name", f"{name!r} is no classifier name; use a letter, then letters, digits or _, 64 at most")
    if name.casefold() in _RESERVED:
        source.refuse("name", f"{name!r} is reserved for the answer or its table; choose another name")
    if name != source.path.stem:
        source.refuse("name", f"it is {name!r} but the file is found as {source.path.stem!r}; make them the same")
    if agent.description is not None and not isinstance(agent.description, str):
        source.refuse("description", "it is not text; quote it")
    return name


def _instructions(source: _Source, agent: prompty.Agent, body: str) -> str:
    """The system part, rendered once; the user part must be the conversations and nothing else."""
    template = agent.template or prompty.Template()
    if template.format.kind not in ("", "*", "jinja2") or template.parser.kind not in ("", "*", "prompty"):
        source.refuse("template", "only format jinja2 with parser prompty is read; change or remove it")
    rendered = _render(source, body, _render_inputs(source, agent))
    # The parser is called directly: the pipeline would demand a nonce that guards rendered data, and there is none.
    # An empty agent will do, and keeps the file's metadata out of Prompty's tracing.
    messages = prompty.PromptyChatParser().parse(prompty.Agent(), rendered)
    parts = [(m.role, "".join(getattr(p, "value", "") for p in m.parts).strip()) for m in messages]
    if [role for role, _ in parts] != ["system", "user"]:
        roles = ", ".join(role for role, _ in parts) or "none"
        source.refuse("body", f"its parts are {roles}; write one 'system:' part and then one 'user:' part")
    system, user = parts[0][1], parts[1][1]
    if user != _MARK or _MARK in system:
        source.refuse("body", "{{conversations}} must be all of the 'user:' part; instructions belong under 'system:'")
    if not system:
        source.refuse("body", "the 'system:' part is empty; say there how to choose a label")
    return system


def _render_inputs(source: _Source, agent: prompty.Agent) -> dict[str, Any]:
    inputs = {p.name: p for p in agent.inputs or ()}
    if _INPUT not in inputs or inputs[_INPUT].kind != "string":
        source.refuse("inputs", f"there is no input {_INPUT!r} of kind string; add it")
    for name, declared in inputs.items():
        if name != _INPUT and declared.default is None:
            source.refuse(f"inputs.{name}", f"only {_INPUT!r} is filled in; give this input a default or remove it")
    return {name: p.default for name, p in inputs.items()} | {_INPUT: _MARK}


def _render(source: _Source, body: str, inputs: dict[str, Any]) -> str:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    try:
        return environment.from_string(body).render(inputs)
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError, MemoryError) as error:
        advice = "declare what {{…}} names under inputs with a default, or put literal braces in {% raw %}"
        raise BadPrompt(f"{source.path}: body: {error or type(error).__name__}; {advice}.") from error


def _labels(source: _Source, agent: prompty.Agent) -> tuple[Label, ...]:
    names = _label_names(source, agent)
    details = _label_details(source, agent.metadata, names)
    labels = tuple(_label(source, name, details.get(name)) for name in names)
    _refuse_collisions(source, labels)
    return labels


def _label_names(source: _Source, agent: prompty.Agent) -> list[str]:
    outputs = agent.outputs or []
    if len(outputs) != 1:
        source.refuse("outputs", f"there are {len(outputs)}, and a classifier has exactly one; put its label set there")
    field, output, names = "outputs.0.enumValues", outputs[0], outputs[0].enum_values
    if output.name != agent.name:
        source.refuse("outputs.0.name", f"it is {output.name!r}; call it {agent.name!r} like the classifier")
    if output.kind != "string":
        source.refuse("outputs.0.kind", f"it is {output.kind!r}; labels are of kind string")
    if not isinstance(names, list) or not names:
        source.refuse(field, "there are no labels; list them")
    if len(names) > MAX_LABELS:
        source.refuse(field, f"{len(names):,} labels are more than the {MAX_LABELS:,} that a schema can hold")
    for name in names:
        _check_label_name(source, field, name)
    return names


def _check_label_name(source: _Source, field: str, name: Any) -> None:
    if not isinstance(name, str):
        source.refuse(field, f"label {name!r} is not text but {type(name).__name__}; put it in quotes")
    if not name.strip() or name != name.strip():
        source.refuse(field, f"label {name!r} is empty or begins or ends with a space; correct it")
    if any(unicodedata.category(char) in _CONTROL_CATEGORIES for char in name):
        source.refuse(field, f"label {name!r} contains a line break or control character; remove it")
    if len(name) > MAX_LABEL_CHARS:
        source.refuse(field, f"label {name[:40]!r}… is longer than {MAX_LABEL_CHARS} characters; shorten it")


def _label_details(source: _Source, metadata: Any, names: Sequence[str]) -> dict[str, Any]:
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        source.refuse("metadata", "it is not a mapping; write metadata: {labels: {…}}")
    misspelt = next((k for k in metadata if k != "labels" and str(k).casefold() in {"label", "labels"}), None)
    if misspelt is not None:
        source.refuse(f"metadata.{misspelt}", "definitions are read from metadata.labels; rename it")
    details = metadata.get("labels") or {}
    if not isinstance(details, dict):
        source.refuse("metadata.labels", "it is not a mapping from label to definition")
    for name in details:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "add it to the label set or remove it"
            source.refuse(f"metadata.labels.{name}", f"the label set has no such label; {hint}")
    return details


def _label(source: _Source, name: str, detail: Any) -> Label:
    field = f"metadata.labels.{name}"
    given = {"definition": detail} if isinstance(detail, str) or detail is None else detail
    if not isinstance(given, dict) or not set(given) <= _LABEL_FIELDS:
        source.refuse(field, "it takes definition, synonyms and examples, or a definition alone, as text")
    if not isinstance(definition := given.get("definition") or "", str):
        source.refuse(f"{field}.definition", "it is not text; quote it")
    return Label(
        name=name,
        definition=" ".join(definition.split()),  # one line each in the prompt
        synonyms=_texts(source, f"{field}.synonyms", given.get("synonyms")),
        examples=_texts(source, f"{field}.examples", given.get("examples")),
    )


def _texts(source: _Source, field: str, values: Any) -> tuple[str, ...]:
    if values is None:
        return ()
    if not isinstance(values, list):
        source.refuse(field, "it is not a list; write [one, two]")
    for value in values:
        if not isinstance(value, str) or not value.strip():
            source.refuse(field, f"{value!r} is not text; put it in quotes")
    return tuple(" ".join(value.split()) for value in values)


def _refuse_collisions(source: _Source, labels: Sequence[Label]) -> None:
    """An answer must lead to one label: no two labels, and no synonym and another label, may be spelt alike."""
    owner: dict[str, str] = {}
    for label in labels:
        other = owner.setdefault(_key(label.name), label.name)
        if other is not label.name:
            source.refuse("outputs.0.enumValues", f"labels {other!r} and {label.name!r} are spelt alike; remove one")
    for label in labels:
        for synonym in label.synonyms:
            other = owner.setdefault(_key(synonym), label.name)
            if other != label.name:
                what = f"{synonym!r} already stands for {other!r}; a synonym belongs to one label"
                source.refuse(f"metadata.labels.{label.name}.synonyms", what)


def _key(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def version_of(name: str, instructions: str, labels: Sequence[Label]) -> str:
    """Hash what reaches the model. Synonyms and descriptions don't, so changing them never pays for answers again."""
    reaches_model = {
        "name": name,
        "instructions": instructions,
        "labels": [[label.name, label.definition, list(label.examples)] for label in labels],
    }
    canonical = json.dumps(reaches_model, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return "b2:" + hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()
