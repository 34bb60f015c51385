"""Classifiers: shipped prompts hold, user files shadow them, every wrong file is refused with file and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import prompty
import pytest
import yaml

from semtel_batch import classifiers
from semtel_batch.errors import BadPrompt, Exit
from semtel_batch.resources import shipped

SHIPPED = ("domain", "expertise", "satisfaction", "task", "topic")
BODY = "system:\nPick the mood of the user.\n\nuser:\n{{conversations}}\n"


def front(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": "mood",
        "description": "How the user feels.",
        "inputs": [{"name": "conversations", "kind": "string"}],
        "outputs": [{"name": "mood", "kind": "string", "enumValues": ["Happy", "Sad"]}],
        "metadata": {
            "labels": {
                "Happy": {"definition": "Glad.", "synonyms": ["joyful"], "examples": ["yay"]},
                "Sad": {"definition": "Not glad.", "synonyms": ["unhappy"]},
            }
        },
        "template": {"format": {"kind": "jinja2"}, "parser": {"kind": "prompty"}},
    }
    fields.update(changes)
    return {field: value for field, value in fields.items() if value is not None}


def output(*labels: Any, **changes: Any) -> list[dict[str, Any]]:
    return [{"name": "mood", "kind": "string", "enumValues": list(labels), **changes}]


def label(**detail: Any) -> dict[str, Any]:
    return {"labels": {"Happy": detail}}


def write(folder: Path, fields: dict[str, Any] | None = None, body: str = BODY, name: str = "mood") -> Path:
    path = folder / f"{name}.prompty"
    text = yaml.safe_dump(front() if fields is None else fields, sort_keys=False, allow_unicode=True)
    path.write_text(f"---\n{text}---\n{body}", encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(BadPrompt) as caught:
        classifiers.load(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert caught.value.exit_code is Exit.USAGE
    return message


class TestShipped:
    @pytest.mark.parametrize("name", [*SHIPPED, "grader"])
    def test_every_prompt_defines_every_label_once(self, name: str) -> None:
        classifier = classifiers.load(shipped("prompts") / f"{name}.prompty")
        assert classifier.name == name
        assert classifier.description
        assert all(label.definition for label in classifier.labels)
        keys = [x.casefold() for label in classifier.labels for x in {label.name, *label.synonyms}]
        assert len(keys) == len(set(keys))

    @pytest.mark.parametrize("name", [*SHIPPED, "grader"])
    def test_prompty_reads_it_the_same_way(self, name: str) -> None:
        """Other tools must find in our files what we find: Prompty's whole pipeline is the judge."""
        path = shipped("prompts") / f"{name}.prompty"
        classifier = classifiers.load(path)
        agent = prompty.load(path)
        messages = prompty.prepare(agent, {"conversations": "DATA"})
        assert [(m.role, m.text) for m in messages] == [("system", classifier.instructions), ("user", "DATA")]
        assert agent.outputs is not None
        assert agent.metadata is not None
        assert tuple(agent.outputs[0].enum_values or ()) == classifier.label_names
        assert list(agent.metadata["labels"]) == list(classifier.label_names)

    def test_nothing_is_printed_or_warned(self, capfd: pytest.CaptureFixture[str]) -> None:
        classifiers.find(SHIPPED, None)
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(
        ("name", "word", "wanted"),
        [
            ("task", "Created", "Creating"),
            ("task", "create", "Creating"),
            ("task", "summary", "Editing"),
            ("expertise", "Advanced", "Proficient"),
            ("satisfaction", "Frustrated", "Dissatisfied"),
            ("topic", "Coding", "Programming and scripting"),
        ],
    )
    def test_what_models_like_to_answer_is_a_synonym(self, name: str, word: str, wanted: str) -> None:
        (classifier,) = classifiers.find([name], None)
        owners = [x.name for x in classifier.labels if word.casefold() in {s.casefold() for s in x.synonyms}]
        assert owners == [wanted]

    def test_the_grader_is_not_a_classifier_but_can_be_had(self) -> None:
        assert set(classifiers.known(None)) == set(SHIPPED)
        assert set(classifiers.grader(None).label_names) == {"correct", "incorrect"}
        with pytest.raises(BadPrompt, match="grader judges labels"):
            classifiers.find(["grader"], None)


