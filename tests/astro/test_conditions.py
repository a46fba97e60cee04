"""Conditions: the Galaxy Zoo 2 tree, shares, tags, vectors, and real vote rows."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

from priorscope.errors import InputError
from priorscope_astro.conditions.condition import CONDITION_SIZE, Condition
from priorscope_astro.conditions.cuts import Cuts
from priorscope_astro.conditions.emphasis import emphasis_runs
from priorscope_astro.conditions.galaxy10 import CLASSES, galaxy10_condition
from priorscope_astro.conditions.tree import (
    ANSWER,
    ANSWERS,
    ANSWERS_OF,
    ASKED_AFTER,
    QUESTIONS,
    SLICES,
    nearest,
    path_to,
)
from priorscope_astro.conditions.votes import GALAXY_DATASETS, VoteTable

SMOOTH, FEATURES, STAR = ANSWERS_OF["t01_smooth_or_features"]


def hart(counts, **changes):
    """A row of the published table with these votes (answer -> votes), all shares consistent."""
    row = {}
    for question in QUESTIONS:
        total = sum(counts.get(answer, 0) for answer in ANSWERS_OF[question])
        for answer in ANSWERS_OF[question]:
            votes = counts.get(answer, 0)
            row[f"{answer}_count"] = votes
            for kind in ("fraction", "weighted_fraction", "debiased"):
                row[f"{answer}_{kind}"] = votes / total if total else 0.0
    row["total_votes"] = sum(counts.values())
    row["total_classifications"] = sum(counts.get(answer, 0) for answer in (SMOOTH, FEATURES, STAR))
    return row | changes


SPIRAL = hart(
    {
        SMOOTH: 4,
        FEATURES: 36,
        "t02_edgeon_a04_yes": 2,
        "t02_edgeon_a05_no": 34,
        "t03_bar_a06_bar": 10,
        "t03_bar_a07_no_bar": 24,
        "t04_spiral_a08_spiral": 30,
        "t04_spiral_a09_no_spiral": 4,
        "t05_bulge_prominence_a12_obvious": 34,
        "t06_odd_a14_yes": 4,
        "t06_odd_a15_no": 36,
        "t07_rounded_a17_in_between": 4,
        "t08_odd_feature_a19_ring": 4,
        "t09_bulge_shape_a25_rounded": 2,
        "t10_arms_winding_a28_tight": 6,
        "t10_arms_winding_a30_loose": 24,
        "t11_arms_number_a32_2": 30,
    }
)


@pytest.fixture(scope="session")
def stripe82(shared_data):
    """Columns of the first 3000 rows of the published table 5."""
    path = shared_data("astro") / "gz2_table5_stripe82_first3000.csv.gz"
    with gzip.open(path, "rt") as text:
        names = text.readline().strip().split(",")
        wanted = [place for place, name in enumerate(names) if name not in ("objid", "sample")]
        values = np.loadtxt(text, delimiter=",", usecols=wanted)
    return {names[place]: values[:, column] for column, place in enumerate(wanted)}


def test_the_tree_is_that_of_the_published_columns(stripe82):
    columns = [name.removesuffix("_debiased") for name in stripe82 if name.endswith("_debiased")]
    assert tuple(columns) == ANSWERS
    assert len(QUESTIONS) == 11
    assert all(answer.startswith(f"{ANSWER[answer].question}_a") for answer in ANSWERS)
    assert list(path_to("t10_arms_winding")) == ["t01_smooth_or_features", "t02_edgeon", "t04_spiral"]
    assert [name for question in QUESTIONS for name in ANSWERS[SLICES[question]]] == list(ANSWERS)


def test_no_wording_means_two_answers():
    wordings = [tag for answer in ANSWER.values() for tag in (answer.tag, *answer.also)]
    assert len(set(wordings)) == len(wordings)


def test_vector_there_and_back():
    condition = Condition({"t01_smooth_or_features": (0.25, 0.75, 0), "t04_spiral": (1, 0)})
    vector = condition.to_vector()
    assert vector.shape == (CONDITION_SIZE,)
    assert CONDITION_SIZE == 74
    assert vector.dtype == np.float32
    assert vector[:3].tolist() == [0.25, 0.75, 0]
    assert vector[37:].sum() == 3 + 2
    assert vector[37 + ANSWERS.index("t04_spiral_a09_no_spiral")] == 1
    assert Condition.from_vector(vector) == condition
    assert not Condition().to_vector().any()
    assert Condition.from_vector(np.zeros(74)) == Condition()


def test_tags_fill_in_what_they_imply():
    condition = Condition.from_tags("sdss, loosely wound spiral arms, {dust lane:1.3}")
    assert condition.survey == "sdss"
    assert condition.fractions["t01_smooth_or_features"] == (0, 1, 0)
    assert condition.fractions["t02_edgeon"] == (0, 1)
    assert condition.fractions["t04_spiral"] == (1, 0)
    assert condition.fractions["t06_odd"] == (1, 0)
    assert condition.share("t08_odd_feature_a38_dust_lane") == 1
    assert condition.share("t03_bar_a06_bar") is None
    assert condition.emphasis == {"t08_odd_feature_a38_dust_lane": 1.3}
    assert "{dust lane:1.3}" in condition.tags()
    assert Condition.from_tags(condition.tags(vocabulary="all")) == condition


def test_an_odd_feature_alone_does_not_say_smooth_or_features():
    assert Condition.from_tags("dust lane").known == ("t06_odd", "t08_odd_feature")


def test_two_odd_features_share_the_votes():
    condition = Condition.from_tags("merger, dust lane")
    assert condition.share("t08_odd_feature_a24_merger") == 0.5
    assert condition.tag_list() == ["something odd", "merger", "dust lane"]


@pytest.mark.parametrize("answer", ANSWERS)
def test_every_answer_has_a_tag_that_is_read_back(answer):
    condition = Condition.from_tags(ANSWER[answer].tag)
    assert condition.share(answer) == 1
    assert Condition.from_tags(condition.tags(vocabulary="all")) == condition
    assert Condition.from_json(condition.to_json()) == condition
    assert Condition.from_vector(condition.to_vector()) == condition


def test_only_published_tags_where_those_are_asked_for():
    condition = Condition.from_tags("no bar, spiral galaxy, with boxy edge-on bulge", extrapolate=True)
    assert "no bar" not in condition.tags()
    assert "no bar" in condition.tags(vocabulary="all")


def test_tags_need_agreement():
    condition = Condition({"t07_rounded": (0.55, 0.45, 0)})
    assert condition.tag_list() == ["completely round galaxy"]
    assert condition.tag_list(agreement=0.6) == []
    assert Condition({"t07_rounded": (0.5, 0.5, 0)}).tag_list() == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sdss, spiral galxy", "Did you mean 'spiral galaxy'"),
        ("completely round galaxy, spiral galaxy", "contradict"),
        ("smooth, 2 spiral arms", "implies 'features or disk-shaped'"),
        ("edge-on galaxy, tightly wound spiral arms", "implies 'not edge-on'"),
        ("smooth, features or disk-shaped", "contradict each other"),
        ("nothing odd, dust lane", "implies 'something odd'"),
        ("sdss, hubble", "two surveys"),
        ("{dust lane:1.3", "without its '}'"),
        ("dust lane}", "without its '{'"),
        ("{dust lane:0}", "weight 0"),
    ],
)
def test_tags_that_cannot_be(text, said):
    with pytest.raises(InputError, match=said.replace("{", r"\{").replace("}", r"\}")):
        Condition.from_tags(text)


def test_extrapolating_gives_contradictions_equal_shares():
    condition = Condition.from_tags("completely round galaxy, spiral galaxy", extrapolate=True)
    assert condition.fractions["t01_smooth_or_features"] == (0.5, 0.5, 0)
    assert condition.extrapolate
    assert Condition.from_json(condition.to_json()) == condition


@pytest.mark.parametrize(
    ("fractions", "said"),
    [
        ({"t04_spiral": (0.6, 0.6)}, "sum 1"),
        ({"t04_spiral": (1.5, -0.5)}, "sum 1"),
        ({"t04_spiral": (float("nan"), 1)}, "sum 1"),
        ({"t04_spiral": (1, 0, 0)}, "2 answers"),
        ({"t04_spiral": "yes"}, "no list of numbers"),
        ({"t04_spirals": (1, 0)}, "Did you mean 't04_spiral'"),
        ({"t04_spiral": (0, 1), "t10_arms_winding": (1, 0, 0)}, "no vote led to it"),
        ({"t01_smooth_or_features": (1, 0, 0), "t04_spiral": (1, 0)}, "no vote led to it"),
        ({"t07_rounded": (1, 0, 0), "t04_spiral": (1, 0)}, "follow different answers"),
        ({"t09_bulge_shape": (1, 0, 0), "t03_bar": (1, 0)}, "follow different answers"),
    ],
)
def test_shares_that_cannot_be(fractions, said):
    with pytest.raises(InputError, match=said):
        Condition(fractions)


def test_what_the_tree_forbids_is_allowed_by_name():
    fractions = {"t07_rounded": (1, 0, 0), "t04_spiral": (1, 0)}
    forbidden = Condition(fractions, extrapolate=True).to_vector()
    with pytest.raises(InputError, match="follow different answers"):
        Condition.from_vector(forbidden)
    assert Condition.from_vector(forbidden, extrapolate=True).known == ("t04_spiral", "t07_rounded")


def test_divided_votes_may_lead_both_ways():
    condition = Condition({"t01_smooth_or_features": (0.5, 0.5, 0), "t07_rounded": (1, 0, 0), "t02_edgeon": (0, 1)})
    assert condition.known == ("t01_smooth_or_features", "t02_edgeon", "t07_rounded")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v[:-1], "74 finite numbers"),
        (lambda v: np.where(v == 1, np.nan, v), "74 finite numbers"),
        (lambda v: np.concatenate([v[:73], [1]]), "all be 0 or all be 1"),
        (lambda v: np.concatenate([v[:37], v[37:] * 0.5]), "all be 0 or all be 1"),
        (lambda v: np.concatenate([v[:37] * 0.5, v[37:]]), "sum 1"),
    ],
)
def test_vectors_that_cannot_be(change, said):
    with pytest.raises(InputError, match=said):
        Condition.from_vector(change(Condition.from_tags("spiral galaxy").to_vector()))


def test_emphasis_of_the_published_prompts(golden_files):
    cases = json.loads(golden_files("astro_accel", "misc*.json")[0].read_text())["prompt_weights"]
    assert len(cases) >= 7
    for case in cases:
        runs = emphasis_runs(case["prompt"])
        assert "".join(text for text, _ in runs) == case["clean"]
        assert {weight for text, weight in runs if text.strip(" ,")} == set(case["per_token"])


def test_published_rare_prompts_are_read(golden_files):
    cases = json.loads(golden_files("astro_accel", "misc*.json")[0].read_text())["prompt_weights"]
    read = [Condition.from_tags(case["prompt"]) for case in cases if case["prompt"].startswith("sdss")]
    assert len(read) >= 5
    assert read[2].emphasis == {"t07_rounded_a16_completely_round": 1.3, "t08_odd_feature_a38_dust_lane": 1.3}


def test_votes_become_shares_of_the_well_sampled_questions():
    condition = Condition.from_votes(SPIRAL, survey="sdss")
    assert condition.known == (
        "t01_smooth_or_features",
        "t02_edgeon",
        "t03_bar",
        "t04_spiral",
        "t05_bulge_prominence",
        "t06_odd",
        "t10_arms_winding",
        "t11_arms_number",
    )
    assert condition.share("t10_arms_winding_a30_loose") == pytest.approx(0.8)
    assert condition.tags() == (
        "sdss, features or disk-shaped, spiral galaxy, obvious bulge prominence, loosely wound spiral arms, "
        "2 spiral arms"
    )


def test_cuts_are_data(tmp_path):
    assert Cuts.read("majority").verified
    assert not Cuts.read("willett13").verified
    for name in ("majority", "willett13"):
        assert set(Cuts.read(name).above) == set(QUESTIONS[1:])
    own = {"name": "own", "source": "test", "verified": True, "minimum_votes": 1, "questions": {}}
    path = tmp_path / "cuts.json"
    path.write_text(json.dumps(own))
    assert "t07_rounded" in Condition.from_votes(SPIRAL, cuts=Cuts.read(path)).known
    for change, said in [
        ({"questions": {"t04": []}}, "no question"),
        ({"questions": {"t04_spiral": [{"answers": ["t02_edgeon_a05"], "above": 0.5}]}}, "Did you mean"),
        ({"questions": {"t04_spiral": [{"answers": ["t02_edgeon_a05_no"], "above": 50}]}}, "does not lie in"),
        ({"minimum_votes": None}, "no table of cuts"),
    ]:
        path.write_text(json.dumps(own | change))
        with pytest.raises(InputError, match=said):
            Cuts.read(path)
    with pytest.raises(InputError, match="Did you mean 'majority'"):
        Cuts.read("majorities")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"t04_spiral_a08_spiral_debiased": 0.05, "t04_spiral_a09_no_spiral_debiased": 0.05}, "sum to 0.100"),
        ({"total_votes": 17}, "total_votes is 17"),
        ({"total_classifications": 41}, "its counts sum to 40"),
        ({"t01_smooth_or_features_a01_smooth_count": -4}, "is -4"),
        ({"t01_smooth_or_features_a01_smooth_count": 3.5}, "whole number"),
        ({"t01_smooth_or_features_a01_smooth_debiased": float("nan")}, "nan"),
        ({"t01_smooth_or_features_a01_smooth_debiased": "much"}, "does not hold numbers"),
        (
            {"t09_bulge_shape_a26_boxy_count": 30, "total_votes": SPIRAL["total_votes"] + 30},
            "t09_bulge_shape has 32 votes, but only 2 led to it",
        ),
    ],
)
def test_votes_that_do_not_sum(change, said):
    with pytest.raises(InputError, match=said):
        Condition.from_votes(SPIRAL | change)


def test_a_message_lists_a_few_words():
    assert nearest("bra", ("bar", "ring")) == "Did you mean 'bar'?"
    assert nearest("x", ("bar", "ring")) == "Known: bar, ring."
    assert nearest("x", [f"column{row}" for row in range(228)]).endswith("column19 and 208 more.")


def test_a_missing_column_is_named_with_the_nearest():
    row = dict(SPIRAL)
    row["t04_spiral_a08_spirals_count"] = row.pop("t04_spiral_a08_spiral_count")
    with pytest.raises(InputError, match=r"no column 't04_spiral_a08_spiral_count'.*a08_spirals_count"):
        Condition.from_votes(row)


def test_raw_shares_must_sum_exactly():
    assert Condition.from_votes(SPIRAL, kind="fraction").share(FEATURES) == pytest.approx(0.9)
    with pytest.raises(InputError, match="fraction shares of t01"):
        Condition.from_votes(SPIRAL | {f"{FEATURES}_fraction": 0.85}, kind="fraction")


def test_galaxy_datasets_counts_give_the_same_condition():
    columns = {}
    for question, (name, answers) in GALAXY_DATASETS.items():
        for answer, theirs in zip(ANSWERS_OF[question], answers, strict=True):
            columns[f"{name}_{theirs}"] = [SPIRAL[f"{answer}_count"]]
    assert len(columns) == 30
    assert VoteTable.from_columns(columns).condition(0) == Condition.from_votes(SPIRAL)


def test_real_votes(stripe82):
    table = VoteTable.from_columns(stripe82)
    vectors = table.vectors()
    assert vectors.shape == (3000, 74)
    rows = [Condition.from_vector(vector, survey="sdss") for vector in vectors[:200]]  # valid, each of them
    for row in range(200):
        np.testing.assert_array_equal(rows[row].to_vector(), table.condition(row).to_vector())
    votes = table.question_votes
    known = table.well_sampled()
    assert (votes[known] >= 10).all()
    assert known.any(0).all()  # each question is well sampled somewhere in the 3000
    shares = table.normalised()
    for place, question in enumerate(QUESTIONS):
        np.testing.assert_allclose(shares[known[:, place], SLICES[question]].sum(1), 1)
    for kind in ("fraction", "weighted_fraction"):
        VoteTable.from_columns(stripe82, kind=kind)
    # Captions of real rows, read back, say the same answers.
    for row in range(200):
        condition = table.condition(row, survey="sdss")
        again = Condition.from_tags(condition.tags(agreement=0.6, vocabulary="all"), extrapolate=True)
        for question in condition.known:
            if max(condition.fractions[question]) >= 0.6 and max(again.fractions[question]) == 1:
                assert again.most_likely(question) == condition.most_likely(question)


def test_shifted_columns_of_the_real_table_are_noticed(stripe82):
    names = list(stripe82)
    shifted = {name: stripe82[names[(place + 1) % len(names)]] for place, name in enumerate(names)}
    with pytest.raises(InputError):
        VoteTable.from_columns(shifted)


def test_galaxy10_classes(shared_data):
    tiles = sorted((shared_data("astro") / "galaxy10_decals_tiles").glob("*.png"))
    assert [tile.stem.split("_", 1)[1].replace("_", " ") for tile in tiles] == list(CLASSES)
    vectors = np.stack([galaxy10_condition(number).to_vector() for number in range(10)])
    assert len(np.unique(vectors, axis=0)) == 10
    assert galaxy10_condition("Barred Spiral").share("t03_bar_a06_bar") == 1
    with pytest.raises(InputError, match="Did you mean 'Merging'"):
        galaxy10_condition("Merging galaxy")
    with pytest.raises(InputError, match="0 to 9"):
        galaxy10_condition(10)


@st.composite
def walks(draw):
    """Votes of volunteers who walk the tree: whole, and consistent by themselves."""
    counts = dict.fromkeys(ANSWERS, 0)
    came = dict.fromkeys(QUESTIONS, 0)
    came[QUESTIONS[0]] = draw(st.integers(0, 60))
    for question in sorted(QUESTIONS, key=lambda name: len(path_to(name))):
        if ASKED_AFTER[question]:
            came[question] = sum(counts[answer] for answer in ASKED_AFTER[question])
        left = came[question]
        for answer in ANSWERS_OF[question][:-1]:
            counts[answer] = draw(st.integers(0, left))
            left -= counts[answer]
        counts[ANSWERS_OF[question][-1]] = left
    return counts


@settings(max_examples=60, deadline=None)
@given(walks())
def test_any_walk_through_the_tree_is_a_valid_condition(counts):
    condition = Condition.from_votes(hart(counts))
    again = Condition.from_vector(condition.to_vector())
    assert again.known == condition.known
    np.testing.assert_array_equal(again.to_vector(), condition.to_vector())
    assert Condition.from_json(condition.to_json()) == condition
    for question in condition.known:
        assert sum(counts[answer] for answer in ANSWERS_OF[question]) >= 10
        best = condition.most_likely(question)
        assert counts[best] == max(counts[answer] for answer in ANSWERS_OF[question])
    Condition.from_tags(condition.tags(vocabulary="all"))  # what a majority says never contradicts itself


def test_tags_leave_out_what_only_a_minority_was_asked():
    """Half see a star; whether something is odd was asked of the other half."""
    condition = Condition({"t01_smooth_or_features": (0.25, 0.25, 0.5), "t06_odd": (0.9, 0.1)})
    tags = condition.tags(vocabulary="all")
    assert tags
    assert "odd" not in tags
    Condition.from_tags(tags)


def test_rows_of_other_tables():
    names = list(SPIRAL)
    row = Table([[value] for value in SPIRAL.values()], names=names)[0]
    assert Condition.from_votes(row) == Condition.from_votes(SPIRAL)
    pandas = pytest.importorskip("pandas")
    assert Condition.from_votes(pandas.Series(SPIRAL)) == Condition.from_votes(SPIRAL)
