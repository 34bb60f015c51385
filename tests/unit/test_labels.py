"""Answers of every shape become exactly n × m verdicts, and a label is read rightly or not at all."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semtel_batch.labels import Cleaner, Verdict, read_answer
from semtel_batch.records import Answer, Classifier, Label, Outcome
from semtel_batch.salvage import values

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


def classifier(name: str, *labels: str, **synonyms: tuple[str, ...]) -> Classifier:
    return Classifier(
        name=name,
        description="",
        instructions="",
        labels=tuple(Label(name=label, synonyms=synonyms.get(label, ())) for label in labels),
        version="1",
    )


TOPIC = classifier("topic", "Technology", "Travel", "Food", "Science & Nature", Technology=("tech", "computers"))
EXPERTISE = classifier("expertise", "Novice", "Intermediate", "Expert")
ONE = {"topic": Cleaner(TOPIC)}
BOTH = {"topic": Cleaner(TOPIC), "expertise": Cleaner(EXPERTISE)}


def read(
    content: str | None, n: int = 1, cleaners: dict[str, Cleaner] = ONE, outcome: Outcome = Outcome.ANSWERED
) -> list[Verdict]:
    return read_answer(Answer(custom_id="a", outcome=outcome, content=content), n, cleaners)


def labels(content: str, n: int = 1, cleaners: dict[str, Cleaner] = ONE, **more: Any) -> list[str | None]:
    """The labels in order, or the outcome's name in angle brackets."""
    return [v.label or f"<{v.outcome.value}>" for v in read(content, n, cleaners, **more)]


def packed(*rows: dict[str, object]) -> str:
    return json.dumps({"results": rows})


def clean(raw: object, *names: str) -> str | None:
    return Cleaner(classifier("c", *names)).clean(raw).label


# --- the wire format -------------------------------------------------------------------------------------------------