class TestFinding:
    def test_without_names_the_default_set(self) -> None:
        assert tuple(c.name for c in classifiers.find((), None)) == classifiers.DEFAULT

    def test_order_is_kept_and_repeats_are_dropped(self) -> None:
        assert [c.name for c in classifiers.find(["task", "domain", "task"], None)] == ["task", "domain"]

    def test_a_users_file_is_added_and_shadows(self, tmp_path: Path) -> None:
        write(tmp_path)
        topic = front(
            name="topic", outputs=[{"name": "topic", "kind": "string", "enumValues": ["A", "B"]}], metadata=None
        )
        write(tmp_path, topic, name="topic")
        mood, own_topic, task = classifiers.find(["mood", "topic", "task"], tmp_path)
        assert mood.label_names == ("Happy", "Sad")
        assert own_topic.label_names == ("A", "B")
        assert task == classifiers.find(["task"], None)[0]

    def test_a_broken_file_that_is_not_asked_for_does_no_harm(self, tmp_path: Path) -> None:
        (tmp_path / "broken.prompty").write_text("nothing")
        (tmp_path / "._topic.prompty").write_bytes(b"\x00\x05\x16")
        assert classifiers.find(["topic"], tmp_path) == classifiers.find(["topic"], None)
        assert set(classifiers.known(tmp_path)) == {*SHIPPED, "broken"}

    def test_a_missing_folder_means_no_files_of_ones_own(self, tmp_path: Path) -> None:
        assert classifiers.known(tmp_path / "none") == classifiers.known(None)

    def test_a_users_grader_is_taken(self, tmp_path: Path) -> None:
        own = front(
            name="grader",
            outputs=[{"name": "grader", "kind": "string", "enumValues": ["correct", "incorrect"]}],
            metadata=None,
        )
        write(tmp_path, own, name="grader")
        assert classifiers.grader(tmp_path).instructions == "Pick the mood of the user."

    @pytest.mark.parametrize(("name", "near"), [("topics", "topic"), ("Topic", "topic"), ("experteese", "expertise")])
    def test_an_unknown_name_gets_the_nearest_and_all(self, tmp_path: Path, name: str, near: str) -> None:
        with pytest.raises(BadPrompt) as caught:
            classifiers.find(["task", name], tmp_path)
        message = str(caught.value)
        assert f"Did you mean {near}?" in message
        assert all(known in message for known in SHIPPED)

    def test_names_alike_but_for_case_are_refused(self, tmp_path: Path) -> None:
        other = front(name="Topic", outputs=[{"name": "Topic", "kind": "string", "enumValues": ["A"]}], metadata=None)
        write(tmp_path, other, name="Topic")
        with pytest.raises(BadPrompt, match="differ only in case"):
            classifiers.find(["topic", "Topic"], tmp_path)


class TestReading:
    def test_everything_arrives(self, tmp_path: Path) -> None:
        mood = classifiers.load(write(tmp_path))
        assert (mood.name, mood.description) == ("mood", "How the user feels.")
        assert mood.instructions == "Pick the mood of the user."
        happy, sad = mood.labels
        assert (happy.name, happy.definition, happy.synonyms, happy.examples) == (
            "Happy",
            "Glad.",
            ("joyful",),
            ("yay",),
        )
        assert (sad.synonyms, sad.examples) == (("unhappy",), ())

    def test_a_definition_alone_and_no_definition_are_fine(self, tmp_path: Path) -> None:
        mood = classifiers.load(write(tmp_path, front(metadata={"labels": {"Happy": "Glad\n  and\nlight."}})))
        assert [x.definition for x in mood.labels] == ["Glad and light.", ""]

    def test_named_collections_as_prompty_allows_them(self, tmp_path: Path) -> None:
        fields = front(
            inputs={"conversations": {"kind": "string"}}, outputs={"mood": {"kind": "string", "enumValues": ["Happy"]}}
        )
        fields["metadata"] = {"labels": {"Happy": "Glad."}}
        assert classifiers.load(write(tmp_path, fields)).label_names == ("Happy",)

    def test_other_inputs_are_rendered_by_their_default(self, tmp_path: Path) -> None:
        inputs = [{"name": "conversations", "kind": "string"}, {"name": "who", "kind": "string", "default": "customer"}]
        path = write(tmp_path, front(inputs=inputs), BODY.replace("the user", "the {{ who }}"))
        assert classifiers.load(path).instructions == "Pick the mood of the customer."

    def test_byte_order_mark_and_windows_line_ends_change_nothing(self, tmp_path: Path) -> None:
        path = write(tmp_path)
        before = classifiers.load(path)
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
        assert classifiers.load(path) == before

    def test_a_model_section_is_not_read_and_its_key_goes_nowhere(self, tmp_path: Path) -> None:
        model = {"id": "gpt", "connection": {"kind": "key", "apiKey": "${env:SECRET}", "endpoint": "http://evil.test"}}
        assert classifiers.load(write(tmp_path, front(model=model))) == classifiers.load(write(tmp_path))

    def test_cyclic_yaml_ends(self, tmp_path: Path) -> None:
        path = write(tmp_path)
        path.write_text(path.read_text().replace("metadata:\n", "metadata:\n  odd: &odd [*odd]\n"))
        assert classifiers.load(path).label_names == ("Happy", "Sad")


