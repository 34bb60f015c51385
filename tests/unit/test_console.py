"""What reaches the screen: meaning at every width, nothing but text from foreign text, plain where nobody looks."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
import rich.console
from reported_plan import classifier, executed, items, plan

from semtel_batch.checkup import Finding
from semtel_batch.console import Console, Options, Step, Streams, terminal
from semtel_batch.console.figures import brief, clip, deviation, duration, money, safe, several, share, tokens
from semtel_batch.console.layout import left, right, table
from semtel_batch.console.progress import line_of
from semtel_batch.errors import BadInput
from semtel_batch.plans import Alternative, Plan
from semtel_batch.records import Keep, Outcome, Strategy, Tier
from semtel_batch.report import FailureLine, Report, RequestFailure, report
from semtel_batch.status import PlanStatus, plan_status
from semtel_batch.studies.compare import Comparison, Sides, compare
from semtel_batch.studies.evaluate import Evaluation, evaluate

WIDTHS = (80, 100, 120, 200)
# Escape codes (colour, clipboard, title), a C1 escape, bidi overrides and isolates, a lone surrogate, a line
# separator, a carriage return, and rich's own markup and emoji codes.
EVIL = "\x1b[31mred\x1b]52;c;QQ==\x07\x9b2J\u202eabc\u2066d\u2069\ud800\u2028\r\n\t[bold red]loud[/] :bomb:"
STEERING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]")


class _Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


class _Screen:
    """A console with its streams in memory."""

    def __init__(
        self, *, tty: bool = False, environ: Mapping[str, str] | None = None, answer: str = "", **options: bool
    ) -> None:
        made = _Tty if tty else io.StringIO
        self.stdout, self.stderr = made(), made()
        self.now = 0.0
        streams = Streams(stdin=made(answer), stdout=self.stdout, stderr=self.stderr)
        surroundings = {"TERM": "xterm-256color", **(environ or {})}
        self.console = Console(Options(**options), streams, surroundings, lambda: self.now)

    @property
    def out(self) -> str:
        return self.stdout.getvalue()

    @property
    def err(self) -> str:
        return self.stderr.getvalue()


@pytest.fixture(scope="module")
def made() -> Plan:
    return plan()


@pytest.fixture(scope="module")
def execution(tmp_path_factory: pytest.TempPathFactory, made: Plan) -> tuple[Report, PlanStatus]:
    store = executed(tmp_path_factory.mktemp("project"), made)
    return report(store, made, items()), plan_status(store, store.plan_row(made.id))


def _evaluation(name: str = "topic", *labels: str) -> tuple[Evaluation, ...]:
    given = labels or ("Travel", "Health", "Travel")
    ids = [str(i) for i in range(len(given))]
    gold = pl.DataFrame({"conversation_id": ids, name: [given[-1]] * len(given)})
    return evaluate(pl.DataFrame({"conversation_id": ids, name: list(given)}), gold, [name])


def _comparison(*labels: str) -> tuple[Comparison, ...]:
    a = list(labels) or ["Travel", "Health", "Travel"]
    items = pl.DataFrame({"conversation_id": list("abc"), "classifier": "topic", "label": a, "how": "exact"})
    gold = pl.DataFrame({"conversation_id": ["a"], "topic": [a[0]]})
    other = items.with_columns(label=pl.lit(a[1]))
    return compare(Sides(a=items, b=other, again=other, gold=gold), ["topic"])


def _flat(text: str) -> str:
    """Without line breaks, so that wrapping does not hide a sentence."""
    return re.sub(r"\s+", " ", text)


Show = Callable[[Console], None]


def _shows(made: Plan, execution: tuple[Report, PlanStatus]) -> dict[str, Show]:
    found, standing = execution
    return {
        "plan": lambda c: c.show_plan(made, explain=True),
        "report": lambda c: c.show_report(found),
        "status": lambda c: c.show_status([standing], detail=True),
        "evaluation": lambda c: c.show_evaluation(_evaluation()),
        "comparison": lambda c: c.show_comparison([("A", "one")], _comparison(), verdict="shifted"),
        "findings": lambda c: c.show_findings([Finding(about="project", said="It can be written.")]),
    }


# -- meaning ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
def test_the_plan_says_what_it_costs_why_and_what_next(made: Plan, width: int) -> None:
    screen = _Screen(environ={"COLUMNS": str(width)})
    screen.console.show_plan(made)
    said = _flat(screen.out)
    for meaning in (
        "6 conversations, 5 of them unique and paid for; 31,204 tokens of text in o200k_base",
        "topic (3 labels), expertise (2 labels)",
        "$0.032 estimated, $0.04 at the upper estimate",
        "saves $0.208, 86.7 %, against the naive way ($0.24:",
        "UNCERTIFIED: up to 10.8 % of labels may differ from the naive way's (assumed, not measured on this data)",
        "3 conversations are longer than the model's best range.",
        "semtel-batch submit p7f3a9",
        "changes 15.3 % of labels (assumed), more than --min-agreement 0.85 allows",
    ):
        assert meaning in said


@pytest.mark.parametrize("width", WIDTHS)
def test_every_alternative_keeps_recipe_tier_cost_and_time(made: Plan, width: int) -> None:
    screen = _Screen(environ={"COLUMNS": str(width)})
    screen.console.show_plan(made)
    rows = [line.split() for line in screen.out.splitlines() if "×1 " in line]
    assert [row[0] for row in rows] == [">", "packed-graded", "batch", "naive"]  # the cheapest first, chosen marked
    naive = " ".join(rows[-1])
    assert naive.startswith("naive realtime 1×1 " if width < 100 else "naive realtime 1×1 4 ")
    assert "$0.24" in naive and "1.6 min" in naive and "ref." in naive


@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_puts_planned_beside_paid(made: Plan, execution: tuple[Report, PlanStatus], width: int) -> None:
    screen = _Screen(environ={"COLUMNS": str(width)})
    screen.console.show_report(execution[0])
    said = _flat(screen.out)
    for meaning in (
        "12 (conversation × classifier): 11 labelled (91.7 %), 1 failed",
        "$0.02 paid of $0.032 planned",
        "$0.22 (91.7 %) against the naive way's $0.24",
        "2 h; planned for at most 24 h",
        "Paid 37.5 % less than planned.",
        "never given: Health",
        "read: 3 exact, 1 near",
        "content_filter (1)",
        "batch_expired",
        "latency p50 2.00 s, p95 3.80 s, p99 3.96 s",
    ):
        assert meaning in said


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_screen(made: Plan, execution: tuple[Report, PlanStatus], width: int) -> None:
    for show in _shows(made, execution).values():
        screen = _Screen(environ={"COLUMNS": str(width)})
        show(screen.console)
        assert max(map(len, screen.out.splitlines())) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_no_table_is_cut_off_at_its_edge(width: int) -> None:
    words, figures = [left("data", wrap=True), left("recipe", wrap=True)], [right(f"figure{i}") for i in range(5)]
    made = table([*words, *figures], [["conversations.jsonl", "packed-graded", *["123,456,789"] * 4, "$0.000429"]])
    text = io.StringIO()
    rich.console.Console(file=text, width=width).print(made)
    assert "figure4" in text.getvalue() and "$0.000429" in text.getvalue()


def test_bars_are_as_long_as_their_shares(execution: tuple[Report, PlanStatus]) -> None:
    screen = _Screen(environ={"COLUMNS": "100"})
    screen.console.show_report(execution[0])
    blocks = {line.split()[0]: line.count("█") for line in screen.out.splitlines() if "█" in line}
    assert blocks["Technology"] == pytest.approx(4 * blocks["Travel"], abs=4)


def test_an_unfinished_report_says_so(tmp_path: Path, made: Plan) -> None:
    screen = _Screen()
    screen.console.show_report(report(executed(tmp_path, made, ended=False), made, items()))
    said = _flat(screen.out)
    assert "running, figures so far" in said
    assert "for the 90 % of the items that have ended" in said
    assert "1 still owed" in said
    assert "semtel-batch collect p7f3a9 --wait" in said
    prompt = next(line for line in screen.out.splitlines() if line.lstrip().startswith("prompt "))
    assert not prompt.rstrip().endswith("%"), "how far off a bill is can be told of a whole one only"


def test_many_alternatives_are_cut_to_the_telling_ones_and_explain_shows_all(made: Plan) -> None:
    extra = [
        Alternative(
            estimate=replace(made.chosen, usd=made.chosen.usd + Decimal(n), time_s=90.0 + n),
            feasible=False,
            reason=f"reason {n}",
        )
        for n in range(1, 31)
    ]
    many = replace(made, alternatives=(*made.alternatives, *extra))
    short, long = _Screen(), _Screen()
    short.console.show_plan(many)
    long.console.show_plan(many, explain=True)
    assert short.out.count("×1 ") == 12
    assert "22 more; --explain shows all of them" in short.out
    assert "> " in short.out and "naive" in short.out
    assert long.out.count("×1 ") == 34
    assert "reason 30" in long.out


def _truncated(made: Plan, endpoint: str, tier: Tier, keep: Keep) -> Alternative:
    way = Strategy(recipe="packed-confidence", tier=tier, truncate_to=512, keep=keep)
    return Alternative(
        estimate=replace(made.chosen, strategy=way, endpoint=endpoint), feasible=False, reason=f"because of {endpoint}"
    )


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_ways_that_are_nearly_the_same_are_one_line_and_no_word_is_broken(made: Plan, width: int) -> None:
    ends = [_truncated(made, "a-long-name", Tier.BATCH, keep) for keep in Keep]
    priced_alike = [
        Alternative(estimate=replace(made.chosen, strategy=way, endpoint=name), feasible=False, reason="why")
        for name in ("a-long-name", "other", "third")
        for way in (Strategy(recipe="combined", tier=Tier.BATCH, classifiers_per_request=0),)
    ]
    screen = _Screen(environ={"COLUMNS": str(width)})
    screen.console.show_plan(replace(made, alternatives=(*made.alternatives, *ends, *priced_alike)), explain=True)
    lines = screen.out.splitlines()
    assert sum("≤512" in line and "each cut" not in line for line in lines) == 1
    assert all(word in screen.out.replace("\n", " ").split() for word in ("head,", "tail,", "head+tail,", "recent"))
    assert sum("combined" in line for line in lines) == 1 and "+2" in screen.out
    assert "packed-confidence" in screen.out or ("packed- " in screen.out and "confidence " in screen.out)
    assert any(line.rstrip().endswith("chosen") for line in lines)


def test_a_mix_is_called_one_among_its_alternatives(made: Plan) -> None:
    screen = _Screen(environ={"COLUMNS": "120"})
    screen.console.show_plan(replace(made, chosen=replace(made.chosen, usd=Decimal("0.01"))))
    row = next(line for line in screen.out.splitlines() if line.startswith("  >"))
    assert row.split()[:3] == [">", "a", "mix"] and "$0.01" in row


def test_a_part_that_is_asked_in_two_tiers_says_where_each_of_its_lines_is_asked(made: Plan) -> None:
    (line,) = (one for one in made.chosen.lines if one.part == "classify")
    screen = _Screen()
    screen.console.show_plan(made)
    assert "classify, " not in screen.out
    lines = (replace(line, tier=Tier.BATCH), replace(line, tier=Tier.REALTIME))
    screen.console.show_plan(replace(made, chosen=replace(made.chosen, lines=lines)))
    assert "classify, batch" in screen.out and "classify, realtime" in screen.out


@pytest.mark.parametrize("width", WIDTHS)
def test_bars_give_way_before_a_word_is_broken(width: int) -> None:
    screen = _Screen(environ={"COLUMNS": str(width)})
    screen.console.show_evaluation(_evaluation("expertise"))
    assert "classifier" in screen.out and "expertise" in screen.out


def test_several_endpoints_get_a_column(made: Plan) -> None:
    other = replace(made.alternatives[1], estimate=replace(made.alternatives[1].estimate, endpoint="azure-eu"))
    screen = _Screen()
    screen.console.show_plan(replace(made, alternatives=(made.alternatives[0], other)))
    assert "endpoint" in screen.out and "azure-eu" in screen.out


def test_an_unchanged_way_of_asking_claims_no_more_than_that(made: Plan) -> None:
    batch = made.alternatives[2].estimate
    screen = _Screen()
    screen.console.show_plan(replace(made, chosen=batch, certified=True))
    said = _flat(screen.out)
    assert "by construction" in said
    assert "UNCERTIFIED" not in said


# -- plain, coloured, json, quiet ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tty", "environ", "coloured"),
    [
        (True, {}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),  # no-color.org: an empty value does not count
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
        (False, {"FORCE_COLOR": "1"}, True),
        (False, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colour(made: Plan, tty: bool, environ: Mapping[str, str], coloured: bool) -> None:
    screen = _Screen(tty=tty, environ={"COLUMNS": "100", **environ})
    screen.console.show_plan(made)
    screen.console.show_error(BadInput("Wrong."))
    assert ("\x1b[" in screen.out) is coloured
    assert ("\x1b[" in screen.err) is coloured


def test_what_is_piped_is_100_columns_wide_without_trailing_blanks(made: Plan) -> None:
    screen = _Screen()
    screen.console.show_plan(made)
    lines = screen.out.splitlines()
    assert 90 < max(map(len, lines)) <= 100
    assert [line for line in lines if line != line.rstrip()] == []


def test_json_is_one_document_and_nothing_else(made: Plan, execution: tuple[Report, PlanStatus]) -> None:
    for show in _shows(made, execution).values():
        screen = _Screen(json=True)
        screen.console.say("working")
        screen.console.show_text("done")
        with screen.console.progress() as progress:
            progress.update(Step(name="classify", done=1, total=2))
        show(screen.console)
        assert json.loads(screen.out)
        assert screen.err == ""


def test_quiet_keeps_results_warnings_and_errors(made: Plan) -> None:
    screen = _Screen(quiet=True)
    screen.console.say("working")
    screen.console.show_plan(made)
    screen.console.warn("Watch out.")
    screen.console.show_error(BadInput("Wrong."))
    assert "p7f3a9" in screen.out
    assert screen.err == "warning: Watch out.\nerror: Wrong.\n"


def test_details_are_for_verbose_only() -> None:
    for verbose in (False, True):
        screen = _Screen(verbose=verbose)
        screen.console.detail("polled")
        assert ("polled" in screen.err) is verbose


def test_an_error_is_one_line_on_stderr_however_long() -> None:
    screen = _Screen()
    screen.console.show_error(BadInput("word " * 60 + "end."))
    assert screen.err.count("\n") == 1
    assert screen.out == ""


@pytest.mark.parametrize(
    ("answer", "agreed"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_confirm(answer: str, agreed: bool) -> None:
    screen = _Screen(tty=True, answer=answer)
    assert screen.console.confirm("Spend $4?") is agreed
    assert "Spend $4? [y/N]" in screen.err
    assert screen.out == ""


@pytest.mark.parametrize("options", [{"tty": False}, {"tty": True, "json": True}])
def test_nobody_to_ask_is_no(options: dict[str, bool]) -> None:
    screen = _Screen(answer="y\n", **options)
    assert screen.console.confirm("Spend $4?") is False
    assert "--yes" in screen.err


def test_an_encoding_without_our_characters_neither_fails_nor_shifts_a_column(
    execution: tuple[Report, PlanStatus], made: Plan
) -> None:
    for show in _shows(made, execution).values():
        raw = io.BytesIO()
        stdout = io.TextIOWrapper(raw, encoding="ascii")
        console = Console(Options(), Streams(stdin=io.StringIO(), stdout=stdout, stderr=io.StringIO()), {})
        show(console)
        stdout.flush()
        text = raw.getvalue().decode("ascii")
        assert text.strip()
        assert "\\u" not in text  # all our own characters have a plain one
        assert max(map(len, text.splitlines())) <= 100


def test_ascii_bars(execution: tuple[Report, PlanStatus]) -> None:
    raw = io.BytesIO()
    stdout = io.TextIOWrapper(raw, encoding="ascii")
    Console(Options(), Streams(stdin=io.StringIO(), stdout=stdout, stderr=io.StringIO()), {}).show_report(execution[0])
    stdout.flush()
    assert re.search(r"Technology +#{20,}", raw.getvalue().decode("ascii"))


# -- foreign text ----------------------------------------------------------------------------------------------


def _evil_plan(made: Plan) -> Plan:
    return replace(
        made,
        id=EVIL,
        data=replace(made.data, source=EVIL, encoding=EVIL),
        classifiers=(classifier(EVIL, EVIL),),
        endpoints=(replace(made.endpoints[0], name=EVIL, model=EVIL),),
        prices=((EVIL, replace(made.prices[0][1], source=EVIL)),),
        legs=(replace(made.legs[0], endpoint=EVIL),),
        chosen=replace(
            made.chosen,
            endpoint=EVIL,
            strategy=replace(made.chosen.strategy, recipe=EVIL),
            lines=(replace(made.chosen.lines[0], part=EVIL),),
            quality=replace(made.chosen.quality, basis=EVIL),
        ),
        alternatives=(replace(made.alternatives[3], reason=EVIL),),
        warnings=(EVIL,),
    )


def _evil_report(found: Report) -> Report:
    line = found.classifiers[0]
    label = replace(line.labels[0], label=EVIL)
    return replace(
        found,
        plan_id=EVIL,
        source=EVIL,
        recipe=EVIL,
        lines=(replace(found.lines[0], part=EVIL),),
        endpoints=(replace(found.endpoints[1], endpoint=EVIL),),
        classifiers=(
            replace(
                line,
                classifier=EVIL,
                labels=(label, replace(label, n=0)),
                how=((EVIL, 1),),
                graded=((EVIL, 1),),
            ),
        ),
        failures=(FailureLine(outcome=Outcome.INVALID, n_items=1, classifiers=(EVIL,), details=((EVIL, 1),)),),
        request_failures=(
            RequestFailure(outcome=Outcome.ERRORED, status_code=500, error_code=EVIL, n_requests=1, example=EVIL),
        ),
        warnings=(EVIL,),
    )


def _evil_status(standing: PlanStatus) -> PlanStatus:
    shard = replace(
        standing.shards[0], key=EVIL, endpoint=EVIL, batch_id=EVIL, status=EVIL, error_code=EVIL, error_message=EVIL
    )
    return replace(standing, plan_id=EVIL, source=EVIL, recipe=EVIL, shards=(shard,))


def _evil_shows(made: Plan, execution: tuple[Report, PlanStatus]) -> Sequence[Show]:
    found, standing = execution
    evil_sides = _comparison("a", EVIL.replace("\ud800", ""), "b")
    evil_gold = replace(_evaluation("topic", "a", EVIL.replace("\ud800", ""))[0], classifier=EVIL, unknown_gold=(EVIL,))

    def progress(console: Console) -> None:
        with console.progress() as steps:
            steps.update(Step(name=EVIL, done=1, total=2, note=EVIL))

    def confirm(console: Console) -> None:
        console.confirm(EVIL)

    return [
        lambda c: c.show_plan(_evil_plan(made)),
        lambda c: c.show_plan(_evil_plan(made), explain=True),
        lambda c: c.show_alternatives(_evil_plan(made).alternatives),
        lambda c: c.show_report(_evil_report(found)),
        lambda c: c.show_status([_evil_status(standing)], detail=True),
        lambda c: c.show_evaluation([evil_gold]),
        lambda c: c.show_findings([Finding(about=EVIL, said=EVIL, is_good=False)]),
        lambda c: c.show_text(EVIL),
        lambda c: c.say(EVIL),
        lambda c: c.detail(EVIL),
        lambda c: c.warn(EVIL),
        lambda c: c.show_error(BadInput(EVIL)),
        confirm,
        progress,
        lambda c: c.show_comparison([("A", EVIL)], evil_sides, verdict=EVIL),
    ]


@pytest.mark.parametrize("width", [60, *WIDTHS])
def test_foreign_text_cannot_steer_the_terminal(made: Plan, execution: tuple[Report, PlanStatus], width: int) -> None:
    for show in _evil_shows(made, execution):
        screen = _Screen(environ={"COLUMNS": str(width)}, verbose=True)
        show(screen.console)
        shown = screen.out + screen.err
        assert STEERING.findall(shown) == []
        assert "\\x1b" in shown  # it is shown, not dropped
        assert "💣" not in shown


def test_markup_in_foreign_text_is_text(made: Plan, execution: tuple[Report, PlanStatus]) -> None:
    for show in _evil_shows(made, execution)[7:13]:  # those that are short enough not to be cut
        screen = _Screen(environ={"COLUMNS": "500"}, verbose=True)
        show(screen.console)
        assert "[bold red]loud[/] :bomb:" in screen.out + screen.err


def test_foreign_text_adds_no_escape_codes_on_a_terminal(made: Plan, execution: tuple[Report, PlanStatus]) -> None:
    """Only colours, and on stderr the live display's own cursor moves, are left of what is written."""
    ours = re.compile("\x1b\\[(?:[0-9;]*m|\\?25[lh]|[12]K|1A|[0-9]*A)|[\r\n]")
    for show in _evil_shows(made, execution):
        screen = _Screen(tty=True, environ={"COLUMNS": "120", "LINES": "40"}, verbose=True)
        show(screen.console)
        assert STEERING.findall(ours.sub("", screen.out + screen.err)) == []


