"""Plans: balance, what is drawn, no leaks, the same again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from astropy.table import QTable

from priorscope.data.members import Members
from priorscope.errors import InputError
from priorscope_astro import planning
from priorscope_astro.conditions.classes import UNCLASSIFIED, classify, read_classes
from priorscope_astro.conditions.condition import Condition
from priorscope_astro.conditions.tree import ANSWERS
from priorscope_astro.conditions.votes import VoteTable
from priorscope_astro.data.anything import read_galaxies
from priorscope_astro.data.catalogue import write_catalogue
from priorscope_astro.data.galaxies import GalaxySet, MemberPictures
from priorscope_astro.data.splits import Splits, make_splits
from priorscope_astro.labels import label
from priorscope_astro.plan import Plan, row_seed
from priorscope_astro.plan_config import PlanConfig
from priorscope_astro.planning import balance, how_many, make_plan, plan

PLACE = {name: index for index, name in enumerate(ANSWERS)}
SMOOTH = {"t01_smooth_or_features_a01_smooth": 40, "t06_odd_a15_no": 40}
DISK = {
    "t01_smooth_or_features_a02_features_or_disk": 40,
    "t02_edgeon_a05_no": 40,
    "t03_bar_a07_no_bar": 40,
    "t06_odd_a15_no": 40,
}
KINDS = {
    "round": SMOOTH | {"t07_rounded_a16_completely_round": 40},
    "spiral": DISK | {"t04_spiral_a08_spiral": 40},
    "barred": DISK | {"t04_spiral_a08_spiral": 40, "t03_bar_a07_no_bar": 5, "t03_bar_a06_bar": 35},
    "dust_lane": SMOOTH
    | {
        "t07_rounded_a17_in_between": 40,
        "t06_odd_a15_no": 10,
        "t06_odd_a14_yes": 30,
        "t08_odd_feature_a38_dust_lane": 30,
    },
}
NUMBERS = {"round": 60, "spiral": 30, "barred": 20, "dust_lane": 6}


def votes_of(kind):
    counts = np.zeros(37, np.int64)
    for answer, number in KINDS[kind].items():
        counts[PLACE[answer]] = number
    return counts


@pytest.fixture
def galaxies(tmp_path):
    """116 galaxies of four classes, by votes; their pictures are called otherwise than they."""
    kinds = [kind for kind, number in NUMBERS.items() for _ in range(number)]
    ids = tuple(f"5877229817413{row:05d}" for row in range(len(kinds)))
    (tmp_path / "images").mkdir()
    pictures = MemberPictures(Members(tmp_path / "images"), tuple(f"{row}.jpg" for row in range(len(kinds))))
    columns = {"ra": np.arange(116.0), "dec": np.zeros(116)}
    return GalaxySet(ids, pictures, votes=VoteTable.from_counts([votes_of(kind) for kind in kinds]), columns=columns)


@pytest.fixture
def labelled(galaxies):
    return label(galaxies, PlanConfig(catalogue="x"))


@pytest.fixture
def splits(galaxies):
    return make_splits(galaxies.ids)


def config(**changes):
    return PlanConfig(catalogue="x", **changes)


def test_classes_by_votes(labelled):
    assert Counter(labelled.labels) == NUMBERS
    rules = read_classes()
    few = VoteTable.from_counts(np.stack([votes_of("spiral") // 8, votes_of("round")]))
    assert classify(few, rules) == (UNCLASSIFIED, "round")  # 5 votes say nothing
    assert classify(few, rules, agreement=1.0)[1] == "round"
    with pytest.raises(InputError, match="agreement is 2"):
        classify(few, rules, agreement=2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no file of classes"),
        ('{"classes": [{"name": "a"}]}', "no file of classes"),
        ('{"classes": [{"name": "a", "tags": "spiral galxy"}]}', "Did you mean 'spiral galaxy'"),
        ('{"classes": [{"name": "a", "tags": "merger"}, {"name": "a", "tags": "smooth"}]}', "Name each once"),
        ('{"classes": []}', "called nothing"),
    ],
)
def test_files_of_classes_that_are_wrong(tmp_path, text, said):
    path = tmp_path / "classes.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_classes(path)


def test_a_file_of_classes_that_is_no_text(tmp_path):
    (tmp_path / "classes.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_classes(tmp_path / "classes.json")


def test_deficit_fills_up_to_the_largest_class(labelled, splits):
    made = make_plan(labelled, splits, config())
    train = Counter(
        label for label, name in zip(labelled.labels, labelled.ids, strict=True) if splits.of_id[name] == "train"
    )
    drawn = Counter(row.class_name for row in made.rows)
    assert {name: train[name] + drawn[name] for name in NUMBERS} == dict.fromkeys(NUMBERS, train["round"])
    rows = balance(labelled, splits, drawn)
    assert [row["class"] for row in rows] == ["round", "spiral", "barred", "dust_lane"]
    assert rows[3]["share"] == pytest.approx(6 / 116)
    assert sum(row[split] for row in rows for split in ("train", "validation", "test")) == 116


def test_numbers_to_draw():
    train = {"round": 60, "ring": 3, "spiral": 20}
    assert how_many(train, config(target=30)) == {"ring": 27, "spiral": 10}
    assert how_many(train, config(target=30, only=("ring",))) == {"ring": 27}
    assert how_many(train, config(draw="balanced", total=10)) == {"ring": 4, "round": 3, "spiral": 3}
    assert how_many(train, config(draw="counts", counts=("ring=7", "spiral=0"))) == {"ring": 7}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"draw": "counts", "counts": ("rings=7",)}, "no class 'rings'. Did you mean 'ring'"),
        ({"draw": "counts", "counts": ("ring=-7",)}, "whole number"),
        ({"draw": "counts", "counts": ("ring=²",)}, "whole number"),
        ({"draw": "counts", "counts": ("ring=7", "ring=8")}, "each class once"),
        ({"draw": "counts", "counts": ("ring",)}, "CLASS=VALUE"),
        ({"draw": "counts"}, "without --counts"),
        ({"draw": "counts", "counts": ("ring=0",)}, "nothing to draw"),
        ({"draw": "counts", "counts": ("ring=7",), "target": 3}, "do not go with"),
        ({"counts": ("ring=7",)}, "Add --draw counts"),
        ({"draw": "balanced"}, "Say how many"),
        ({"only": ("rings",)}, "Did you mean 'ring'"),
        ({"target": 2}, "nothing to draw"),
        ({"target": 10**7}, "more than --max-images"),
        ({"target": -1}, "--target -1"),
    ],
)
def test_numbers_that_cannot_be(settings, said):
    with pytest.raises(InputError, match=said):
        how_many({"round": 60, "ring": 3, "spiral": 20}, config(**settings))


def test_only_training_galaxies_are_used(labelled, splits):
    made = make_plan(labelled, splits, config(draw="counts", counts=("dust_lane=300", "round=50"), reference="class"))
    train = set(splits.ids("train"))
    of_class = dict(zip(labelled.ids, labelled.labels, strict=True))
    for row in made.rows:
        assert row.reference_id in train
        assert row.condition_id in train
        assert of_class[row.reference_id] == of_class[row.condition_id] == row.class_name
        assert row.reference_image == f"{labelled.ids.index(row.reference_id)}.jpg"
        votes = labelled.votes.condition(labelled.ids.index(row.condition_id))
        assert row.condition.fractions == votes.fractions
    assert len({row.seed for row in made.rows}) == 350


def test_a_reference_of_any_class(labelled, splits):
    made = make_plan(labelled, splits, config(draw="counts", counts=("dust_lane=200",)))
    kinds = Counter(labelled.labels[labelled.ids.index(row.reference_id)] for row in made.rows)
    assert set(kinds) == set(NUMBERS)
    made = make_plan(labelled, splits, config(draw="counts", counts=("dust_lane=5",), reference="none"))
    assert {row.reference_id for row in made.rows} == {""}


def test_the_same_again_whatever_the_order(labelled, splits, tmp_path):
    settings = config(draw="counts", counts=("dust_lane=20", "round=5"))
    made = make_plan(labelled, splits, settings)
    turned = make_plan(labelled.select(np.arange(116)[::-1]), splits, replace(settings, catalogue="elsewhere"))
    assert turned.plan_id == made.plan_id
    assert turned.rows == made.rows
    others = [
        make_plan(labelled, splits, replace(settings, seed=1)),
        make_plan(labelled, splits, replace(settings, emphasis=1.3)),
        make_plan(labelled, make_splits(labelled.ids, seed=3), settings),
        make_plan(replace(labelled, votes=VoteTable.from_counts(labelled.votes.counts // 2)), splits, settings),
    ]
    assert len({made.plan_id, *(other.plan_id for other in others)}) == 5
    path = tmp_path / "plan.ecsv"
    assert made.write(path)
    content = path.read_bytes()
    assert not made.write(path)
    assert made.write(path, overwrite=True)
    assert path.read_bytes() == content
    with pytest.raises(InputError, match="holds another plan"):
        others[0].write(path)
    assert path.read_bytes() == content


def test_there_and_back(labelled, splits, tmp_path):
    made = make_plan(labelled, splits, config(draw="counts", counts=("dust_lane=20", "spiral=3"), emphasis=1.3))
    made.write(tmp_path / "plan.ecsv")
    read = Plan.read(tmp_path / "plan.ecsv", splits=splits)
    assert read.rows == made.rows
    assert read.plan_id == made.plan_id
    assert read.meta == made.meta
    assert read.meta["classes"]["dust_lane"]["draw"] == 20
    assert read.rows[0].prompt == ("sdss, smooth, something odd, in-between round galaxy, {dust lane:1.3}")
    assert Condition.from_tags(read.rows[0].prompt).share("t08_odd_feature_a38_dust_lane") == 1
    assert read.rows[5].seed == row_seed(read.plan_id, 5) < 2**63


def test_a_plan_of_a_leaked_galaxy_is_refused(labelled, splits, tmp_path):
    made = make_plan(labelled, splits, config(draw="counts", counts=("round=10",)))
    path = tmp_path / "plan.ecsv"
    made.write(path)
    moved = dict(splits.of_id) | {made.rows[4].reference_id: "test"}
    with pytest.raises(InputError, match=rf"plan.ecsv: reference galaxies: object {made.rows[4].reference_id}.*test"):
        Plan.read(path, splits=Splits(moved))
    other = next(name for name in splits.ids("validation"))
    with pytest.raises(InputError, match="made with other splits"):
        Plan.read(path, splits=Splits(dict(splits.of_id) | {other: "test"}))
    with pytest.raises(InputError, match="belongs to no split"):
        make_plan(labelled, Splits({"1": "train"}), config())


def test_one_place_of_the_sky_in_two_splits_is_refused(labelled, splits):
    test = labelled.ids.index(splits.ids("test")[0])
    train = labelled.ids.index(splits.ids("train")[0])
    ra = labelled.columns["ra"].copy()
    ra[test] = ra[train]
    leaky = replace(labelled, columns={"ra": ra, "dec": labelled.columns["dec"]})
    with pytest.raises(InputError, match="the same place of the sky"):
        make_plan(leaky, splits, config())
    make_plan(leaky, splits, config(sky_radius=0))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.remove_column("seed"), "no column 'seed'"),
        (lambda t: t.__setitem__("seed", t["seed"] + 1), "row 0: the seed"),
        (lambda t: t.reverse(), "not numbered"),
        (lambda t: t.remove_row(2), "not numbered"),
        (lambda t: t["condition"].__setitem__(3, "{}"), "row 3: .* is no condition"),
        (lambda t: t["condition"].__setitem__(3, '{"fractions": {}, "emphasis": [1]}'), "row 3: .* is no condition"),
        (lambda t: t["condition"].__setitem__(3, '{"fractions": {}, "emphasis": {"a": "b"}}'), "is no condition"),
        (lambda t: t["split"].__setitem__(3, "test"), "several plans or splits"),
        (lambda t: t.meta.update(plan_version=0), "version 0"),
    ],
)
def test_plans_that_were_edited(labelled, splits, tmp_path, change, said):
    made = make_plan(labelled, splits, config(draw="counts", counts=("round=10",)))
    made.write(tmp_path / "plan.ecsv")
    table = QTable.read(tmp_path / "plan.ecsv", format="ascii.ecsv")
    change(table)
    write_catalogue(table, tmp_path / "edited.ecsv")
    with pytest.raises(InputError, match=said):
        Plan.read(tmp_path / "edited.ecsv")


def test_what_an_image_is_told(labelled, splits):
    counts = {"draw": "counts", "counts": ("dust_lane=2",)}
    tags = make_plan(labelled, splits, config(condition="tags", emphasis=1.3, survey="", **counts))
    assert tags.rows[0].prompt == "something odd, {dust lane:1.3}"
    assert tags.rows[0].condition_id == ""
    text = make_plan(
        labelled, splits, config(condition="text", prompts=("dust_lane=an edge-on {dusty:1.2} galaxy",), **counts)
    )
    assert text.rows[0].prompt == "an edge-on {dusty:1.2} galaxy"
    assert not text.rows[0].condition.to_vector().any()
    for settings, said in [
        ({"condition": "text"}, "says nothing of the class dust_lane"),
        ({"condition": "text", "prompts": ("dust_lane={a",)}, "without its '}'"),
        ({"condition": "text", "prompts": ("dust_lane=a", "dust_lanes=a")}, "Did you mean 'dust_lane'"),
        ({"prompts": ("dust_lane=a",)}, "goes with --condition text"),
        ({"survey": "sds"}, "Did you mean 'sdss'"),
    ]:
        with pytest.raises(InputError, match=said):
            make_plan(labelled, splits, config(**(counts | settings)))


def test_classes_of_a_column(galaxies, splits, tmp_path):
    """A FITS catalogue of ids and classes, without votes."""
    table = QTable({"object_id": np.array(galaxies.ids), "kind": np.array(["ring", "blob"] * 58)})
    path = write_catalogue(table, tmp_path / "c.fits")
    read = read_galaxies(path, label_column="kind")
    made = make_plan(read, splits, config(draw="counts", counts=("ring=3",), survey="hubble"))
    assert made.rows[0].prompt == "hubble, something odd, ring galaxy"
    with pytest.raises(InputError, match="no tags are known for the class 'blob'"):
        make_plan(read, splits, config(draw="counts", counts=("blob=3",)))
    with pytest.raises(InputError, match="has no votes"):
        make_plan(read, splits, config(draw="counts", counts=("ring=3",), condition="votes"))
    with pytest.raises(InputError, match="neither votes nor a named column"):
        read_galaxies(path)
    with pytest.raises(InputError, match="Did you mean 'kind'"):
        read_galaxies(path, label_column="kinds")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"condition": "text", "prompts": ("ring=a",), "emphasis": 1.3}, "--emphasis 1.3 with --condition text"),
        ({"condition": "text", "prompts": ("ring=a",), "survey": "candels"}, "--survey candels with --condition text"),
        ({"classes": "gz2", "class_column": "kind"}, "--classes gz2 changes nothing: --class-column kind says"),
    ],
)
def test_what_changes_nothing_is_refused(labelled, splits, settings, said):
    with pytest.raises(InputError, match=said):
        make_plan(labelled, splits, config(draw="counts", counts=("ring=1",), **settings))


@pytest.mark.parametrize("option", ["validation", "test"])
def test_shares_of_splits_that_are_there_are_refused(labelled, splits, tmp_path, monkeypatch, option):
    monkeypatch.setattr(planning, "load", lambda config: labelled)
    splits.write(tmp_path / "splits.ecsv")
    with pytest.raises(InputError, match=f"--{option} 0.3 with --splits"):
        plan(config(out=tmp_path / "plan.ecsv", splits=tmp_path / "splits.ecsv", **{option: 0.3}))


def test_a_table_of_true_answers_is_no_table_of_votes(simulated_survey):
    """truth.csv has the question's column, and its classes are in another."""
    truth = read_galaxies(simulated_survey / "truth.csv", label_column="class")
    assert truth.votes is None
    assert truth.labels == read_galaxies(simulated_survey, mode="flux").labels