def test_verdicts_come_by_slot_then_classifier() -> None:
    content = packed(
        {"id": 2, "topic": "Food", "expertise": "Expert"}, {"id": 1, "expertise": "Novice", "topic": "Travel"}
    )
    got = [(v.slot, v.classifier, v.label, v.how) for v in read(content, 2, BOTH)]
    assert got == [
        (1, "topic", "Travel", "exact"),
        (1, "expertise", "Novice", "exact"),
        (2, "topic", "Food", "exact"),
        (2, "expertise", "Expert", "exact"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        'Sure! Here it is: {"results": [{"id": 1, "topic": "Food"}]} Anything else?',
        '```json\n{"results": [{"id": 1, "topic": "Food"}]}\n```',
        '```\n{"topic": "Food"}\n```',
        '[{"id": 1, "topic": "Food"}]',
        '{"topic": "Food"}',
        '{"id": "1", "topic": "Food"}',
        '{"id": 1.0, "topic": "Food"}',
        '{"results": [{"topic": "Food"}]}',
        '{"results": {"id": 1, "topic": "Food"}}',
        '{"results": {"1": {"topic": "Food"}}}',
        '{"answer": {"results": [{"id": 1, "topic": "Food"}]}}',
        '{"results": [{"id": 1, "topic": "Food",},],}',
        "{'results': [{'id': 1, 'topic': 'Food', 'sure': True, 'note': None}]}",
        "{results: [{id: 1, topic: 'Food'}]}",
        '{"results": [{"id": 1, "topic": ["Food"]}]}',
        '{"results": [{"id": 1, "topic": {"label": "Food", "confidence": 0.9}}]}',
        '{"results": [{"id": 1, "label": "Food"}]}',
        '{"results": [{"ID": 1, "Topic": "Food"}]}',
        '\ufeff{"results": [{"id": 1, "topic": "Food"}]}',
        '{"results": [{"id": 1, "topic": "Food\u2028"}]}',
        '{"results": [{"id": 1, "topic": "Food", "why": "line\nbreak \x01"}]}',
        '{"results": [{"id": 1, "topic": "Food", "why": "\\ud800"}]}',
        '{"results": [{"id": 1, "topic": "Food", "why": "\ud800"}]}',
        json.dumps('{"results": [{"id": 1, "topic": "Food"}]}'),
        '{"results": [{"id": 1, "topic": "Food"}, {"id": 1, "topic": "food."}]}',
        '{"results": [{"id": 1, "topic": "Food"}, {"id": 7, "topic": "Travel"}, {"id": 0, "topic": "Travel"}]}',
        '{"topic": "Travel"} no, wait: {"results": [{"id": 1, "topic": "Food"}]}',
        '<think>{"results": [{"id": 1, "topic": "Travel"}]}?</think>{"results": [{"id": 1, "topic": "Food"}]}',
        'He said "see [1] {"results": [{"id": 1, "topic": "Food"}]}',
        'I can\'t tell {well}. {"results": [{"id": 1, "topic": "Food"}]}',
        '{"results": [{"id": 1, "topic": "Food", "topic": "Food"}]}',
        '{"results": [{"id": 1, "topic": "Food"',
        '{"results": [{"id": 1, "topic": "Food"}',
        '{"results": [{"id": 1, "topic": "Food", "n": 1',
    ],
)
def test_one_item_is_found_in(content: str) -> None:
    assert labels(content) == ["Food"]


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        ("", Outcome.MISSING),
        (" \n", Outcome.MISSING),
        ('{"results": []}', Outcome.MISSING),
        ('{"results": [{"id": 2, "topic": "Food"}]}', Outcome.MISSING),
        ('{"results": [{"id": true, "topic": "Food"}]}', Outcome.MISSING),
        ('{"results": [{"id": 1.5, "topic": "Food"}]}', Outcome.MISSING),
        ('{"results": [{"id": NaN, "topic": "Food"}]}', Outcome.MISSING),
        ('{"results": [{"id": 1, "mood": "Food"}]}', Outcome.MISSING),
        ('{"results": [{"id": 1, "topic": "Foo', Outcome.MISSING),
        ('{"results": [{"id": 1, "topic": null}]}', Outcome.INVALID),
        ('{"results": [{"id": 1, "topic": 3}]}', Outcome.INVALID),
        ('{"results": [{"id": 1, "topic": true}]}', Outcome.INVALID),
        ('{"results": [{"id": 1, "topic": []}]}', Outcome.INVALID),
        ('{"results": [{"id": 1, "topic": ["Food", "Travel"]}]}', Outcome.INVALID),
        ('{"results": [{"id": 1, "topic": "Travel or Food"}]}', Outcome.INVALID),
        ('{"results": [{"id": 1, "topic": "Sports"}]}', Outcome.INVALID),
        ('{"results": [{"id": 1, "topic": ""}]}', Outcome.INVALID),
        ('{"results": [{"id": 1, "topic": "Food"}, {"id": 1, "topic": "Travel"}]}', Outcome.INVALID),
        ('{"results": [{"id": 1, "topic": "Food"}, {"id": "1", "topic": "Sports"}]}', Outcome.INVALID),
        ('{"results": [{"id": 1, "topic": "Food", "topic": "Travel"}]}', Outcome.INVALID),
        ('{"topic": "Food"} {"topic": "Travel"}', Outcome.INVALID),
        ("I'm not able to classify this.", Outcome.INVALID),
        ("null", Outcome.INVALID),
        ("[1, 2]", Outcome.INVALID),
        ("[" * 5000, Outcome.INVALID),
        ("[" * 500 + "]" * 500, Outcome.INVALID),
        ('{"a":' * 5000 + "1" + "}" * 5000, Outcome.INVALID),
        ("9" * 10_000, Outcome.INVALID),
    ],
)
def test_one_item_is_not_found_in(content: str, outcome: Outcome) -> None:
    (verdict,) = read(content)
    assert (verdict.outcome, verdict.label, verdict.how) == (outcome, None, "")
    assert (verdict.detail is not None) == (outcome is Outcome.INVALID)


