"""GEO-Bench in miniature, in the layout its own writer makes, and pickles that ask for more than numbers."""

from __future__ import annotations

import datetime
import json
import os
import pickle
import sys
import types
import warnings

import h5py
import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from priorscope.data.safe_pickle import Stub, safe_loads
from priorscope.errors import InputError
from priorscope_remote_sensing.data.bands import RECIPES, BandRecipe
from priorscope_remote_sensing.data.geobench import (
    TASKS,
    GeoBench,
    find_task,
    task_facts,
)
from priorscope_remote_sensing.data.geobench_files import read_sample, read_task_specification

RNG = np.random.default_rng(0)
DATE = datetime.date(2018, 6, 1)
S2 = (
    *("01 - Coastal aerosol", "02 - Blue", "03 - Green", "04 - Red", "05 - Vegetation Red Edge"),
    *("06 - Vegetation Red Edge", "07 - Vegetation Red Edge", "08 - NIR", "08A - Vegetation Red Edge"),
    *("09 - Water vapour", "10 - SWIR - Cirrus", "11 - SWIR", "12 - SWIR"),
)
S1 = (
    *("01 - VH.Real", "02 - VH.Imaginary", "03 - VV.Real", "04 - VV.Imaginary", "05 - VH.LEE Filtered"),
    *("06 - VV.LEE Filtered", "07 - VH.LEE Filtered.Real", "08 - VV.LEE Filtered.Imaginary"),
)
LANDSAT = ("02 - Blue", "03 - Green", "04 - Red", "05 - NIR", "06 - SWIR1", "07 - SWIR2")
RGB = ("Red", "Green", "Blue")
BANDS = {
    "m-bigearthnet": tuple(name for name in S2 if "Cirrus" not in name),
    "m-forestnet": LANDSAT,
    "m-so2sat": S1 + tuple(name for name in S2 if name[:2] not in ("01", "09", "10")),
    "m-chesapeake": (*RGB, "NIR"),
    **dict.fromkeys(("m-pv4ger", "m-pv4ger-seg", "m-nz-cattle"), RGB),
    "m-NeonTree": (*RGB, "Canopy Height", "Neon"),
}
LABEL_CLASS = {
    "classification": "Classification",
    "multi-label": "MultiLabelClassification",
    "segmentation": "SegmentationClasses",
}


class FakeGeobench:
    """Classes that pickle as those of the geobench package, which is not installed."""

    def __init__(self, monkeypatch):
        self.modules = {name: types.ModuleType(name) for name in ("geobench", "geobench.dataset", "geobench.label")}
        self.modules["geobench.task"] = types.ModuleType("geobench.task")
        for name, module in self.modules.items():
            monkeypatch.setitem(sys.modules, name, module)

    def make(self, path, **attributes):
        module, _, name = path.rpartition(".")
        if not hasattr(self.modules[module], name):
            setattr(self.modules[module], name, type(name, (), {"__module__": module}))
        made = getattr(self.modules[module], name)()
        made.__dict__.update(attributes)
        return made

    def band(self, name):
        kind = "HyperSpectralBands" if name == "Neon" else "Sentinel2" if name in S2 else "SpectralBand"
        return self.make(f"geobench.dataset.{kind}", name=name, alt_names=("x",), spatial_resolution=10)

    def label(self, kind, classes, names):
        module = "dataset" if kind == "segmentation" else "label"
        attributes = {"n_classes": classes, "class_name" if kind == "multi-label" else "_class_names": names}
        return self.make(f"geobench.{module}.{LABEL_CLASS[kind]}", **attributes)


@pytest.fixture
def fake(monkeypatch):
    return FakeGeobench(monkeypatch)


def write_sample(fake, folder, name, bands, label, *, dates=(None,), more=None):
    """As geobench's write_sample_hdf5: a dataset a band, all attributes in one pickle, which is stored as text."""
    record = {}
    with h5py.File(folder / f"{name}.hdf5", "w") as file:
        order = []
        for date in dates:
            for band, data in bands.items():
                descriptor = band if date is None else f"{band}_{date:%Y-%m-%d}"
                file.create_dataset(descriptor, data=data if date in (None, dates[0]) else data + 1)
                record[descriptor] = {
                    "date": date,
                    "date_id": date,
                    "spatial_resolution": np.float64(10),
                    "band_info": fake.band(band),
                    "meta_info": {"tile": ("a", 1)},
                    "transform": Affine(10, 0, 0, 0, -10, 0),
                    "crs": CRS.from_epsg(32633),
                }
                order.append(descriptor)
        if isinstance(label, np.ndarray) and label.ndim >= 2:
            file.create_dataset("label", data=label)
            record["label"] = {"band_info": fake.label("segmentation", 2, None), "date": None}
            order.append("label")
        else:
            record["label"] = label
        record["bands_order"] = order
        file.attrs["pickle"] = str(pickle.dumps({**record, **(more or {})}))