def test_a_class_that_the_catalogue_lacks_can_be_asked_for(labelled, splits, tmp_path):
    counts = {"draw": "counts", "counts": ("ring=3",)}
    made = make_plan(labelled, splits, config(condition="tags", **counts))
    assert made.rows[0].condition.share("t08_odd_feature_a19_ring") == 1
    assert made.meta["classes"]["ring"] == {"train": 0, "draw": 3}
    with pytest.raises(InputError, match="there is no class 'ring'"):
        make_plan(labelled, splits, config(**counts))
    drawn = {row.class_name for row in make_plan(labelled, splits, config(condition="tags")).rows}
    assert "ring" not in drawn  # nor is it, unless it is asked for


def test_what_the_tree_forbids_only_by_name(labelled, splits, tmp_path):
    path = tmp_path / "classes.json"
    path.write_text('{"classes": [{"name": "smooth_spiral", "tags": "completely round galaxy, spiral galaxy"}]}')
    settings = config(classes=str(path), condition="tags", draw="counts", counts=("smooth_spiral=2",))
    with pytest.raises(InputError, match="contradicts"):
        make_plan(labelled, splits, settings)
    made = make_plan(labelled, splits, replace(settings, extrapolate=True))
    assert made.rows[0].condition.fractions["t01_smooth_or_features"] == (0.5, 0.5, 0)
    made.write(tmp_path / "plan.ecsv")
    assert Plan.read(tmp_path / "plan.ecsv").rows == made.rows


