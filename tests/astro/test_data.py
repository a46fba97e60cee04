"""Loaders of galaxies: catalogues, stamps, the published layouts in miniature, and the real samples."""

from __future__ import annotations

import io
import pickle
import shutil
import warnings
import zipfile

import astropy.units as u
import h5py
import numpy as np
import pyarrow
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.io.votable import parse as parse_votable
from astropy.table import MaskedColumn, QTable
from PIL import Image
from pyarrow import parquet

from priorscope.errors import InputError
from priorscope_astro.conditions.condition import Condition
from priorscope_astro.conditions.galaxy10 import CLASSES
from priorscope_astro.conditions.tree import ANSWERS, ANSWERS_OF, QUESTIONS
from priorscope_astro.conditions.votes import GALAXY_DATASETS
from priorscope_astro.data.anything import read_galaxies
from priorscope_astro.data.catalogue import read_catalogue, write_catalogue
from priorscope_astro.data.fits_stamps import read_fits_stamps
from priorscope_astro.data.galaxies import GalaxySet
from priorscope_astro.data.galaxy10 import read_galaxy10
from priorscope_astro.data.galaxy_datasets import read_galaxy_datasets
from priorscope_astro.data.gz2 import read_gz2
from priorscope_astro.data.ids import object_ids
from priorscope_astro.data.pairs import read_pairs, write_pairs
from priorscope_astro.data.splits import sky_groups
from priorscope_astro.data.stamps import check_stamp, flux_unit, read_stamps, write_stamps
from priorscope_astro.imaging.fits import write_stamp_fits

FIRST_ID = 587722981741363294


def jpeg(number, size=16):
    """A picture that tells its number: its red is 10 x number."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), (10 * number, 90, 40), np.uint8)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def counts_of(number):
    """Votes of a smooth or (odd numbers) spiral galaxy, in the tree's order."""
    votes = np.zeros(37, np.int64)
    place = {name: index for index, name in enumerate(ANSWERS)}
    if number % 2:
        for answer, count in [
            ("t01_smooth_or_features_a02_features_or_disk", 40),
            ("t02_edgeon_a05_no", 40),
            ("t03_bar_a07_no_bar", 40),
            ("t04_spiral_a08_spiral", 40),
            ("t05_bulge_prominence_a12_obvious", 40),
            ("t06_odd_a15_no", 40),
            ("t10_arms_winding_a28_tight", 40),
            ("t11_arms_number_a32_2", 40),
        ]:
            votes[place[answer]] = count
    else:
        votes[place["t01_smooth_or_features_a01_smooth"]] = 30 + number
        votes[place["t06_odd_a15_no"]] = 30 + number
        votes[place["t07_rounded_a16_completely_round"]] = 30 + number
    return votes


@pytest.fixture
def gz2(tmp_path):
    """Six galaxies in Galaxy Zoo 2's published layout; the last has no picture, the fifth no mapping."""
    counts = np.stack([counts_of(number) for number in range(6)])
    columns = {"dr7objid": [FIRST_ID + row for row in range(6)], "ra": 10.0 + np.arange(6.0), "dec": np.arange(6.0)}
    columns |= {"rastring": ["00:40:00.00"] * 6, "sample": ["original"] * 6, "gz2_class": list("EsEsEs")}
    columns |= {"total_classifications": counts[:, :3].sum(1), "total_votes": counts.sum(1)}
    for place, answer in enumerate(ANSWERS):
        question = [ANSWERS.index(name) for name in ANSWERS_OF[next(q for q in QUESTIONS if answer.startswith(q))]]
        share = counts[:, place] / np.maximum(1, counts[:, question].sum(1))
        columns |= {f"{answer}_count": counts[:, place], f"{answer}_weight": counts[:, place].astype(float)}
        columns |= {f"{answer}_{kind}": share for kind in ("fraction", "weighted_fraction", "debiased")}
        columns[f"{answer}_flag"] = (share > 0.8).astype(int)
    folder = tmp_path / "gz2"
    folder.mkdir()
    QTable(columns).write(folder / "gz2_hart16.csv", format="ascii.csv")
    rows = [(FIRST_ID + row, "original", 100 + row) for row in (3, 1, 0, 2, 5)] + [(FIRST_ID, "stripe82", 900)]
    QTable(rows=rows, names=["objid", "sample", "asset_id"]).write(
        folder / "gz2_filename_mapping.csv", format="ascii.csv"
    )
    (folder / "images").mkdir()
    for row in range(4):
        (folder / "images" / f"{100 + row}.jpg").write_bytes(jpeg(row))
    return folder


def test_gz2_layout(gz2):
    galaxies = read_gz2(gz2, label_column="gz2_class")
    assert galaxies.ids == tuple(str(FIRST_ID + row) for row in range(4))
    assert galaxies.mode == "display"
    assert galaxies.notes == (
        "1 objects are not in the file-name mapping",
        "1 objects have no picture in images",
    )
    for row in range(4):  # the mapping is in another order than the table
        assert galaxies.image(row).shape == (16, 16, 3)
        assert abs(int(galaxies.image(row)[8, 8, 0]) - 10 * row) < 4
    assert galaxies.labels == ("E", "s", "E", "s")
    assert galaxies.columns["ra"].tolist() == [10, 11, 12, 13]
    assert Condition.from_vector(galaxies.vectors()[1]).tags() == (
        "features or disk-shaped, spiral galaxy, obvious bulge prominence, tightly wound spiral arms, 2 spiral arms"
    )
    some = galaxies.by_id([str(FIRST_ID + 3), str(FIRST_ID)])
    assert abs(int(some.image(0)[8, 8, 0]) - 30) < 4
    assert some.votes.counts[1].tolist() == counts_of(0).tolist()
    assert pickle.loads(pickle.dumps(some)).image(0).tolist() == some.image(0).tolist()
    with pytest.raises(InputError, match="1 objects are not among"):
        galaxies.by_id(["7"])