def write_task(fake, root, task, *, size=12, count=6, dates=(None,), names=None):
    facts = TASKS[task]
    benchmark = "segmentation_v1.0" if facts.kind == "segmentation" else "classification_v1.0"
    folder = root / benchmark / task
    folder.mkdir(parents=True)
    names = names or [f"name {index}" for index in range(facts.classes)]
    specification = fake.make(
        "geobench.task.TaskSpecifications",
        dataset_name=task,
        benchmark_name="converted",
        patch_size=(size, size),
        n_time_steps=1,
        bands_info=[fake.band(band) for band in BANDS.get(task, S2)],
        label_type=fake.label(facts.kind, facts.classes, names),
        spatial_resolution=np.float64(10),
    )
    (folder / "task_specs.pkl").write_bytes(pickle.dumps(specification, protocol=4))
    stored = {}
    for index in range(count):
        bands = {band: RNG.integers(0, 6000, (size, size)).astype(np.int16) for band in BANDS.get(task, S2)}
        if "Neon" in bands:
            bands["Neon"] = RNG.integers(0, 99, (size, size, 5)).astype(np.int16)
        label = {
            "classification": int(RNG.integers(facts.classes)),
            "multi-label": RNG.integers(0, 2, facts.classes),
            "segmentation": RNG.integers(0, facts.classes, (size, size)).astype(np.uint8),
        }[facts.kind]
        write_sample(fake, folder, f"sample_{index}", bands, label, dates=dates)
        stored[f"sample_{index}"] = bands, label
    samples = list(stored)
    splits = {"train": samples[2:], "valid": samples[1:2], "test": samples[:1]}
    (folder / "default_partition.json").write_text(json.dumps(splits))
    (folder / "0.01x_train_partition.json").write_text(json.dumps({**splits, "train": samples[3:4]}))
    (folder / "band_stats.json").write_text("{}")
    return folder, stored


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_task_is_read_in_its_layout(fake, tmp_path, task):
    facts = TASKS[task]
    _, stored = write_task(fake, tmp_path, task)
    recipe = facts.recipe or BandRecipe(("Red", "Green", "Blue"), 100.0)
    data = GeoBench(task, "train", root=tmp_path, recipe=recipe)
    assert (len(data), data.kind, len(data.names)) == (4, facts.kind, facts.classes)
    assert data.names[1] == "name 1"
    assert data.specification.band_names == BANDS.get(task, S2)
    for sample in data:
        bands, label = stored[sample.name]
        order = RGB if set(RGB) <= set(bands) else ("04 - Red", "03 - Green", "02 - Blue")
        divisor = RECIPES[facts.recipe].divisor if facts.recipe else 100.0
        expected = np.clip(np.stack([bands[name] for name in order]) / divisor, 0, 1)
        np.testing.assert_allclose(sample.image, expected, rtol=1e-6)
        assert sample.image.dtype == np.float32
        np.testing.assert_array_equal(sample.label, label)
    assert [sample.name for sample in GeoBench(task, "valid", root=tmp_path, recipe=recipe)] == ["sample_1"]
    limited = GeoBench(task, "train", root=tmp_path, recipe=recipe, partition="0.01x_train")
    assert limited.samples == ["sample_3"]


def test_eleven_data_sets_are_known():
    assert TASKS["m-forestnet"].classes == 12
    assert len({task.removesuffix("-seg") for task in TASKS}) == 11
    assert task_facts("m-chesapeake-landcover") == TASKS["m-chesapeake"]
    assert task_facts("m-unknown") is None


def test_types_of_labels(fake, tmp_path):
    write_task(fake, tmp_path, "m-eurosat")
    write_task(fake, tmp_path, "m-bigearthnet")
    write_task(fake, tmp_path, "m-nz-cattle")
    assert type(GeoBench("m-eurosat", "test", root=tmp_path)[0].label) is int
    many = GeoBench("m-bigearthnet", "test", root=tmp_path)[0].label
    assert (many.dtype, many.shape) == (np.float32, (43,))
    assert GeoBench("m-nz-cattle", "test", root=tmp_path)[0].label.dtype == np.uint8


def test_the_class_without_data_is_told_by_its_name_or_by_the_table(fake, tmp_path):
    names = ["water", "trees", "low", "barren", "other", "roads", "No-Data"]
    write_task(fake, tmp_path, "m-chesapeake", names=names)
    write_task(fake, tmp_path, "m-cashew-plant")
    write_task(fake, tmp_path, "m-nz-cattle")
    found = {task: GeoBench(task, "test", root=tmp_path).no_data for task in ("m-chesapeake", "m-cashew-plant")}
    assert found == {"m-chesapeake": 6, "m-cashew-plant": 0}
    assert GeoBench("m-nz-cattle", "test", root=tmp_path).no_data is None