def test_a_class_without_training_galaxies(labelled):
    bad = Splits(
        {
            name: "test" if kind == "dust_lane" else "train"
            for name, kind in zip(labelled.ids, labelled.labels, strict=True)
        }
    )
    counts = {"draw": "counts", "counts": ("dust_lane=2",)}
    with pytest.raises(InputError, match="no training galaxy that could lend its votes"):
        make_plan(labelled, bad, config(**counts))
    with pytest.raises(InputError, match="no training galaxy to start from"):
        make_plan(labelled, bad, config(condition="tags", reference="class", **counts))
    assert len(make_plan(labelled, bad, config(condition="tags", **counts))) == 2


def test_the_command_on_a_simulated_survey(simulated_survey, tmp_path, capsys):
    settings = PlanConfig(catalogue=simulated_survey, out=tmp_path / "plan.ecsv", class_column="gz2_class", target=30)
    assert plan(settings) == 0
    shown = capsys.readouterr().out
    assert "dust_lane" in shown
    content = (tmp_path / "plan.ecsv").read_bytes()
    made = Plan.read(tmp_path / "plan.ecsv", splits=Splits.read(tmp_path / "splits.ecsv"))
    survey = read_galaxies(simulated_survey, label_column="gz2_class")
    files = {row.reference_id: row.reference_image for row in made.rows}
    assert files
    for name, file in files.items():
        assert survey.picture_names[survey.ids.index(name)] == file
    assert plan(settings) == 0
    assert "was there already" in capsys.readouterr().out
    assert (tmp_path / "plan.ecsv").read_bytes() == content
    with pytest.raises(InputError, match="holds another plan"):
        plan(replace(settings, target=31))