def test_gz2_from_a_zip_and_a_gz(gz2):
    with zipfile.ZipFile(gz2 / "images_gz2.zip", "w") as archive:
        for path in sorted((gz2 / "images").iterdir()):
            archive.write(path, f"images/{path.name}")
        archive.writestr("__MACOSX/images/._100.jpg", b"no picture")
    shutil.rmtree(gz2 / "images")
    import gzip

    (gz2 / "gz2_hart16.csv.gz").write_bytes(gzip.compress((gz2 / "gz2_hart16.csv").read_bytes()))
    (gz2 / "gz2_hart16.csv").unlink()
    galaxies = read_gz2(gz2)
    assert len(galaxies) == 4
    assert abs(int(galaxies.image(3)[8, 8, 0]) - 30) < 4


def test_gz2_votes_alone(gz2):
    (gz2 / "gz2_filename_mapping.csv").unlink()
    galaxies = read_gz2(gz2 / "gz2_hart16.csv", pictures=False)
    assert len(galaxies) == 6
    with pytest.raises(InputError, match="read without pictures"):
        galaxies.image(0)
    with pytest.raises(InputError, match="no file-name mapping"):
        read_gz2(gz2)


def rewritten(path, change):
    lines = path.read_text().splitlines()
    path.write_text("\n".join(change(lines)) + "\n")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [*lines, lines[1]], f"object {FIRST_ID} is there 2 times"),
        (
            lambda lines: [lines[0].replace("t03_bar_a06_bar_count", "t03_bar_a06_count"), *lines[1:]],
            "no column 't03_bar_a06_bar_count'. Did you mean",
        ),
        (lambda lines: [lines[0], *(line.replace(f"{FIRST_ID}"[:15], "", 1) for line in lines[1:])], "none of the 6"),
        (lambda lines: [lines[0], *(f"5.87e17{line[18:]}" for line in lines[1:])], "floating-point"),
        (lambda lines: lines[:1], "has no rows"),
        (lambda lines: [*lines, "1,2,3"], "cannot be read as csv"),
        (
            lambda lines: [lines[0], lines[1].replace(",30,90,", ",30,91,"), *lines[2:]],
            f"object {FIRST_ID}: total_votes is 91",
        ),
    ],
)
def test_gz2_tables_that_are_wrong(gz2, change, said):
    rewritten(gz2 / "gz2_hart16.csv", change)
    with pytest.raises(InputError, match=said):
        read_gz2(gz2)


def test_gz2_folders_that_are_wrong(gz2):
    with pytest.raises(InputError, match=r"no row of the sample 'stripe'.*original, stripe82"):
        read_gz2(gz2, sample="stripe")
    with pytest.raises(InputError, match="no picture of the 6"):
        read_gz2(gz2, sample="stripe82")
    (gz2 / "images" / "100.jpg").write_bytes(b"\xff\xd8 cut short")
    with pytest.raises(InputError, match=r"100\.jpg: is not a picture"):
        read_gz2(gz2).image(0)
    with pytest.raises(InputError, match="no column 'klass'"):
        read_gz2(gz2, label_column="klass")
    rewritten(gz2 / "gz2_filename_mapping.csv", lambda lines: [*lines, lines[1]])
    with pytest.raises(InputError, match="there 2 times"):
        read_gz2(gz2)
    with pytest.raises(InputError, match="no vote table"):
        read_gz2(gz2 / "images")


def test_real_votes_and_pictures(shared_data, tmp_path):
    folder = shared_data("astro")
    table = folder / "gz2_table5_stripe82_first3000.csv.gz"
    galaxies = read_gz2(table, pictures=False)
    assert len(galaxies) == 3000
    assert galaxies.ids[0] == "8647474690312307154"
    # The real pictures under invented ids: nobody has told which row of the table they are.
    assets = sorted({path.stem for path in (folder / "gz2_real").rglob("*.jpg")})
    rows = [(int(name), "stripe82", asset) for name, asset in zip(galaxies.ids, assets, strict=False)]
    mapping = tmp_path / "mapping.csv"
    QTable(rows=rows, names=["objid", "sample", "asset_id"]).write(mapping, format="ascii.csv")
    found = read_gz2(table, mapping=mapping, images=folder / "gz2_real")
    assert len(found) == len(assets) == 27
    assert all(found.image(row).shape == (424, 424, 3) for row in range(len(found)))


@pytest.fixture
def zoobot(tmp_path):
    """Zoobot's folder: three training galaxies, one test galaxy."""
    root = tmp_path / "zoobot"
    for split, rows in (("train", (0, 1, 2)), ("test", (3,))):
        columns = {"id_str": [str(FIRST_ID + row) for row in rows], "subfolder": ["587722"] * len(rows)}
        columns["filename"] = [f"{FIRST_ID + row}.jpg" for row in rows]
        for question, (name, answers) in GALAXY_DATASETS.items():
            for theirs, ours in zip(answers, ANSWERS_OF[question], strict=True):
                columns[f"{name}_{theirs}"] = [int(counts_of(row)[ANSWERS.index(ours)]) for row in rows]
        for row in rows:
            path = root / "images" / "587722" / f"{FIRST_ID + row}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(row))
        parquet.write_table(pyarrow.table(columns), root / f"gz2_{split}_catalog.parquet")
    return root


def test_galaxy_datasets_layout(zoobot):
    train, test = read_galaxy_datasets(zoobot), read_galaxy_datasets(zoobot, "test")
    assert train.ids == tuple(str(FIRST_ID + row) for row in range(3))
    assert abs(int(test.image(0)[8, 8, 0]) - 30) < 4
    assert train.votes.counts[1].tolist() == counts_of(1).tolist()
    shutil.rmtree(zoobot / "images" / "587722")
    with pytest.raises(InputError, match="3 of 3 pictures are missing"):
        read_galaxy_datasets(zoobot)