class TestVersion:
    def test_shape(self, tmp_path: Path) -> None:
        version = classifiers.load(write(tmp_path)).version
        assert version.startswith("b2:")
        assert len(bytes.fromhex(version.removeprefix("b2:"))) == 16

    @pytest.mark.parametrize(
        "fields",
        [
            dict(reversed(front().items())),
            front(description="Other words."),
            front(metadata={"authors": ["me"], **front()["metadata"]}),
            front(metadata={"labels": dict(reversed(front()["metadata"]["labels"].items()))}),
            front(
                metadata={
                    "labels": {
                        "Happy": {"examples": ["yay"], "synonyms": ["merry", "gay"], "definition": "Glad."},
                        "Sad": "Not glad.",
                    }
                }
            ),
            front(template=None),
        ],
        ids=["key order", "description", "metadata", "definition order", "synonyms", "template"],
    )
    def test_stays_when_the_model_sees_the_same(self, tmp_path: Path, fields: dict[str, Any]) -> None:
        assert classifiers.load(write(tmp_path, fields)).version == classifiers.load(write(tmp_path)).version

    @pytest.mark.parametrize(
        ("fields", "body"),
        [
            (front(metadata={"labels": {**front()["metadata"]["labels"], "Sad": "Blue."}}), BODY),
            (front(metadata={"labels": {**front()["metadata"]["labels"], "Happy": {"definition": "Glad."}}}), BODY),
            (front(outputs=output("Sad", "Happy")), BODY),
            (front(outputs=output("Happy", "Sad", "Other")), BODY),
            (front(), BODY.replace("Pick", "Choose")),
        ],
        ids=["definition", "example", "label order", "label", "instructions"],
    )
    def test_changes_with_what_the_model_sees(self, tmp_path: Path, fields: dict[str, Any], body: str) -> None:
        before = classifiers.load(write(tmp_path)).version
        assert classifiers.load(write(tmp_path, fields, body)).version != before