def test_the_official_chesapeake_input_is_an_option(fake, tmp_path):
    write_task(fake, tmp_path, "m-chesapeake")
    official = GeoBench("m-chesapeake", "train", root=tmp_path, recipe="chesapeake-official")[0].image
    assert set(np.unique(official)) <= {0, 1}
    assert len(np.unique(GeoBench("m-chesapeake", "train", root=tmp_path)[0].image)) > 2


def test_values_that_are_no_class_are_reported(fake, tmp_path):
    folder, stored = write_task(fake, tmp_path, "m-nz-cattle", count=1)
    bands, label = stored["sample_0"]
    label[0, :3] = 7, 7, 255
    write_sample(fake, folder, "sample_0", bands, label)
    with pytest.warns(RuntimeWarning, match=r"sample_0\.hdf5: 2 of 144 pixels have values that are no class \(7; "):
        found = GeoBench("m-nz-cattle", "test", root=tmp_path)[0].label
    assert found[0, :3].tolist() == [255] * 3
    np.testing.assert_array_equal(found.ravel()[3:], label.ravel()[3:])
    label[0, :2] = 0
    write_sample(fake, folder, "sample_0", bands, label)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert GeoBench("m-nz-cattle", "test", root=tmp_path)[0].label[0, 2] == 255


def test_where_tasks_are_looked_for(fake, tmp_path, monkeypatch):
    folder, _ = write_task(fake, tmp_path, "m-eurosat")
    monkeypatch.delenv("GEO_BENCH_DIR", raising=False)
    for root in (tmp_path, tmp_path / "classification_v1.0", folder):
        assert find_task("m-eurosat", root) == folder
    with pytest.raises(InputError, match="GEO_BENCH_DIR"):
        find_task("m-eurosat")
    monkeypatch.setenv("GEO_BENCH_DIR", str(tmp_path))
    assert find_task("m-eurosat") == folder
    with pytest.raises(InputError, match=r"no task m-so2sat.*classification_v1\.0/m-so2sat"):
        find_task("m-so2sat")
    folder.rename(tmp_path / "m-chesapeake-landcover")
    assert find_task("m-chesapeake", tmp_path).name == "m-chesapeake-landcover"


def test_dates_channels_and_coarse_bands(fake, tmp_path):
    dates = (DATE, datetime.date(2019, 1, 1))
    bands = {"Red": np.ones((8, 8), np.int16), "Neon": np.arange(128).reshape(8, 8, 2), "Green": np.eye(4)}
    write_sample(fake, tmp_path, "a", bands, 0, dates=dates[::-1])  # the later one is written first
    first, label = read_sample(tmp_path / "a.hdf5")
    assert label == 0
    assert list(first) == ["Red", "Neon 000", "Neon 001", "Green"]
    last, _ = read_sample(tmp_path / "a.hdf5", date=-1)
    np.testing.assert_array_equal(first["Red"], last["Red"] + 1)
    np.testing.assert_array_equal(last["Neon 001"], bands["Neon"][..., 1])
    with pytest.raises(InputError, match="2 dates"):
        read_sample(tmp_path / "a.hdf5", date=2)
    write_task(fake, tmp_path, "m-pv4ger")
    folder = find_task("m-pv4ger", tmp_path)
    coarse = {"Red": np.full((12, 12), 51), "Green": np.full((6, 6), 102), "Blue": np.full((3, 3), 255)}
    write_sample(fake, folder, "sample_0", coarse, 1)
    image = GeoBench("m-pv4ger", "test", root=tmp_path)[0].image
    np.testing.assert_allclose(image.reshape(3, -1).T, np.tile([0.2, 0.4, 1], (144, 1)), rtol=1e-5)
    ramp = {**coarse, "Green": np.arange(6)[:, None] * 51.0 * np.ones(6)}
    write_sample(fake, folder, "sample_0", ramp, 1)
    green = GeoBench("m-pv4ger", "test", root=tmp_path)[0].image[1, :, 3]
    np.testing.assert_allclose(green[1:-1], (np.arange(1, 11) / 2 - 0.25) * 0.2, atol=1e-6)  # bilinear, centred


class RunsOnLoad:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_that_would_run_a_command_is_refused(fake, tmp_path):
    marker = tmp_path / "ran"
    pickle.loads(pickle.dumps(RunsOnLoad(marker)))
    assert marker.exists()  # what a plain loader does
    marker.unlink()
    folder, stored = write_task(fake, tmp_path, "m-eurosat")
    bands, label = stored["sample_0"]
    write_sample(fake, folder, "sample_0", bands, label, more={"note": RunsOnLoad(marker)})
    with pytest.raises(InputError, match=r"sample_0\.hdf5.*posix\.system.*can run code"):
        GeoBench("m-eurosat", "test", root=tmp_path)[0]
    (folder / "task_specs.pkl").write_bytes(pickle.dumps(RunsOnLoad(marker)))
    with pytest.raises(InputError, match=r"task_specs\.pkl.*posix\.system"):
        GeoBench("m-eurosat", "test", root=tmp_path)
    assert not marker.exists()