def test_json_is_ascii_so_that_it_is_safe_on_a_terminal(execution: tuple[Report, PlanStatus]) -> None:
    screen = _Screen(json=True)
    screen.console.show_json({"label": EVIL.replace("\ud800", "")})
    assert screen.out.isascii()
    assert "\x1b" not in screen.out


# -- progress --------------------------------------------------------------------------------------------------


def test_plain_progress_says_the_beginning_a_line_now_and_then_and_the_end() -> None:
    screen = _Screen()
    with screen.console.progress() as progress:
        for second in range(26):
            screen.now = float(second)
            progress.update(Step(name="classify", done=second * 4, total=100, usd=Decimal("0.01") * second))
    lines = screen.err.splitlines()
    assert lines == [
        "classify: 0 of 100 (0 %), $0.00",
        "classify: 40 of 100 (40 %), $0.10, 10 s",
        "classify: 80 of 100 (80 %), $0.20, 20 s",
        "classify: 100 of 100 (100 %), $0.25, 25 s",
    ]


def test_plain_progress_does_not_repeat_itself() -> None:
    screen = _Screen()
    with screen.console.progress() as progress:
        for second in (0, 60, 120):
            screen.now = float(second)
            progress.update(Step(name="batch", done=0, total=5, note="in_progress"))
    assert screen.err.splitlines() == ["batch: 0 of 5 (0 %), in_progress"]