WRONG_FRONTS: dict[str, tuple[dict[str, Any], str]] = {
    "no name": (front(name=None), "name"),
    "name is a number": (front(name=5), "name"),
    "name with a dash": (front(name="mo-od"), "name"),
    "name not the file's": (front(name="moods"), "make them the same"),
    "description not text": (front(description=["x"]), "description"),
    "no outputs": (front(outputs=None), "outputs"),
    "empty outputs": (front(outputs=[]), "exactly one"),
    "outputs is text": (front(outputs="mood"), "outputs: it is not a list"),
    "two outputs": (front(outputs=output("Happy", "Sad") * 2), "there are 2"),
    "other output name": (front(outputs=output("Happy", "Sad", name="feeling")), "outputs.0.name"),
    "other output kind": (front(outputs=output("Happy", "Sad", kind="integer")), "outputs.0.kind"),
    "no labels": (front(outputs=output()), "no labels"),
    "labels are text": (front(outputs=output(enumValues="Happy, Sad")), "no labels"),
    "label is a number": (front(outputs=output("Happy", "Sad", 3)), "label 3 is not text"),
    "label is yes": (front(outputs=output("Happy", "Sad", True)), "label True is not text but bool; put it in quotes"),
    "label is null": (front(outputs=output("Happy", "Sad", None)), "NoneType"),
    "empty label": (front(outputs=output("Happy", "Sad", "")), "empty"),
    "padded label": (front(outputs=output("Happy", "Sad", " Calm")), "space"),
    "label of two lines": (front(outputs=output("Happy", "Sad", "a\nb")), "line break"),
    "label with escape code": (front(outputs=output("Happy", "Sad", "a\x1b[31m")), "control"),
    "label with U+2028": (front(outputs=output("Happy", "Sad", "a\u2028b")), "line break"),
    "long label": (front(outputs=output("Happy", "Sad", "x" * 121)), "longer than 120"),
    "too many labels": (front(outputs=output(*(f"L{i}" for i in range(1001))), metadata=None), "1,001 labels"),
    "same label": (front(outputs=output("Happy", "Sad", "Happy")), "spelt alike"),
    "same label but for case": (front(outputs=output("Happy", "Sad", "HAPPY")), "spelt alike"),
    "same label but for spaces": (front(outputs=output("Happy", "Sad", "So  so", "so so")), "spelt alike"),
    "synonym is a label": (front(metadata=label(synonyms=["sad"])), "already stands for 'Sad'"),
    "synonym shared": (
        front(metadata={"labels": {"Happy": {"synonyms": ["odd"]}, "Sad": {"synonyms": ["Odd"]}}}),
        "metadata.labels.Sad.synonyms",
    ),
    "definition of no label": (front(metadata={"labels": {"Hapy": "Glad."}}), "did you mean 'Happy'"),
    "definition a number": (front(metadata=label(definition=3)), "metadata.labels.Happy.definition"),
    "synonyms as text": (front(metadata=label(synonyms="glad")), "not a list"),
    "synonym is yes": (front(metadata=label(synonyms=[True])), "put it in quotes"),
    "misspelt detail": (front(metadata=label(synonym=["glad"])), "metadata.labels.Happy"),
    "detail a list": (front(metadata={"labels": {"Happy": ["Glad."]}}), "metadata.labels.Happy"),
    "labels a list": (front(metadata={"labels": ["Happy"]}), "metadata.labels"),
    "misspelt labels": (front(metadata={"label": {"Happy": "Glad."}}), "metadata.label"),
    "metadata a list": (front(metadata=["x"]), "metadata"),
    "unknown field": (front(output=[]), "no such field"),
    "no inputs": (front(inputs=None), "'conversations'"),
    "input of another kind": (front(inputs=[{"name": "conversations", "kind": "thread"}]), "of kind string"),
    "input without default": (
        front(inputs=[{"name": "conversations", "kind": "string"}, {"name": "who", "kind": "string"}]),
        "inputs.who",
    ),
    "input without kind": (front(inputs=[{"name": "conversations"}]), "Prompty can't read"),
    "environment": (front(description="${env:HOME}"), "references"),
    "environment in a label": (front(metadata=label(definition="say ${ENV:HOME} now")), "metadata.labels.Happy"),
    "file": (front(metadata="${file:labels.yaml}"), "references"),
    "mustache": (front(template={"format": {"kind": "mustache"}, "parser": {"kind": "prompty"}}), "template"),
    "version 1 template": (front(template="jinja2"), "Prompty 1"),
    "version 1 sample": (front(sample={"conversations": "x"}), "Prompty 1"),
    "version 1 model": (front(model={"api": "chat", "configuration": {"type": "openai"}}), "Prompty 1"),
    "version 1 inputs": (front(inputs={"conversations": {"type": "string"}}), "Prompty 1"),
}