def test_nothing_is_left_where_the_plan_cannot_be_written(galaxies, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "load", lambda config: galaxies)
    with pytest.raises(InputError, match=r"ends in \.ecsv"):
        plan(config(out=tmp_path / "new" / "plan.csv"))
    assert not (tmp_path / "new").exists()


def test_other_rules_of_the_same_name_are_another_plan(labelled, splits, tmp_path):
    """Two images may not have one id and seed."""
    path = tmp_path / "classes.json"
    made = []
    for tags in ("ring galaxy", "merger"):
        path.write_text(json.dumps({"classes": [{"name": "odd", "tags": tags}]}))
        settings = config(classes=str(path), condition="tags", draw="counts", counts=("odd=1",))
        made.append(make_plan(labelled, splits, settings))
    assert made[0].rows[0].prompt != made[1].rows[0].prompt
    assert made[0].plan_id != made[1].plan_id


def test_a_survey_as_pictures_and_as_flux(simulated_survey):
    pictures = read_galaxies(simulated_survey, label_column="gz2_class")
    flux = read_galaxies(simulated_survey, mode="flux")
    assert flux.ids == pictures.ids
    assert flux.labels == pictures.labels
    assert flux.votes.counts.tolist() == pictures.votes.counts.tolist()
    assert pictures.image(3).shape == (48, 48, 3)
    assert flux.image(3).shape == (3, 48, 48)


def test_real_votes_are_planned(shared_data, tmp_path):
    table = shared_data("astro") / "gz2_table5_stripe82_first3000.csv.gz"
    settings = PlanConfig(catalogue=table, out=tmp_path / "plan.ecsv", target=150)
    assert plan(settings) == 0
    made = Plan.read(tmp_path / "plan.ecsv", splits=Splits.read(tmp_path / "splits.ecsv"))
    assert len(made) > 100
    for row in made.rows[:200]:
        Condition.from_vector(row.condition.to_vector())
        assert row.prompt.startswith("sdss, ")


def test_cuts_that_nobody_checked_are_said_to_be_so(shared_data, tmp_path, capsys):
    table = shared_data("astro") / "gz2_table5_stripe82_first3000.csv.gz"
    plan(PlanConfig(catalogue=table, out=tmp_path / "plan.ecsv", only=("edge_on",), cuts="willett13"))
    assert "willett13 are not verified" in capsys.readouterr().out


def test_the_settings_need_neither_torch_nor_astropy():
    code = "import sys, priorscope_astro.plan_config; sys.exit('torch' in sys.modules or 'astropy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