def test_galaxy_datasets_with_pictures_inside(zoobot, tmp_path):
    table = parquet.read_table(zoobot / "gz2_train_catalog.parquet").drop_columns(["subfolder", "filename"])
    pictures = [{"bytes": jpeg(row), "path": None} for row in range(3)]
    path = tmp_path / "train-00000-of-00001.parquet"
    parquet.write_table(table.append_column("image", pyarrow.array(pictures)), path)
    galaxies = read_galaxy_datasets(path)
    assert abs(int(galaxies.image(2)[8, 8, 0]) - 20) < 4
    assert len(read_galaxy_datasets(tmp_path, "train")) == 3
    pictures[1]["bytes"] = b"\xff\xd8 cut"
    path = tmp_path / "cut.parquet"
    parquet.write_table(table.append_column("image", pyarrow.array(pictures)), path)
    with pytest.raises(InputError, match=r"cut\.parquet: the picture of row 2 "):
        read_galaxy_datasets(path).select([1]).image(0)


@pytest.fixture
def cut(zoobot, tmp_path):
    """Hugging Face's layout: data/train-00000-of-00003.parquet and its like, a galaxy each; test in one file."""
    table = parquet.read_table(zoobot / "gz2_train_catalog.parquet").drop_columns(["subfolder", "filename"])
    table = table.append_column("image", pyarrow.array([{"bytes": jpeg(row), "path": None} for row in range(3)]))
    data = tmp_path / "gz2/data"
    data.mkdir(parents=True)
    for row in range(3):
        parquet.write_table(table.slice(row, 1), data / f"train-{row:05d}-of-00003.parquet")
    parquet.write_table(table.slice(0, 1), data / "test-00000-of-00001.parquet")
    return data


def test_galaxy_datasets_cut_into_files(cut):
    ids = tuple(str(FIRST_ID + row) for row in range(3))
    for named in (cut.parent, cut, cut / "train-00001-of-00003.parquet"):  # any file names its table
        galaxies = read_galaxies(named)
        assert galaxies.ids == ids
        assert abs(int(galaxies.image(2)[8, 8, 0]) - 20) < 4
        assert galaxies.votes.counts[1].tolist() == counts_of(1).tolist()
    assert len(read_galaxies(cut / "test-00000-of-00001.parquet")) == 1
    for row in range(3):  # files may have a mark of their own
        (cut / f"train-{row:05d}-of-00003.parquet").rename(cut / f"train-{row:05d}-of-00003-{row}af09.parquet")
    assert read_galaxies(cut.parent).ids == ids