def test_quiet_progress_is_silent() -> None:
    screen = _Screen(quiet=True)
    with screen.console.progress() as progress:
        progress.update(Step(name="batch", done=1, total=5))
    assert screen.out + screen.err == ""


@pytest.mark.parametrize("width", [80, 120])
def test_live_progress_shows_done_money_and_retries_on_stderr(width: int) -> None:
    screen = _Screen(tty=True, environ={"COLUMNS": str(width), "NO_COLOR": "1"})
    with screen.console.progress() as progress:
        step = Step(name="classify", done=1_550, total=4_000, usd=Decimal("1.25"), n_retried=3, note="openai batch")
        progress.update(step)
    assert "1,550/4,000  $1.25  3 tried again  openai batch" in screen.err
    assert screen.out == ""


def test_labels_and_what_came_without_are_counted() -> None:
    step = Step(name="requests", done=20, total=40, usd=Decimal("0.25"), n_labels=3_910, n_unlabelled=9)
    assert line_of(step, 0.0) == "requests: 20 of 40 (50 %), 3,910 labels, $0.25, 9 without a label"


def test_a_step_without_a_total_has_no_percentage() -> None:
    assert line_of(Step(name="count", done=0, total=0), 0.0) == "count: 0 of 0"


# -- figures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usd", "said"),
    [
        ("0", "$0.00"),
        ("0.0042", "$0.0042"),
        ("0.00031049", "$0.00031"),
        ("0.0000001", "<$0.000001"),
        ("0.5", "$0.50"),
        ("0.1234", "$0.123"),
        ("0.9996", "$1.00"),
        ("12.344", "$12.34"),
        ("999.999", "$1,000"),
        ("1234.4", "$1,234"),
        ("-0.5", "-$0.50"),
    ],
)
def test_money(usd: str, said: str) -> None:
    assert money(Decimal(usd)) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.42, "0.4 s"),
        (3, "3 s"),
        (9.99, "10 s"),
        (35.2, "35 s"),
        (59.7, "1 min"),
        (725, "12 min 5 s"),
        (3_599.8, "1 h"),
        (7_800, "2 h 10 min"),
        (86_400, "24 h"),
        (172_800, "48 h"),
        (273_600, "3 d 4 h"),
    ],
)
def test_duration(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(35, "35 s"), (95, "1.6 min"), (7_800, "2.2 h"), (86_400, "24 h"), (273_600, "3.2 d")]
)
def test_brief(seconds: float, said: str) -> None:
    assert brief(seconds) == said