def test_a_pack_keeps_what_is_good() -> None:
    rows = [{"id": 1, "topic": "Food"}, {"id": 3, "topic": "Sports"}, {"id": 4, "topic": "Travel"}, {"topic": "Food"}]
    assert labels(packed(*rows), 5) == ["Food", "<missing>", "<invalid>", "Travel", "<missing>"]


def test_a_bad_entry_costs_only_itself() -> None:
    content = '{"results": [{"id": 1, "topic": "Food"}, {"id": 2, "topic": Travel}, {"id": 3, "topic": "Travel"}]}'
    assert labels(content, 3) == ["Food", "<missing>", "Travel"]


def test_ids_as_keys() -> None:
    assert labels('{"1": {"topic": "Food"}, "2": {"topic": "Travel"}}', 2) == ["Food", "Travel"]


def test_entries_without_ids_are_not_counted_out() -> None:
    assert labels('[{"topic": "Food"}, {"topic": "Travel"}]', 2) == ["<missing>", "<missing>"]


CUT = packed(*({"id": i, "topic": "Food", "expertise": "Expert"} for i in (1, 2, 3)))


@pytest.mark.parametrize("end", range(len(CUT)))
def test_a_cut_answer_keeps_what_is_whole(end: int) -> None:
    got = labels(CUT[:end], 3, BOTH, outcome=Outcome.TRUNCATED)
    n_whole = sum(CUT[:end].count(f'"{label}"') for label in ("Food", "Expert"))
    assert got == (["Food", "Expert"] * 3)[:n_whole] + ["<truncated>"] * (6 - n_whole)


def test_a_cut_id_is_not_believed() -> None:
    # 12 cut to 1: the first conversation must not get the twelfth's label
    assert labels('{"results": [{"topic": "Food", "id": 1', 12, outcome=Outcome.TRUNCATED) == ["<truncated>"] * 12


@pytest.mark.parametrize("content", ["Travel", "<think>Travel", '<think>{"topic": "Travel"}', None, ""])
def test_a_truncated_text_is_no_label(content: str | None) -> None:
    # "Order" may be the beginning of "Order status"
    assert [v.outcome for v in read(content, outcome=Outcome.TRUNCATED)] == [Outcome.TRUNCATED]


@pytest.mark.parametrize("outcome", [o for o in Outcome if o not in (Outcome.ANSWERED, Outcome.TRUNCATED)])
def test_other_outcomes_are_every_items(outcome: Outcome) -> None:
    got = read(packed({"id": 1, "topic": "Food"}), 2, BOTH, outcome)
    assert [(v.slot, v.classifier, v.outcome, v.label) for v in got] == [
        (slot, name, outcome, None) for slot in (1, 2) for name in ("topic", "expertise")
    ]


@pytest.mark.parametrize(
    ("content", "label", "how"),
    [
        ("Technology", "Technology", "exact"),
        ("Technology.", "Technology", "cleaned"),
        ('"Travel"', "Travel", "cleaned"),
        ("**Travel**", "Travel", "cleaned"),
        ("Topic: Food\n", "Food", "cleaned"),
        ("The topic is Food.", "Food", "cleaned"),
        ("tech", "Technology", "synonym"),
        ("<think>Food? No.</think>\n\nTravel", None, ""),
        ("Travle", None, ""),  # slips are not forgiven in prose
        ("Travel or Food", None, ""),
        ("not Travel", None, ""),
    ],
)
def test_a_bare_label(content: str, label: str | None, how: str) -> None:
    (verdict,) = read(content)
    assert (verdict.label, verdict.how) == (label, how)
    assert {v.outcome for v in read(content, 2)} == {Outcome.INVALID}
    assert {v.outcome for v in read(content, 1, BOTH)} == {Outcome.INVALID}