def test_galaxy_datasets_cut_into_files_that_do_not_belong_together(cut):
    with pytest.raises(InputError, match=r"is one of 3 files of a table, which are read together without columns"):
        read_galaxies(cut / "train-00001-of-00003.parquet", ids="id_str")
    shutil.copy(cut / "train-00000-of-00003.parquet", cut / "train-00000-of-00003-abc.parquet")
    with pytest.raises(InputError, match="are not two of 3 files of a table"):
        read_galaxies(cut)
    (cut / "train-00000-of-00003-abc.parquet").unlink()
    for name, columns in (("train-00001-of-00003", ["id_str"]), ("train-00002-of-00003", ["image"])):
        table = parquet.read_table(cut / f"{name}.parquet")
        parquet.write_table(table.drop_columns(columns), cut / f"{name}.parquet")
        with pytest.raises(InputError, match="and the 2 files beside it have different columns"):
            read_galaxies(cut)
        parquet.write_table(table, cut / f"{name}.parquet")
    (cut / "train-00001-of-00003.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(InputError, match=r"train-00001-of-00003\.parquet: is no parquet file"):
        read_galaxies(cut)
    (cut / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(InputError, match=r"is one of 3 files of a table, and number 00001 is missing \(1 are"):
        read_galaxies(cut)


def test_a_parquet_file_alone(zoobot, tmp_path):
    """Its pictures lie beside it, or there are none; a column of one's own is read as of any table."""
    path = zoobot / "gz2_test_catalog.parquet"
    assert abs(int(read_galaxies(path).image(0)[8, 8, 0]) - 30) < 4
    alone = tmp_path / "alone.parquet"
    parquet.write_table(parquet.read_table(path).append_column("kind", pyarrow.array(["ring"])), alone)
    assert read_galaxies(alone).images is None
    assert read_galaxies(alone, label_column="kind").labels == ("ring",)
    with pytest.raises(InputError, match="--class-column kind is of a table, and galaxy-datasets have"):
        read_galaxies(zoobot, label_column="kind")


def test_galaxy_datasets_that_lack(zoobot):
    table = parquet.read_table(zoobot / "gz2_train_catalog.parquet")
    parquet.write_table(table.drop_columns(["bar-gz2_no"]), zoobot / "gz2_train_catalog.parquet")
    with pytest.raises(InputError, match="no column 'bar-gz2_no'"):
        read_galaxy_datasets(zoobot)
    (zoobot / "gz2_train_catalog.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(InputError, match="no parquet file"):
        read_galaxy_datasets(zoobot)


def write_galaxy10(path, size=8, **changes):
    images = np.stack([np.full((size, size, 3), row, np.uint8) for row in range(12)])
    content = {"images": images, "ans": (np.arange(12) % 10).astype(np.uint8), "ra": np.arange(12.0)}
    with h5py.File(path, "w") as file:
        for name, value in (content | changes).items():
            if value is not None:
                file[name] = value
    return path


def test_galaxy10_layout(tmp_path):
    galaxies = read_galaxy10(write_galaxy10(tmp_path / "Galaxy10_DECals.h5"))
    assert len(galaxies) == 12
    assert galaxies.image(11).tolist() == np.full((8, 8, 3), 11).tolist()
    assert galaxies.labels[11] == CLASSES[1]
    assert galaxies.vectors().shape == (12, 74)
    assert (galaxies.vectors()[0] == galaxies.vectors()[10]).all()
    assert pickle.loads(pickle.dumps(galaxies.select([3, 4]))).image(1)[0, 0, 0] == 4
    elsewhere = pickle.loads(pickle.dumps(galaxies))  # a worker that opens the file once it is gone
    (tmp_path / "Galaxy10_DECals.h5").unlink()
    with pytest.raises(InputError, match="row 0 cannot be read"):
        elsewhere.image(0)
    for changes, said in [
        ({"ans": None}, "has no 'ans'"),
        ({"ans": np.full(12, 10, np.uint8)}, "has the class 10"),
        ({"ans": np.zeros(5, np.uint8)}, "12 images have"),
        ({"images": np.zeros((12, 69, 69, 3), np.uint8)}, "Galaxy10 SDSS"),
        ({"images": np.zeros((12, 8, 8, 3), np.float32)}, "images are float32"),
    ]:
        with pytest.raises(InputError, match=said):
            read_galaxy10(write_galaxy10(tmp_path / "wrong.h5", **changes))
    (tmp_path / "wrong.h5").write_bytes(b"\x89HDF cut")
    with pytest.raises(InputError, match="no HDF5 file"):
        read_galaxy10(tmp_path / "wrong.h5")


def test_pairs_there_and_back(tmp_path):
    pictures = np.stack([np.full((16, 16, 3), 40 * row, np.uint8) for row in range(3)])
    captions = ("sdss, spiral galaxy", "sdss, merger", "sdss, {dust lane:1.3}")
    folder = write_pairs(GalaxySet(("1", "2", "0-3"), pictures, captions=captions), tmp_path / "pairs")
    galaxies = read_pairs(folder)
    assert dict(zip(galaxies.ids, galaxies.captions, strict=True)) == dict(
        zip(("1", "2", "0-3"), captions, strict=True)
    )
    assert abs(int(galaxies.by_id(["2"]).image(0)[8, 8, 0]) - 40) < 3
    assert galaxies.vectors().shape == (3, 74)
    for change, said in [
        (lambda: (folder / "2.txt").unlink(), r"2\.jpg has no \.txt"),
        (lambda: (folder / "2.txt").write_text(" \n"), r"2\.txt is empty"),
        (lambda: (folder / "2.txt").write_bytes(b"\xff\xfe"), "not UTF-8"),
        (lambda: (folder / "2.txt").write_text("ok") and (folder / "9.txt").write_text("x"), r"9\.txt has no picture"),
        (lambda: shutil.copy(folder / "1.jpg", folder / "1.png"), "the same name"),
    ]:
        change()
        with pytest.raises(InputError, match=said):
            read_pairs(folder)
    with pytest.raises(InputError, match="exists already"):
        write_pairs(GalaxySet(("1",), pictures[:1], captions=captions[:1]), folder)
    with pytest.raises(InputError, match="no file name"):
        write_pairs(GalaxySet(("../1",), pictures[:1], captions=captions[:1]), folder)


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_stamps_there_and_back(tmp_path, suffix):
    random = np.random.default_rng(0)
    flux = random.normal(0, 0.02, (4, 3, 16, 18)).astype(np.float32) + 0.01
    psf = np.ones((3, 5, 5)) / 25
    counts = np.stack([counts_of(row) for row in range(4)])
    path = write_stamps(
        tmp_path / f"stamps{suffix}",
        ids=[FIRST_ID + row for row in range(4)],
        flux=flux,
        bands="gri",
        unit="nanomaggies",
        sky_sigma=[0.01, 0.02, 0.03],
        psf=psf,
        pixel_scale=0.396,
        counts=counts,
        labels=["round", "spiral", "round", "spiral"],
    )
    stamps = read_stamps(path)
    assert stamps.ids == tuple(str(FIRST_ID + row) for row in range(4))
    assert stamps.bands == ("g", "r", "i")
    assert stamps.unit == "nmgy"
    assert stamps.pixel_scale == 0.396
    np.testing.assert_array_equal(np.stack([stamps.stamp(row) for row in range(4)]), flux)
    np.testing.assert_allclose(stamps.psf, psf, rtol=1e-7)
    galaxies = stamps.galaxies()
    assert galaxies.mode == "flux"
    assert galaxies.labels == ("round", "spiral", "round", "spiral")
    assert galaxies.votes.counts.tolist() == counts.tolist()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(galaxies.select([2]))).image(0), flux[2])
    with pytest.raises(InputError, match="flux, not pictures"):
        write_pairs(galaxies, tmp_path / "pairs", ["a"] * 4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unit": ""}, "unit of the flux is missing"),
        ({"unit": "mag"}, "is a magnitude"),
        ({"unit": "mag(AB)"}, "is a magnitude"),
        ({"unit": "m"}, "is no flux"),
        ({"unit": "nanomagies"}, "not known to astropy"),
        ({"bands": "gr"}, "bands has shape"),
        ({"ids": ["a", "a"]}, "object a is there 2 times"),
        ({"ids": [1.0, 2.0]}, "floating-point"),
        ({"flux": np.zeros((2, 3, 8))}, "flux has shape"),
        ({"flux": np.zeros((2, 3, 2, 1500))}, "a mosaic"),
        ({"psf": np.ones((2, 5, 5))}, "psf has shape"),
        ({"psf": np.zeros((3, 5, 5))}, "nothing in it"),
        ({"psf": np.full((3, 5, 5), np.nan)}, "not finite"),
        ({"sky_sigma": [0.1, -0.1, 0.1]}, "sky_sigma is not 0 or above"),
        ({"sky_sigma": [0.1, np.nan, 0.1]}, "sky_sigma is not 0 or above"),
        ({"pixel_scale": -1.0}, "pixel_scale is -1"),
        ({"counts": np.ones((2, 36))}, "counts has shape"),
    ],
)
def test_stamps_that_are_wrong(tmp_path, changes, said):
    right = {"ids": ["a", "b"], "flux": np.zeros((2, 3, 8, 8)), "bands": "gri", "unit": "nmgy"}
    with pytest.raises(InputError, match=said):
        write_stamps(tmp_path / "stamps.npz", **(right | changes))
    assert not list(tmp_path.iterdir())