def test_classes_of_geobench_become_stubs(fake):
    stub = safe_loads(pickle.dumps(fake.band("Red")), stubs=("geobench",))
    assert isinstance(stub, Stub)
    assert (stub.stub_class, stub.name) == ("geobench.dataset.SpectralBand", "Red")


def test_a_label_outside_the_order_of_the_bands_and_an_absurd_size(fake, tmp_path):
    folder, stored = write_task(fake, tmp_path, "m-nz-cattle")
    bands, label = stored["sample_0"]
    write_sample(fake, folder, "sample_0", bands, label, more={"bands_order": list(bands)})
    read, found = read_sample(folder / "sample_0.hdf5")
    assert list(read) == list(bands)
    np.testing.assert_array_equal(found, label)
    with h5py.File(folder / "sample_0.hdf5", "a") as file:
        del file["Red"]
        file.create_dataset("Red", shape=(2**24, 2**24), dtype="f8", chunks=(64, 64))
    with pytest.raises(InputError, match=r"sample_0\.hdf5.*can be read"):
        read_sample(folder / "sample_0.hdf5")


def test_broken_tasks_and_samples(fake, tmp_path):
    folder, stored = write_task(fake, tmp_path, "m-eurosat")
    whole = (folder / "sample_0.hdf5").read_bytes()
    bands, _ = stored["sample_0"]

    def refused(message):
        with pytest.raises(InputError, match=message):
            GeoBench("m-eurosat", "test", root=tmp_path)[0]

    (folder / "sample_0.hdf5").write_bytes(whole[: len(whole) // 2])
    refused(r"sample_0\.hdf5")
    (folder / "sample_0.hdf5").write_bytes(b"")
    refused(r"sample_0\.hdf5")
    for label in (10, -1, "river", 1.5, np.ones(10)):
        write_sample(fake, folder, "sample_0", bands, label)
        refused("its label .* is not a class")
    with h5py.File(folder / "sample_0.hdf5", "w") as file:
        file["04 - Red"] = np.ones((4, 4))
    refused("no attribute 'pickle'")
    for text, message in (
        ("import os", "no bytes literal"),
        ("'text'", "no dictionary"),
        (str(pickle.dumps([1])), "no dictionary"),
        (str(pickle.dumps({"label": 0, "bands_order": ["gone"]})), "cannot|can be read"),
        (str(pickle.dumps({"bands_order": ["04 - Red"]})), "no label"),
        (str(pickle.dumps({"label": 0, "bands_order": []})), "no bands"),
    ):
        with h5py.File(folder / "sample_0.hdf5", "a") as file:
            file.attrs["pickle"] = text
        refused(message)
    (folder / "sample_0.hdf5").unlink()
    refused("1 of its 1 samples are not there")
    for text, message in (
        ("[", "not a table"),
        ("[1]", "not a table"),
        (json.dumps({"test": []}), "empty"),
        (json.dumps({"train": ["a"]}), "no split 'test'; it has train"),
        (json.dumps({"train": ["sample_1"], "test": ["sample_1"]}), "is in train and in test"),
        (json.dumps({"test": ["../sample_1"]}), "outside"),
    ):
        (folder / "default_partition.json").write_text(text)
        refused(message)
    (folder / "default_partition.json").unlink()
    refused(r"no such partition.*0\.01x_train")


def test_wrong_specifications_and_recipes(fake, tmp_path):
    folder, _ = write_task(fake, tmp_path, "m-forestnet")
    with pytest.raises(InputError, match="no published choice"):
        GeoBench("m-forestnet", "test", root=tmp_path)
    with pytest.raises(InputError, match="no band recipe 'tv'"):
        GeoBench("m-forestnet", "test", root=tmp_path, recipe="tv")
    regression = fake.make("geobench.label.Regression", n_classes=1)
    for record, message in (
        ({"a": 1}, "not a GEO-Bench task"),
        (fake.make("geobench.task.TaskSpecifications", label_type=regression), "type Regression"),
        (fake.make("geobench.task.TaskSpecifications", label_type=fake.label("classification", 3, ["a"])), "1 names"),
    ):
        (folder / "task_specs.pkl").write_bytes(pickle.dumps(record))
        with pytest.raises(InputError, match=message):
            read_task_specification(folder)
    (folder / "task_specs.pkl").unlink()
    with pytest.raises(InputError, match=r"task_specs\.pkl.*no such file"):
        read_task_specification(folder)