@pytest.mark.parametrize(
    ("part", "said"),
    [(0, "0 %"), (0.0004, "<0.1 %"), (0.5, "50 %"), (0.123, "12.3 %"), (0.99996, ">99.9 %"), (1, "100 %")],
)
def test_share_never_says_none_or_all_of_what_is_not(part: float, said: str) -> None:
    assert share(part) == said


@pytest.mark.parametrize(
    ("n", "said"), [(0, "0"), (31_204, "31,204"), (999_999, "999,999"), (1_234_567, "1.2 M"), (3.4e9, "3.4 bn")]
)
def test_tokens(n: float, said: str) -> None:
    assert tokens(n) == said


def test_several() -> None:
    assert (several(1, "label"), several(2, "label"), several(0, "reply", "replies")) == (
        "1 label",
        "2 labels",
        "0 replies",
    )


@pytest.mark.parametrize("text", ["Größe", "日本語", "سلام", "👩‍💻", "می‌خواهم", "plain"])
def test_safe_leaves_words_of_any_language_alone(text: str) -> None:
    assert safe(text) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\x9bb", "a\\x9bb"),
        ("\u202eabc", "\\u202eabc"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("a\nb", "a\\x0ab"),
    ],
)
def test_safe_shows_what_would_steer(text: str, said: str) -> None:
    assert safe(text) == said


def test_clip() -> None:
    assert clip("abcdef", 6) == "abcdef"
    assert clip("abcdefg", 6) == "abcde…"


@pytest.mark.parametrize("drawn", [False, True])
def test_a_notebook_gets_bars_only_where_it_can_draw_them(drawn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = _Screen()
    monkeypatch.setattr(screen.console._err, "is_jupyter", True)
    monkeypatch.setattr(terminal, "find_spec", lambda name: name if drawn and name == "ipywidgets" else None)
    bars = object()
    monkeypatch.setattr("semtel_batch.console.bars.live_progress", lambda _screen: nullcontext(bars))
    with screen.console.progress() as progress:
        assert (progress is bars) is drawn


@pytest.mark.parametrize(("part", "said"), [(-0.003, "−0.3 %"), (0.055, "+5.5 %"), (-0.0001, "0 %"), (1, "+100 %")])
def test_deviation(part: float, said: str) -> None:
    assert deviation(part) == said