def test_units_of_flux():
    assert {flux_unit(name) for name in ("nmgy", "nanomaggy", "nMgy", " nanomaggies ")} == {"nmgy"}
    assert u.Unit(flux_unit("electron / s")) == u.electron / u.s
    for name in ("Jy", "uJy", "adu", "ct", "MJy / sr", "DN"):
        flux_unit(name)
    for name in ("3", "1e-9", "%"):
        with pytest.raises(InputError, match="is a number"):
            flux_unit(name)


def test_what_is_no_stamp(shared_data):
    good = np.random.default_rng(0).normal(0, 1, (3, 32, 32))
    check_stamp(good)  # negative pixels are noise
    check_stamp(np.zeros((1, 8, 8)))
    check_stamp(good - 0.2, what="a faint source in a sky that is a fifth of its noise too low")
    large = np.random.default_rng(1).normal(-0.2, 1, (1, 256, 256))
    check_stamp(large)  # the sum lies 26 standard deviations below 0: the sky's fault, not the galaxy's
    check_stamp(good - 5, generated=True)  # what a model drew is a result
    with pytest.raises(InputError, match="NaN"):
        check_stamp(np.where(good > 2, np.nan, good), generated=True)
    with pytest.raises(InputError, match="negative flux"):
        check_stamp(large - 0.5)
    for bad, said in [
        (np.where(good > 2, np.nan, good), "NaN or infinite"),
        (good - 5, "negative flux"),
        (np.zeros((3, 4000, 4000), np.uint8), "a mosaic"),
        (np.zeros((2, 3, 8, 8)), "has shape"),
        (np.zeros((0, 8)), "has shape"),
    ]:
        with pytest.raises(InputError, match=said):
            check_stamp(bad, what="object 7")
    real = np.load(shared_data("astro") / "hsc_cosmos_35.npz")["images"]
    check_stamp(real)


def test_real_hsc_stamp_in_our_layout(shared_data, tmp_path):
    with np.load(shared_data("astro") / "hsc_cosmos_35.npz") as real:
        path = write_stamps(
            tmp_path / "hsc.h5",
            ids=["cosmos-35"],
            flux=real["images"][None],
            bands=[str(name) for name in real["filters"]],
            unit="adu",  # whatever it is: the file does not say
            psf=real["psfs"],
            sky_sigma=np.sqrt(np.median(real["variance"], axis=(1, 2))),
            pixel_scale=0.168,
        )
        stamps = read_stamps(path)
        np.testing.assert_array_equal(stamps.stamp(0), real["images"])
        assert stamps.bands == ("g", "r", "i", "z", "y")


def write_fits(path, bands="gri", unit="nanomaggy", size=12, psf=True, scale=0.396, cube=False):
    """One stamp: an HDU a band or a cube; the flux tells the file's name and the band."""
    path.parent.mkdir(parents=True, exist_ok=True)
    value = float(path.stem)
    header = fits.Header()
    if unit:
        header["BUNIT"] = unit
    if scale:
        header.update(CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRPIX1=6.5, CRPIX2=6.5, CRVAL1=10.0, CRVAL2=5.0)
        header.update(CD1_1=-scale / 3600, CD2_2=scale / 3600, CD1_2=0.0, CD2_1=0.0)
    planes = np.stack([np.full((size, size), value + band / 10, np.float32) for band in range(len(bands))])
    hdus = fits.HDUList([fits.PrimaryHDU()])
    if cube:
        for place, band in enumerate(bands):
            header[f"BAND{place + 1}"] = band
        hdus.append(fits.ImageHDU(planes, header, name="FLUX"))
    else:
        for band, plane in zip(bands, planes, strict=True):
            hdus.append(fits.ImageHDU(plane, header, name=band))
    if psf:
        hdus.append(fits.ImageHDU(np.full((len(bands), 3, 3), 1 / 9), name="PSF"))
    hdus.writeto(path)
    return path


@pytest.mark.parametrize("cube", [False, True])
def test_stamps_of_fits_files(tmp_path, cube):
    for name in ("3", "1", "2"):
        write_fits(tmp_path / "stamps" / f"{name}.fits", cube=cube)
    stamps = read_fits_stamps(tmp_path / "stamps")
    assert stamps.ids == ("1", "2", "3")
    assert stamps.bands == ("g", "r", "i")
    assert stamps.unit == "nmgy"
    assert stamps.pixel_scale == pytest.approx(0.396, rel=1e-6)
    assert stamps.psf.shape == (3, 3, 3, 3)
    np.testing.assert_allclose(stamps.stamp(2)[:, 4, 4], [3.0, 3.1, 3.2], rtol=1e-6)
    galaxies = read_galaxies(tmp_path / "stamps", mode="flux")
    assert galaxies.image(0).dtype == np.float32
    assert pickle.loads(pickle.dumps(galaxies)).image(1)[0, 0, 0] == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unit": ""}, r"2\.fits: the unit of the flux is missing"),
        ({"unit": "mag"}, r"2\.fits: .* is a magnitude"),
        ({"unit": "Jy"}, "has g, r, i in Jy, the first file g, r, i in nmgy"),
        ({"bands": "gr"}, "has g, r in nmgy, the first file g, r, i in nmgy"),
        ({"size": 1100, "bands": "g"}, "a mosaic"),
    ],
)
def test_fits_stamps_that_are_wrong(tmp_path, changes, said):
    write_fits(tmp_path / "1.fits")
    write_fits(tmp_path / "2.fits", **changes)
    with pytest.raises(InputError, match=said):
        read_fits_stamps(tmp_path)