def test_detail_is_short_and_safe() -> None:
    (verdict,) = read(packed({"id": 1, "topic": "\x1b[31mred\u202e\x00\n" + "x" * 1000}))
    assert verdict.detail is not None
    assert verdict.detail.startswith("[31mred xxx") and verdict.detail.endswith("…")
    assert len(verdict.detail) <= 121 and verdict.detail.isprintable()
    (half,) = read('{"results": [{"id": 1, "topic": ["\\ud800", "x"]}]}')
    assert half.detail is not None and half.detail.encode()


def test_equal_answers_share_a_verdict() -> None:
    assert read(packed({"id": 1, "topic": "food"}))[0] is read(packed({"id": 1, "topic": "food"}))[0]


@pytest.mark.parametrize(
    "garbage",
    [
        '{"a":' * 40_000,
        '"\\' * 100_000,
        '{"' + '\\"' * 100_000,
        "{ '" * 60_000,
        "[" * 99 + '{"a":1,' * 20_000,
        '{"results":[' + '{"id":1,"topic":"Food"},' * 8_000,
        "<" * 200_000,
        "*" * 200_000,
        "`" * 200_000,
        "{" + "a " * 100_000 + "}",
    ],
)
def test_garbage_is_scanned_in_linear_steps(garbage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No clock: every value that is tried is a part of the text, and all that is tried is a few times its length."""
    import semtel_batch.salvage as salvage

    tried: list[int] = []
    real = salvage.parse

    def counting(text: str) -> object:
        tried.append(len(text))
        return real(text)

    monkeypatch.setattr(salvage, "parse", counting)
    list(values(garbage))
    assert sum(tried) <= 6 * len(garbage)
    assert len(read(garbage, 2, BOTH)) == 4


def test_a_nesting_bomb_is_not_followed() -> None:
    assert len(list(values("[" * 100 + "]" * 100))) == 1
    assert list(values("[" * 101 + "]" * 101)) == []


# --- cleaning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "label"),
    [
        ("technology", "Technology"),
        (" TECHNOLOGY ", "Technology"),
        ("'Technology'", "Technology"),
        ("“Technology”", "Technology"),
        ("`Technology`", "Technology"),
        ("[Technology]", "Technology"),
        ("<label>Technology</label>", "Technology"),
        ("**Label:** Technology", "Technology"),
        ("label = Technology", "Technology"),
        ("1. Technology", "Technology"),
        ("- Technology", "Technology"),
        ("## Technology", "Technology"),
        ("Technology!!!", "Technology"),
        ("Techno\u200blogy", "Technology"),
        ("Ｔｅｃｈｎｏｌｏｇｙ", "Technology"),
        ("technologies", "Technology"),
        ("tech", "Technology"),
        ("Computers.", "Technology"),
        ("computer", "Technology"),
        ("science and nature", "Science & Nature"),
        ("Science_&_Nature", "Science & Nature"),
        ("science-and-nature", "Science & Nature"),
        ("ScienceAndNature", "Science & Nature"),
        ("Technolgy", "Technology"),
        ("Technolohy", "Technology"),
        ("Science & Natrue", "Science & Nature"),
        ("Science", None),
        ("Nature", None),
        ("Technology/Travel", None),
        ("Technology, Travel", None),
        ("not technology", None),
        ("non-technology", None),
        ("biotechnology", None),
        ("Technology and science", None),
        ("", None),
        ("???", None),
        ("x" * 1_000_000, None),
        (None, None),
        (1, None),
        (1.0, None),
        (10**400, None),
        (True, None),
        ({"topic": "x"}, None),
        ([[[["Technology"]]]], None),
        ([["Technology"]], "Technology"),
        ({"label": "Technology"}, "Technology"),
    ],
)
def test_clean(raw: object, label: str | None) -> None:
    assert Cleaner(TOPIC).clean(raw).label == label


@pytest.mark.parametrize("raw", ["create", "created", "creates", "creating", "creation", "Creation."])
@pytest.mark.parametrize("label", ["Create", "Created", "Creating", "Creation"])
def test_inflections_meet(raw: str, label: str) -> None:
    assert clean(raw, label, "Learn", "Decide") == label


@pytest.mark.parametrize(
    ("raw", "label"),
    [
        ("planned", "Planning"),
        ("cancellation", "Cancelled"),
        ("translate", "Translation"),
        ("inform", "Information"),
        ("discussing", "Discussion"),
        ("Coded", "Code"),
        ("bookings", "Book"),
        ("debugging code", "Debug code"),
        ("queries", "Query"),
        ("question", "Questions"),
        ("organisation", "Organization"),
        ("analyze", "Analyse"),
        ("colour", "Color"),
        ("modeling", "Modelling"),
        ("defense", "Defence"),
        ("travle", "Travel"),
        ("Insurance claim statsu", "insurance_claim_status"),
        ("recieve payment", "Receive payment"),
    ],
)
def test_inflections_and_spellings(raw: str, label: str) -> None:
    assert clean(raw, label, "Something else") == label


@pytest.mark.parametrize(
    ("raw", "label"),
    [
        ("satisfied", "dissatisfied"),
        ("unsatisfied", "satisfied"),
        ("not satisfied", "satisfied"),
        ("correct", "incorrect"),
        ("not correct", "correct"),
        ("order", "reorder"),
        ("expert", "not expert"),
        ("nonexpert", "expert"),
        ("not able", "notable"),
        ("lock", "unlock"),
        ("upload", "unload"),
        ("complete", "incomplete"),
        ("with agent", "without agent"),
        ("level 1", "level 2"),
        ("level 12", "level 1 2"),
        ("1", "-1"),
        ("5", "5%"),
        ("1.5", "15"),
        ("C", "C++"),
        ("C++", "C#"),
        ("A", "A+"),
        ("A-", "A"),
        ("<18", ">18"),
        ("employee", "employer"),
        ("lessee", "lessor"),
        ("interstate", "intrastate"),
        ("prescription", "proscription"),
        ("microeconomics", "macroeconomics"),
        ("even", "evening"),
        ("new", "news"),
        ("form", "formatted"),
        ("state", "station"),
        ("quest", "question"),
        ("rate", "rating"),
        ("not", "noted"),
        ("food", "good"),
        ("pending transfer", "pending top up"),
        ("order status", "order"),
        ("独立多领域", "不独立多领域"),
        ("酒店预订", "酒店预定"),
        ("独立单领域场景", "独立多领域场景"),
        ("order1234", "order1235"),
        ("contact", "contract"),
        ("planning", "planting"),
        ("conversion", "conversation"),
        ("conservation", "conversation"),
        ("expert", "export"),
        ("reverse charge fee", "reserve charge fees"),
    ],
)
def test_kept_apart(raw: str, label: str) -> None:
    assert clean(raw, label, "Zebra") is None
    assert clean(label, raw, "Zebra") is None


def test_no_inflection_between_two_labels() -> None:
    assert clean("Creation", "Create", "Created") is None
    assert clean("created", "Create", "Created") == "Created"


def test_no_slip_between_two_labels() -> None:
    assert clean("Contrat", "Contract", "Contrast") is None
    assert clean("Paymment failed", "Payment failed", "Payment filed") is None
    assert clean("Paymment failed", "Payment failed", "Refund filed") == "Payment failed"


def test_labels_spelt_alike_need_the_exact_form() -> None:
    assert clean("US", "US", "us") == "US"
    assert clean("Us", "US", "us") is None


def test_a_label_goes_before_a_synonym() -> None:
    cleaner = Cleaner(classifier("c", "Food", "Travel", Travel=("food", "trips"), Food=("trips",)))
    assert cleaner.clean("food").label == "Food"
    assert cleaner.clean("trips").label is None


def test_numbers_as_labels() -> None:
    assert [clean(raw, "1", "2", "10") for raw in (1, "2.", 10, 3, "1 or 2", "12", 1.0)] == [
        "1", "2", "10", None, None, None, None,
    ]  # fmt: skip
    assert clean(True, "true", "false") == "true"


def test_how() -> None:
    cleaner = Cleaner(TOPIC)
    assert [cleaner.clean(raw).how for raw in ("Food", "food", "tech", "Technolgy", "Sports")] == [
        "exact", "cleaned", "synonym", "near", "",
    ]  # fmt: skip


GRADER = Cleaner(classifier("grade", "correct", "incorrect"))


@pytest.mark.parametrize(
    ("raw", "label"),
    [("Correct.", "correct"), ("incorect", "incorrect"), ("in correct", "incorrect"), ("un-correct", None)],
)
def test_the_graders_labels(raw: str, label: str | None) -> None:
    assert GRADER.clean(raw).label == label


# --- properties ------------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(["id", "topic", "expertise", "results", "label", "1"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())
ANYTHING = st.recursive(
    SCALARS | st.sampled_from(TOPIC.label_names),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(), inner, max_size=4),
    max_leaves=12,
)
PIECES = st.sampled_from(
    ['{"results":', '{"id":', "1,", '"topic":', '"Food"', *"{}[],'\"\\2 ", "```", "True", "</think>", "<think>"]
)
CONTENTS = st.one_of(
    st.text(st.characters()),
    st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    ANYTHING.map(json.dumps),
    ANYTHING.map(repr),
    ANYTHING.map(lambda x: json.dumps({"results": x})),
    st.lists(PIECES, max_size=30).map("".join),
)


@settings(max_examples=400, deadline=None)
@given(content=CONTENTS, n=st.integers(1, 4), both=st.booleans(), truncated=st.booleans())
def test_any_content_gives_each_item_one_verdict(content: str, n: int, both: bool, truncated: bool) -> None:
    cleaners = BOTH if both else ONE
    outcome = Outcome.TRUNCATED if truncated else Outcome.ANSWERED
    got = read(content, n, cleaners, outcome)
    assert [(v.slot, v.classifier) for v in got] == [(slot, name) for slot in range(1, n + 1) for name in cleaners]
    for v in got:
        assert (v.label is not None) == (v.outcome is Outcome.ANSWERED) == (v.how != "")
        assert v.label is None or v.label in cleaners[v.classifier].labels
        assert v.detail is None or v.detail.encode("utf-8") is not None


@settings(max_examples=200, deadline=None)
@given(names=st.lists(st.text(st.characters(), min_size=1, max_size=20), min_size=1, max_size=6, unique=True))
def test_every_label_is_itself(names: list[str]) -> None:
    cleaner = Cleaner(classifier("c", *names))
    assert [cleaner.clean(name).label for name in names] == names


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from(TOPIC.label_names), st.sampled_from(EXPERTISE.label_names)), min_size=1),
    before=st.text(st.characters(exclude_characters="{[<")),
    after=st.text(st.characters(exclude_characters="{[<")),
)
def test_what_was_written_is_read(rows: list[tuple[str, str]], before: str, after: str) -> None:
    content = packed(*({"id": i, "topic": t, "expertise": e} for i, (t, e) in enumerate(rows, 1)))
    assert labels(before + content + after, len(rows), BOTH) == [label for row in rows for label in row]


# --- real label sets -------------------------------------------------------------------------------------------------


def _rows(name: str) -> list[dict[str, Any]]:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_look_alikes_of_real_label_sets_stay_apart() -> None:
    rows = _rows("labels_cross.jsonl")
    pairs = [[name.split(":", 1)[1] for name in row["keep_apart"]] for row in rows if "keep_apart" in row]
    assert len(pairs) == 41
    assert [(a, b) for a, b in pairs if clean(a, b) or clean(b, a)] == []


def test_no_label_of_a_real_set_passes_for_another() -> None:
    by_source: dict[str, set[str]] = {}
    for row in _rows("labels_cross.jsonl"):
        if "label" in row:
            by_source.setdefault(row["source"], set()).add(row["label"])
    wrong = Counter(
        (source, left_out, found)
        for source, names in by_source.items()
        for left_out in names
        if (found := clean(left_out, *sorted(names - {left_out})))
    )
    assert wrong == {}
