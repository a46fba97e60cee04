"""Splits by object id: stable, written to disk, and refusing leakage."""

from __future__ import annotations

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_astro.data.galaxies import GalaxySet
from priorscope_astro.data.splits import Splits, make_splits, refuse_sky_leakage, sky_groups

IDS = [f"galaxy{number}" for number in range(4000)]


def test_shares_are_as_asked_and_disjoint():
    splits = make_splits(IDS, validation=0.1, test=0.25, seed=1)
    parts = {split: splits.ids(split) for split in ("train", "validation", "test")}
    assert sorted(name for ids in parts.values() for name in ids) == sorted(IDS)
    for split, share in (("train", 0.65), ("validation", 0.1), ("test", 0.25)):
        assert abs(len(parts[split]) / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5


def test_a_longer_or_shuffled_catalogue_moves_nobody():
    few = make_splits(IDS[:100])
    many = make_splits(IDS[::-1])
    assert all(many.of_id[name] == split for name, split in few.of_id.items())
    assert make_splits(IDS[:100], seed=1).of_id != few.of_id
    assert few.digest() != make_splits(IDS[:100], seed=1).digest()
    assert few.digest() == make_splits(IDS[:100][::-1]).digest()


@pytest.mark.parametrize("name", ["splits.ecsv", "splits.csv", "splits.fits", "splits.vot"])
def test_there_and_back(tmp_path, name):
    splits = make_splits(["587722981741363294", "587722981741363295", "12"], validation=0.3, test=0.3)
    assert Splits.read(splits.write(tmp_path / name)) == splits
    with pytest.raises(InputError, match="exists already"):
        splits.write(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("object_id,split\na,train\na,test\n", "object a is there 2 times"),
        ("object_id,split\na,train\nb,valid\n", "object b: there is no split 'valid'.*Did you mean 'validation'"),
        ("object_id,part\na,train\n", "no column 'split'"),
        ("name,split\na,train\n", "no column of object ids"),
    ],
)
def test_files_that_are_wrong(tmp_path, text, said):
    path = tmp_path / "splits.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        Splits.read(path)


def test_leakage_is_refused():
    splits = Splits({"a": "train", "b": "test", "c": "validation", "d": "train"})
    splits.guard(["a", "d"])
    splits.guard(["a", "c"], ("train", "validation"))
    with pytest.raises(InputError, match=r"references: object b belongs to the test split.*2 of 3 leak"):
        splits.guard(["a", "b", "c"], what="references")
    with pytest.raises(InputError, match="object e belongs to no split"):
        splits.guard(["a", "e"])
    with pytest.raises(InputError, match="no split 'training'"):
        splits.guard(["a"], ("training",))
    galaxies = GalaxySet(("d", "b", "a"))
    assert galaxies.of_split(splits, "train").ids == ("d", "a")
    with pytest.raises(InputError, match="belongs to no split"):
        GalaxySet(("a", "x")).of_split(splits, "train")


@pytest.mark.parametrize("shares", [{"test": 1.0}, {"validation": -0.1}, {"test": 0.6, "validation": 0.4}])
def test_shares_that_cannot_be(shares):
    with pytest.raises(InputError, match="shares of validation and test"):
        make_splits(IDS[:3], **shares)


def test_one_place_of_the_sky_is_one_object():
    ra = np.array([10.0, 10.0 + 1.0 / 3600, 10.0 + 10.0 / 3600, 359.99999, 0.00001, 200.0])
    dec = np.array([0.0, 0.0, 0.0, 60.0, 60.0, -90.0])
    groups = sky_groups(ra, dec)
    assert groups.tolist() == [0, 0, 2, 3, 3, 5]
    ids = list("abcdef")
    splits = Splits(dict(zip(ids, ["train", "test", "test", "train", "train", "train"], strict=True)))
    with pytest.raises(InputError, match=r"a \(train\) and b \(test\) are the same place"):
        refuse_sky_leakage(splits, ids, ra, dec)
    for seed in range(20):
        refuse_sky_leakage(make_splits(ids, test=0.4, validation=0, seed=seed, groups=groups), ids, ra, dec)
    for radius in (0, -1, np.nan):
        with pytest.raises(InputError, match="radius"):
            sky_groups(ra, dec, radius=radius)
    for wrong in (np.array([np.nan] * 6), np.array([91.0] * 6), np.zeros(5)):
        with pytest.raises(InputError, match="finite positions"):
            sky_groups(ra, wrong)