WRONG_BODIES: dict[str, tuple[str, str]] = {
    "empty": ("", "body"),
    "no roles": ("Pick a mood for {{conversations}}", "its parts are system"),
    "no user part": ("system:\nPick.\n", "its parts are system"),
    "no system part": ("user:\n{{conversations}}\n", "its parts are user"),
    "empty system part": ("system:\n\nuser:\n{{conversations}}\n", "'system:' part is empty"),
    "instructions under user": ("system:\nPick.\nuser:\nPick from: {{conversations}}\n", "belong under 'system:'"),
    "conversations twice": ("system:\nPick {{conversations}}\nuser:\n{{conversations}}\n", "belong under 'system:'"),
    "conversations filtered": ("system:\nPick.\nuser:\n{{conversations | upper}}\n", "{{conversations}} must be all"),
    "no conversations": ("system:\nPick.\nuser:\nhello\n", "{{conversations}} must be all"),
    "a shot": (
        "system:\nPick.\nuser:\nhi\nassistant:\nHappy\nuser:\n{{conversations}}\n",
        "system, user, assistant, user",
    ),
    "undeclared variable": ("system:\nPick {{ tone }}.\nuser:\n{{conversations}}\n", "'tone' is undefined"),
    "open braces": ("system:\nPick {{ .\nuser:\n{{conversations}}\n", "raw"),
    "escape from the sandbox": ("system:\n{{ ''.__class__.__mro__ }}\nuser:\n{{conversations}}\n", "unsafe"),
    "division by zero": ("system:\n{{ 1 / 0 }}\nuser:\n{{conversations}}\n", "division"),
}


class TestRefusals:
    @pytest.mark.parametrize(("fields", "what"), WRONG_FRONTS.values(), ids=WRONG_FRONTS.keys())
    def test_front_matter(self, tmp_path: Path, fields: dict[str, Any], what: str) -> None:
        assert what in refusal(write(tmp_path, fields))

    @pytest.mark.parametrize(("body", "what"), WRONG_BODIES.values(), ids=WRONG_BODIES.keys())
    def test_body(self, tmp_path: Path, body: str, what: str) -> None:
        assert what in refusal(write(tmp_path, body=body))

    @pytest.mark.parametrize("name", ["id", "results", "conversation_id", "Conversation_ID"])
    def test_reserved_names(self, tmp_path: Path, name: str) -> None:
        fields = front(name=name, outputs=[{"name": name, "kind": "string", "enumValues": ["A"]}], metadata=None)
        assert "reserved" in refusal(write(tmp_path, fields, name=name))

    def test_a_grader_with_other_labels(self, tmp_path: Path) -> None:
        fields = front(
            name="grader", outputs=[{"name": "grader", "kind": "string", "enumValues": ["good", "bad"]}], metadata=None
        )
        assert "correct" in refusal(write(tmp_path, fields, name="grader"))

    @pytest.mark.parametrize(
        ("content", "what"),
        [
            (b"", "front matter"),
            (b"system:\nhi\nuser:\n{{conversations}}", "front matter"),
            (b"---\nname: mood\nnever closed", "front matter"),
            (b"---\n---\nsystem:\nhi", "no fields"),
            (b"---\n- a\n---\nsystem:\nhi", "no fields"),
            (b"---\nname: mood\noutputs: [a\n---\nsystem:\nhi", "line 4"),
            (b"---\nname: mood\nname: mood\n---\nsystem:\nhi", "'name' stands twice"),
            (b"---\nname: mood\ndescription: a --- b\n---\nsystem:\nhi", "before its end"),
            (b"---\nname: !!python/object/apply:os.getcwd []\n---\nsystem:\nhi", "line 2"),
            (b"---\nname: 2026-99-99\n---\nsystem:\nhi", "month"),
            (b"---\nname: " + b"[" * 5000 + b"\n---\nsystem:\nhi", "too deeply"),
            (b"---\nname: m\xf6od\n---\nsystem:\nhi", "byte 11 is not UTF-8"),
            (b"---\nname: mo\x00od\n---\nsystem:\nhi", "NUL"),
            (b"---\nname: mood\n---\n" + b"x" * 1_000_001, "larger than 1,000,000 bytes"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_files(self, tmp_path: Path, content: bytes, what: str) -> None:
        path = tmp_path / "mood.prompty"
        path.write_bytes(content)
        assert what in refusal(path)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        assert "can't be read" in refusal(tmp_path / "mood.prompty")

    def test_no_value_of_the_environment_shows(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SEMTEL_TEST_SECRET", "hush-hush")
        assert "hush-hush" not in refusal(write(tmp_path, front(description="${env:SEMTEL_TEST_SECRET}")))


@pytest.mark.parametrize("path", sorted(shipped("prompts").glob("*.prompty")), ids=lambda path: path.stem)
def test_shipped_prompts_read_the_same_in_either_loader(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    assert classifiers.load(copy) == classifiers.load(path)