def test_fits_stamps_without_scale_or_psf(tmp_path):
    write_fits(tmp_path / "1.fits", scale=0.396)
    write_fits(tmp_path / "2.fits", scale=0.2, psf=False)
    stamps = read_fits_stamps(tmp_path)
    assert stamps.pixel_scale is None
    assert stamps.psf is None
    (tmp_path / "2.fits").write_bytes((tmp_path / "2.fits").read_bytes()[:3000])
    with pytest.raises(InputError, match=r"2\.fits"):
        read_fits_stamps(tmp_path)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="holds no FITS file"):
        read_fits_stamps(tmp_path / "nothing")


def test_a_file_with_too_few_psfs_is_named(tmp_path):
    path = write_fits(tmp_path / "1.fits")
    with fits.open(path, mode="update") as units:
        units["PSF"].data = np.stack([np.ones((5, 5))] * 2)
        for unit in units:
            for key in ("CHECKSUM", "DATASUM"):
                unit.header.remove(key, ignore_missing=True)
    with pytest.raises(InputError, match=r"1\.fits: has 2 point spread functions for 3 bands"):
        read_fits_stamps(tmp_path)


def test_stamps_that_the_app_wrote(tmp_path):
    flux = np.random.default_rng(0).normal(0.1, 0.02, (2, 2, 16, 16)).astype(np.float32)
    for row in range(2):
        write_stamp_fits(
            tmp_path / f"{row}.fits",
            flux[row],
            bands=("g", "r"),
            unit="nmgy",
            sky_sigma=(0.02, 0.02),
            pixel_scale=0.396,
        )
    stamps = read_fits_stamps(tmp_path)
    np.testing.assert_array_equal(np.stack([stamps.stamp(row) for row in range(2)]), flux)
    assert stamps.bands == ("g", "r")
    assert stamps.unit == "nmgy"
    assert stamps.pixel_scale == 0.396
    np.testing.assert_allclose(stamps.sky_sigma, 0.02, rtol=1e-6)


def test_m51_has_no_unit_and_is_told_one(shared_data):
    path = shared_data("astro") / "M51.fits"
    with pytest.raises(InputError, match="unit of the flux is missing"):
        read_fits_stamps(path)
    stamps = read_fits_stamps(path, unit="adu")
    assert stamps.stamp(0).shape == (1, 512, 512)
    assert stamps.ids == ("M51",)


def test_a_broken_stamp_file_is_named(tmp_path):
    for name, said in [("a.npz", "no .npz file"), ("a.h5", "no HDF5 file"), ("a.fits", "read from .npz or .h5")]:
        (tmp_path / name).write_bytes(b"broken")
        with pytest.raises(InputError, match=said):
            read_stamps(tmp_path / name)
    np.savez(tmp_path / "b.npz", flux=np.zeros((1, 1, 8, 8)))
    with pytest.raises(InputError, match="has no ids, bands, unit"):
        read_stamps(tmp_path / "b.npz")
    with pytest.raises(InputError, match="no such file"):
        read_stamps(tmp_path / "none.npz")


def catalogue():
    return QTable(
        {
            "object_id": np.array(["a1", "b2", "c3"]),
            "ra": [1.5, 2.5, 359.0] * u.deg,
            "dec": [-1.0, 0.0, 45.0] * u.deg,
            "redshift": MaskedColumn([0.1, 0.2, 0.0], mask=[False, False, True]),
            "votes": np.array([3, 4, 5]),
        },
        meta={"PLANID": "abc", "model": "small", "classes": {"ring": 3}, "longer_key": "x" * 200},
    )


