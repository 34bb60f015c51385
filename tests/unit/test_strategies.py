"""Recipes: what is shipped, how grids expand, what evidence says, and how a bad file is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from semtel_batch.errors import BadStrategy
from semtel_batch.records import Keep, Strategy, Tier
from semtel_batch.strategies import Lever, find, levers_of, load

SHIPPED = (
    *("background", "batch", "cascade", "combined", "compressed", "decisions", "flex", "naive"),
    *("packed", "packed-confidence", "packed-graded", "packed-rerun", "truncated"),
)


def write(folder: Path, text: str, name: str = "mine") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def recipe_text(grid: str = 'tier = ["batch"]', rest: str = "", name: str = "mine") -> str:
    return f'name = "{name}"\nsummary = "One for the tests."\n[grid]\n{grid}\n{rest}'


# ── what is shipped ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_recipes_are_there() -> None:
    assert tuple(recipe.name for recipe in find(())) == SHIPPED


def test_every_point_of_every_shipped_recipe_has_evidence() -> None:
    for recipe in find(()):
        for strategy in recipe.strategies():
            quality = recipe.label_change(strategy)
            if strategy.escalate is not None:  # two models that nobody but the user can have measured
                assert quality.label_change == 1 and quality.assumed
                continue
            assert quality.label_change < 1, strategy
            assert quality.assumed == strategy.changes_labels, strategy
            assert "no evidence" not in quality.basis


def test_every_piece_of_shipped_evidence_is_used_by_a_point() -> None:
    for recipe in find(()):
        for one in recipe.evidence:
            fitting = [s for s in recipe.strategies() if one.lever in levers_of(s) and one.speaks_for(s)]
            assert fitting, (recipe.name, one.source)


def test_naive_and_batch_are_the_same_request() -> None:
    (naive,), (batch,) = (recipe.strategies() for recipe in find(["naive", "batch"]))
    assert naive == Strategy(recipe="naive", tier=Tier.REALTIME)
    assert batch == Strategy(recipe="batch", tier=Tier.BATCH)
    assert find(["batch"])[0].label_change(batch).label_change == 0


def test_the_worst_source_counts() -> None:
    (packed,) = find(["packed"])
    ten, twenty = (
        Strategy(recipe="packed", tier=Tier.BATCH, conversations_per_request=n, classifiers_per_request=1)
        for n in (10, 20)
    )
    # 15-20 % at ten (Semantic Telemetry) against 4.8 % (BatchPrompt, GPT-4); 28.4 % against 6.7 % above sixteen.
    assert packed.label_change(ten).label_change == pytest.approx(0.20)
    assert packed.label_change(twenty).label_change == pytest.approx(0.284)
    assert "n=269" in packed.label_change(twenty).basis


def test_grading_leaves_less_than_packing_alone() -> None:
    (packed,), (graded,) = find(["packed"]), find(["packed-graded"])
    for n in (5, 10, 20):
        strategy = Strategy(recipe="x", tier=Tier.BATCH, conversations_per_request=n)
        assert 0 < graded.label_change(strategy).label_change < packed.label_change(strategy).label_change


# ── grids ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_grid_is_the_product_of_its_lists(tmp_path: Path) -> None:
    grid = 'tier = ["realtime", "batch"]\nconversations_per_request = [1, 5]\nclassifiers_per_request = 0'
    strategies = load(write(tmp_path, recipe_text(grid))).strategies()
    assert [(s.tier, s.conversations_per_request, s.classifiers_per_request) for s in strategies] == [
        (Tier.REALTIME, 1, 0),
        (Tier.REALTIME, 5, 0),
        (Tier.BATCH, 1, 0),
        (Tier.BATCH, 5, 0),
    ]
    assert {s.recipe for s in strategies} == {"mine"}


def test_off_values_and_pointless_repeats_collapse(tmp_path: Path) -> None:
    grid = 'tier = "batch"\ntruncate_to = [0, 512]\nkeep = ["head", "tail"]\ncompress_rate = 1'
    strategies = load(write(tmp_path, recipe_text(grid))).strategies()
    # What to keep makes no difference where nothing is cut.
    assert [(s.truncate_to, s.keep) for s in strategies] == [(None, Keep.HEAD), (512, Keep.HEAD), (512, Keep.TAIL)]
    assert all(s.compress_rate is None for s in strategies)


def test_a_model_may_be_pinned(tmp_path: Path) -> None:
    path = write(tmp_path, recipe_text('tier = "batch"\nmodel = ["gpt-6-luna"]'))
    assert load(path).strategies()[0].model == "gpt-6-luna"


# ── evidence ────────────────────────────────────────────────────────────────────────────────────────────────────────

EVIDENCE = """
[[evidence]]
lever = "packing"
label_change = 0.7
source = "A study"
n = 50
when = { conversations_per_request = [2, 10] }
[[evidence]]
lever = "combining"
label_change = 0.6
source = "Another"
[[evidence]]
lever = "truncating"
label_change = 0.4
source = "A third"
when = { truncate_to = 512 }
"""


@pytest.fixture
def studied(tmp_path: Path) -> Path:
    return write(tmp_path, recipe_text(rest=EVIDENCE))


def test_levers_add_up_and_never_exceed_all_labels(studied: Path) -> None:
    recipe = load(studied)
    packed = Strategy(recipe="mine", tier=Tier.BATCH, conversations_per_request=10)
    both = Strategy(recipe="mine", tier=Tier.BATCH, conversations_per_request=10, classifiers_per_request=0)
    assert recipe.label_change(packed).label_change == pytest.approx(0.7)
    assert recipe.label_change(both).label_change == 1.0
    assert "A study, n=50" in recipe.label_change(both).basis and "Another" in recipe.label_change(both).basis


def test_only_the_cut_conversations_can_change(studied: Path) -> None:
    recipe = load(studied)
    cut = Strategy(recipe="mine", tier=Tier.BATCH, truncate_to=512)
    assert recipe.label_change(cut, cut_share=0.25).label_change == pytest.approx(0.1)
    assert recipe.label_change(cut).label_change == pytest.approx(0.4)


@pytest.mark.parametrize(
    "strategy",
    [
        Strategy(recipe="mine", tier=Tier.BATCH, conversations_per_request=11),
        Strategy(recipe="mine", tier=Tier.BATCH, truncate_to=511),
        Strategy(recipe="mine", tier=Tier.BATCH, compress_rate=0.5),
    ],
)
def test_without_evidence_every_label_counts_as_changed(studied: Path, strategy: Strategy) -> None:
    quality = load(studied).label_change(strategy)
    assert quality.label_change == 1.0
    assert "no evidence" in quality.basis


def test_levers() -> None:
    everything = Strategy(
        recipe="x",
        tier=Tier.DECISIONS,
        conversations_per_request=2,
        classifiers_per_request=2,
        truncate_to=64,
        compress_rate=0.5,
        escalate="dear",
    )
    assert levers_of(everything) == tuple(Lever)
    assert levers_of(Strategy(recipe="x", tier=Tier.BATCH)) == ()


# ── finding ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_projects_own_recipe_stands_before_the_shipped_one(tmp_path: Path) -> None:
    write(tmp_path, recipe_text('tier = "flex"', name="batch"), "batch")
    (batch,) = find(["batch"], tmp_path)
    assert batch.strategies()[0].tier is Tier.FLEX
    assert tuple(recipe.name for recipe in find((), tmp_path)) == SHIPPED


def test_a_path_is_a_recipe_too_and_is_loaded_once(tmp_path: Path) -> None:
    path = write(tmp_path, recipe_text())
    assert find([path])[0].path == path
    assert [recipe.name for recipe in find([path, str(path), "naive"])] == ["mine", "naive"]


def test_a_project_without_recipes_of_its_own_has_the_shipped_ones(tmp_path: Path) -> None:
    assert len(find((), tmp_path / "strategies")) == len(SHIPPED)


# ── bad files ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "is not valid TOML"),
        (recipe_text().replace("summary", "sumary"), "sumary is not known; allowed: evidence, grid, name, summary"),
        (recipe_text(name="other"), "name is 'other', but the file is called mine.toml"),
        (recipe_text(name="My Recipe"), "lower-case"),
        ('name = "mine"\n[grid]\ntier = "batch"', "summary is missing"),
        ('name = "mine"\nsummary = "x"', "grid is missing its tier"),
        (recipe_text("conversations_per_request = [5]"), "grid is missing its tier"),
        (recipe_text('tier = ["weekly"]'), "grid.tier is ['weekly']; allowed: realtime, 2h, 8h, batch, flex"),
        (recipe_text("tier = []"), "grid.tier is an empty list"),
        (recipe_text('tier = "batch"\npack = [5]'), "grid.pack is not known; allowed: classifiers_per_request"),
        (recipe_text('tier = "batch"\nconversations_per_request = [0]'), "whole numbers from 1 to 200"),
        (recipe_text('tier = "batch"\nconversations_per_request = [2.5]'), "whole numbers from 1 to 200"),
        (recipe_text('tier = "batch"\nconversations_per_request = [true]'), "whole numbers from 1 to 200"),
        (recipe_text('tier = "batch"\ntruncate_to = [8]'), "from 16 to 1000000, or 0 for the whole text"),
        (recipe_text('tier = "batch"\nkeep = ["middle"]'), "head, tail, head+tail, recent"),
        (recipe_text('tier = "batch"\ncompress_rate = [0]'), "from 0.1 to 1"),
        (recipe_text('tier = "batch"\ngrade = ["yes"]'), "true, false"),
        (recipe_text('tier = "batch"\nmodel = [""]'), "names of models"),
        (recipe_text(rest='[[evidence]]\nlever = "luck"'), "evidence[1].lever is 'luck'; allowed: packing, combining"),
        (recipe_text(rest='[[evidence]]\nlever = "packing"\nlabel_change = 20\nsource = "x"'), "number from 0 to 1"),
        (recipe_text(rest='[[evidence]]\nlever = "packing"\nlabel_change = nan\nsource = "x"'), "number from 0 to 1"),
        (recipe_text(rest='[[evidence]]\nlever = "packing"\nlabel_change = 0.2'), "evidence[1].source is missing"),
        (
            recipe_text(rest='[[evidence]]\nlever = "packing"\nlabel_change = 0.2\nsource = "x"\nwhen = { n = 3 }'),
            "evidence[1].when.n is not a number a strategy has",
        ),
        (
            recipe_text(
                rest='[[evidence]]\nlever = "packing"\nlabel_change = 0.2\nsource = "x"\n'
                "when = { conversations_per_request = [9, 2] }"
            ),
            "the lowest and the highest",
        ),
        (recipe_text(rest="evidence = 3").replace("evidence", "x"), "grid.x is not known"),
        ('evidence = 3\nname = "mine"\nsummary = "x"\n[grid]\ntier = "batch"', "evidence is not a list of tables"),
    ],
)
def test_a_bad_recipe_names_file_key_and_what_is_allowed(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(BadStrategy) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_grid_may_not_explode(tmp_path: Path) -> None:
    grid = f'tier = "batch"\nconversations_per_request = {list(range(1, 26))}\ntruncate_to = {list(range(16, 37))}'
    with pytest.raises(BadStrategy, match=r"has 525 points, more than 500"):
        load(write(tmp_path, recipe_text(grid)))


def test_an_unknown_name_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(BadStrategy, match=r"There is no strategy 'batched'; there are: background, batch"):
        find(["batched"])
    with pytest.raises(BadStrategy, match=r"gone\.toml: no such recipe file"):
        find([tmp_path / "gone.toml"])


def test_an_unreadable_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").mkdir()
    with pytest.raises(BadStrategy, match="can't be read"):
        load(tmp_path / "mine.toml")
    latin = tmp_path / "latin.toml"
    latin.write_bytes('name = "latín"'.encode("latin-1"))
    with pytest.raises(BadStrategy, match="not UTF-8"):
        load(latin)


def test_networks_are_named_and_no_recipe() -> None:
    with pytest.raises(BadStrategy, match=r"there are: .*, distilled, "):
        find(["distiled"])
    with pytest.raises(BadStrategy, match="certified by distill"):
        find(["distilled"])