@pytest.mark.parametrize("name", ["c.ecsv", "c.vot", "c.xml", "c.fits", "c.csv", "c.parquet"])
def test_catalogues_there_and_back(tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = write_catalogue(catalogue(), tmp_path / name)
        table = read_catalogue(path)
    assert [str(value) for value in table["object_id"]] == ["a1", "b2", "c3"]
    ra = table["ra"]
    np.testing.assert_allclose(
        ra.to_value(u.deg) if name[2:] in ("ecsv", "vot", "xml", "fits") else ra, [1.5, 2.5, 359]
    )
    assert table["votes"].tolist() == [3, 4, 5]
    assert np.ma.getmaskarray(np.ma.asarray(table["redshift"])).tolist() == [False, False, True] or np.isnan(
        np.asarray(table["redshift"])[2]
    )
    if name in ("c.ecsv", "c.vot", "c.xml"):
        assert dict(table.meta) == catalogue().meta
    assert read_catalogue(path, columns=["votes", "absent"]).colnames == ["votes"]
    with pytest.raises(InputError, match="exists already"):
        write_catalogue(catalogue(), path)


def test_fits_catalogue_has_checksums_and_provenance(tmp_path):
    path = write_catalogue(catalogue(), tmp_path / "c.fits")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fits.open(path, checksum=True) as hdus:
            header = hdus[1].header
            assert "CHECKSUM" in header
            assert header["PLANID"] == "abc"
            assert "classes = " in str(header["HISTORY"])


def test_votable_has_ucds(tmp_path):
    path = write_catalogue(catalogue(), tmp_path / "c.vot", ucds={"votes": "meta.number"})
    fields = {field.name: field.ucd for field in parse_votable(path).get_first_table().fields}
    assert fields["ra"] == "pos.eq.ra;meta.main"
    assert fields["object_id"] == "meta.id;meta.main"
    assert fields["votes"] == "meta.number"


def test_catalogues_that_are_wrong(tmp_path):
    for name, said in [("x.fits", "cannot be read as fits"), ("x.ecsv", "cannot be read"), ("x.vot", "cannot be read")]:
        (tmp_path / name).write_bytes(b"no such thing")
        with pytest.raises(InputError, match=said):
            read_catalogue(tmp_path / name)
    (tmp_path / "empty.csv").touch()
    (tmp_path / "x.txt").touch()
    (tmp_path / "folder.csv").mkdir()
    for name, said in [
        ("empty.csv", "0 bytes"),
        ("none.csv", "no such file"),
        ("none", "no such file"),
        ("folder.csv", "is a folder, and a table is needed"),
        ("x.txt", "by its suffix"),
    ]:
        with pytest.raises(InputError, match=said):
            read_catalogue(tmp_path / name)


@pytest.mark.parametrize("name", ["v.fits", "v.vot", "v.ecsv", "v.parquet"])
def test_vote_tables_of_any_format(shared_data, tmp_path, name):
    real = read_catalogue(shared_data("astro") / "gz2_table5_stripe82_first3000.csv.gz")[:50]
    write_catalogue(real, tmp_path / name)
    galaxies = read_galaxies(tmp_path / name)
    assert galaxies.ids[0] == "8647474690312307154"
    np.testing.assert_array_equal(galaxies.votes.counts[:, 0], real["t01_smooth_or_features_a01_smooth_count"])
    assert galaxies.vectors().any()


def test_one_bad_row_of_many_is_left_out_and_named(shared_data, tmp_path):
    real = read_catalogue(shared_data("astro") / "gz2_table5_stripe82_first3000.csv.gz")[:200]
    real["total_votes"][7] += 1
    write_catalogue(real, tmp_path / "v.csv")
    bad = str(real["objid"][7])
    for galaxies in (read_galaxies(tmp_path / "v.csv"), read_gz2(tmp_path / "v.csv", pictures=False)):
        assert len(galaxies) == 199
        assert bad not in galaxies.ids
        assert f"1 objects are left out, their votes do not sum (first: object {bad}: total_votes" in galaxies.notes[0]
    with pytest.raises(InputError, match=f"object {bad}: total_votes"):
        read_gz2(tmp_path / "v.csv", pictures=False, tolerate=0)
    real["total_votes"][8:10] += 1
    write_catalogue(real, tmp_path / "v.csv", overwrite=True)
    with pytest.raises(InputError, match="and 2 more such rows"):
        read_gz2(tmp_path / "v.csv", pictures=False)


def test_columns_are_of_tables(gz2, simulated_survey, tmp_path):
    """Elsewhere a named column would be passed over in silence."""
    galaxy10 = write_galaxy10(tmp_path / "Galaxy10_DECals.h5")
    for path, mode in (
        (simulated_survey, "flux"),
        (simulated_survey / "stamps.npz", "flux"),
        (galaxy10, "display"),
        (gz2, "display"),
    ):
        with pytest.raises(InputError, match=r"--id-column x is of a table, and .* have their own ids"):
            read_galaxies(path, mode=mode, ids="x")
        if path != gz2:
            with pytest.raises(InputError, match=r"--class-column x is of a table, and .* have their own classes"):
                read_galaxies(path, mode=mode, label_column="x")


def test_captions_from_votes(gz2):
    galaxies = read_gz2(gz2)
    plain = galaxies.with_captions()
    assert plain.captions[0] == "sdss, smooth, completely round galaxy"
    turned = galaxies.with_captions(shuffle=3)
    assert turned.captions != plain.captions
    assert turned.captions == galaxies.with_captions(shuffle=3).captions
    for one, other in zip(plain.captions, turned.captions, strict=True):
        assert other.startswith("sdss, ")
        assert sorted(one.split(", ")) == sorted(other.split(", "))
    # by the object, whatever stands before it
    assert galaxies.select([3]).with_captions(shuffle=3).captions[0] == turned.captions[3]
    assert "nothing odd" in galaxies.with_captions(vocabulary="all").captions[0]
    with pytest.raises(InputError, match="have no votes"):
        GalaxySet(("a",)).with_captions()


def test_object_ids():
    assert object_ids(np.array([FIRST_ID])) == (str(FIRST_ID),)
    assert object_ids(np.array([b"a", b"b"])) == ("a", "b")
    for values, said in [
        ([1.5], "floating-point"),
        (["a", "", "b"], "row 2 has no object id"),
        (np.ma.masked_array([1, 2], mask=[True, False]), "row 1 has no object id"),
        ([True], "are bool"),
    ]:
        with pytest.raises(InputError, match=said):
            object_ids(values)


def test_a_set_whose_parts_do_not_fit():
    with pytest.raises(InputError, match="2 galaxies have 1 labels"):
        GalaxySet(("a", "b"), labels=("x",))
    with pytest.raises(InputError, match="there 2 times"):
        GalaxySet(("a", "a"))
    with pytest.raises(InputError, match="neither votes nor captions"):
        GalaxySet(("a",)).vectors()
    with pytest.raises(InputError, match=r"the caption of a: the tag 'spiral galxy' .* Did you mean"):
        GalaxySet(("a",), captions=("spiral galxy",)).vectors()


@pytest.mark.parametrize("name", ["v.csv", "v.fits", "v.vot", "v.ecsv"])
def test_what_a_table_lacks_is_no_position_and_no_class(gz2, tmp_path, name):
    """A missing position would else be ra 0, dec 0, and all such objects one object of the sky."""
    table = read_catalogue(gz2 / "gz2_hart16.csv")
    table["ra"] = MaskedColumn(np.asarray(table["ra"]), mask=[False, True, True, False, False, False])
    table["gz2_class"] = MaskedColumn(list("EsEsEs"), mask=[True, False, False, False, False, False])
    write_catalogue(table, tmp_path / name)
    tables = [read_galaxies(tmp_path / name, label_column="gz2_class")]
    if name == "v.csv":
        tables.append(read_gz2(tmp_path / name, pictures=False, label_column="gz2_class"))
    for galaxies in tables:
        assert np.isnan(galaxies.columns["ra"]).tolist() == [False, True, True, False, False, False]
        assert galaxies.labels == ("", *"sEsEs")
        with pytest.raises(InputError, match=r"finite positions.*--sky-radius 0"):
            sky_groups(galaxies.columns["ra"], galaxies.columns["dec"])


def test_tables_with_gaps_in_columns_of_any_type(tmp_path):
    (tmp_path / "a.csv").write_text("id,good,day,name,size\na,true,2020-01-01,x,1\nb,,,,\n")
    table = read_catalogue(tmp_path / "a.csv")
    assert table["good"].tolist() == [True, None]
    assert table["day"].tolist() == ["2020-01-01", None]
    assert table["size"].tolist() == [1, None]
    words = pyarrow.array(["x", None, "x"]).dictionary_encode()
    parquet.write_table(pyarrow.table({"id": ["a", "b", "c"], "word": words}), tmp_path / "a.parquet")
    assert read_catalogue(tmp_path / "a.parquet")["word"].tolist() == ["x", None, "x"]


def test_ids_keep_their_leading_zeros(tmp_path):
    """As numbers, 007 and 7 would be one galaxy, and no picture is called 7.jpg."""
    (tmp_path / "a.csv").write_text("object_id,other_id,count\n007,5,010\n7,6,020\n")
    table = read_catalogue(tmp_path / "a.csv")
    assert table["object_id"].tolist() == ["007", "7"]
    assert table["other_id"].tolist() == [5, 6]
    assert table["count"].tolist() == [10, 20]
    assert read_catalogue(tmp_path / "a.csv", columns=["object_id"])["object_id"].tolist() == ["007", "7"]


@pytest.mark.parametrize("suffix", ["fits", "ecsv", "vot"])
def test_positions_are_degrees_whatever_their_unit_and_name(tmp_path, suffix):
    """A catalogue in hours or radians would else put one galaxy, under two ids, into two splits."""
    ra, dec = [12.5, 12.5, 180.0], [-3.25, -3.25, 45.0]
    for names, units in [
        (("ra", "dec"), (u.rad if suffix == "fits" else u.hourangle, u.rad)),  # FITS knows no hours
        (("RA", "DEC"), (u.deg, u.deg)),
        (("RAJ2000", "DEJ2000"), (u.deg, u.arcmin)),
        (("Ra", "Dec"), (None, None)),
    ]:
        pairs = zip((ra, dec), units, strict=True)
        values = [place if unit is None else (place * u.deg).to(unit) for place, unit in pairs]
        table = QTable({"object_id": [1, 2, 3], "kind": list("aab"), names[0]: values[0], names[1]: values[1]})
        write_catalogue(table, tmp_path / f"a.{suffix}", overwrite=True)
        columns = read_galaxies(tmp_path / f"a.{suffix}", label_column="kind").columns
        np.testing.assert_allclose(columns["ra"], ra, rtol=1e-12)
        np.testing.assert_allclose(columns["dec"], dec, rtol=1e-12)
        assert sky_groups(columns["ra"], columns["dec"]).tolist() == [0, 0, 2]


def test_positions_that_are_none(tmp_path, gz2):
    table = QTable({"object_id": [1, 2], "kind": ["a", "b"], "ra": [1.0, 2.0] * u.Jy, "dec": [1.0, 2.0]})
    write_catalogue(table, tmp_path / "a.ecsv")
    with pytest.raises(InputError, match=r"a.ecsv: its column ra is in Jy. Positions are in degrees"):
        read_galaxies(tmp_path / "a.ecsv", label_column="kind")
    (tmp_path / "a.csv").write_text("object_id,kind,ra,dec\n1,a,15h17m13.4s,-3d\n2,b,1h2m3s,4d\n")
    with pytest.raises(InputError, match=r"its column ra does not hold numbers, such as '15h17m13.4s'"):
        read_galaxies(tmp_path / "a.csv", label_column="kind")
    text = read_catalogue(gz2 / "gz2_hart16.csv")
    text["ra"] = text["rastring"].astype(str)
    write_catalogue(text, gz2 / "gz2_hart16.csv", overwrite=True)
    with pytest.raises(InputError, match=r"its column ra does not hold numbers, such as '00:40:00"):
        read_gz2(gz2)
    with pytest.raises(InputError, match="ra and dec are no numbers"):
        sky_groups(np.array(["1", "2"]), np.array(["1", "2"]))


def test_a_column_of_coordinates_is_read(tmp_path):
    places = SkyCoord([12.5, 180.0] * u.deg, [-3.25, 45.0] * u.deg)
    QTable({"object_id": [1, 2], "kind": ["a", "b"], "place": places}).write(tmp_path / "a.ecsv")
    columns = read_galaxies(tmp_path / "a.ecsv", label_column="kind").columns
    np.testing.assert_allclose(columns["ra"], [12.5, 180.0])
    np.testing.assert_allclose(columns["dec"], [-3.25, 45.0])


def test_a_broken_table_is_named_without_its_bytes(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"a,b\n1\x1b[2J,2,3\n")
    with pytest.raises(InputError, match="cannot be read as csv") as found:
        read_catalogue(tmp_path / "a.csv")
    assert str(found.value).isprintable()
