"""What a model folder is, and the model table of the depth app."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from priorscope.backbones.table import find_published, published_models
from priorscope.errors import InputError
from priorscope_depth.configs import ModelConfig
from priorscope_depth.families import FAMILIES, MODELS, TRANSFORMERS, Recipe, recognise
from priorscope_depth.primedepth.source import PRIMEDEPTH


@pytest.fixture
def folder(tmp_path):
    """A folder of any name with the given JSON files."""

    def make(name="model", **files):
        path = tmp_path / name
        path.mkdir()
        for stem, content in files.items():
            (path / f"{stem}.json").write_text(json.dumps(content))
        return path

    return make


def described(recipe):
    return recipe.family.name, recipe.task, recipe.space


@pytest.mark.parametrize("row", MODELS, ids=lambda row: row.name)
def test_table_row(folder, row):
    """Each row names a family or another loader; a family is recognised by its name, hub id and its folder's name."""
    assert row.app == "depth"
    assert row.loader in (*FAMILIES, *TRANSFORMERS, PRIMEDEPTH.loader)
    assert row.task in ("depth", "disparity", "normals")
    assert row.licence
    assert row.size
    assert find_published(row.name, MODELS) is row
    assert find_published(row.source, MODELS) is row
    assert row.bundled or row.source.count("/") == 1
    if row.loader not in FAMILIES:
        return
    task = "normals" if row.task == "normals" else "depth"
    expected = (row.loader, task, "disparity" if row.task == "disparity" else "depth")
    elsewhere = folder("0123abcd")  # as a snapshot of the hub's cache is called
    assert described(recognise(elsewhere, name=row.name)) == expected
    assert described(recognise(elsewhere, name=row.source)) == expected
    assert described(recognise(folder(Path(row.source).name))) == expected


def test_table_names_are_unique_and_all_are_listed():
    names = [row.name for row in MODELS]
    assert len(set(names)) == len(names)
    assert len({row.source for row in MODELS}) == len(MODELS)
    assert [row for row in published_models() if row.app == "depth"] == MODELS


def test_lotus_names_say_their_mode_and_space():
    for row in MODELS:
        if row.name.startswith("lotus-"):
            assert row.loader == ("lotus-g" if "-g-" in row.name else "lotus-d")
            assert (row.task == "disparity") == row.name.endswith("-disparity")
            assert (row.task == "normals") == row.name.startswith("lotus-normal-")


def test_options_of_the_command_name_every_family():
    from typing import get_args, get_type_hints

    hint = get_type_hints(ModelConfig)["family"]
    literal = next(part for part in get_args(hint) if part is not type(None))
    assert set(get_args(literal)) == set(FAMILIES)


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        ("DirectDiffusionY0Pipeline", "lotus-g"),
        ("DirectRegressionPipeline", "lotus-d"),
        ("LotusGPipeline", "lotus-g"),
        ("LotusDPipeline", "lotus-d"),
    ],
)
def test_pipeline_classes_of_lotus_need_a_stated_task(folder, pipeline, expected):
    path = folder(model_index={"_class_name": pipeline})
    with pytest.raises(InputError, match=r"cannot tell task and space.*State --task --space"):
        recognise(path)
    with pytest.raises(InputError, match="cannot tell space"):
        recognise(path, task="depth")
    assert described(recognise(path, task="depth", space="disparity")) == (expected, "depth", "disparity")
    # a space says nothing about normals
    assert described(recognise(path, task="normals")) == (expected, "normals", "depth")


def test_pipeline_classes_of_marigold_say_all(folder):
    depth = folder("a", model_index={"_class_name": "MarigoldDepthPipeline"})
    normals = folder("b", model_index={"_class_name": "MarigoldNormalsPipeline"})
    assert described(recognise(depth)) == ("marigold", "depth", "depth")
    assert described(recognise(normals)) == ("marigold", "normals", "depth")


def test_what_is_stated_wins(folder):
    path = folder(
        "lotus-depth-d-v1-0",
        priorscope={"family": "e2e-ft", "task": "depth", "space": "disparity"},
        model_index={"_class_name": "DirectDiffusionY0Pipeline"},
    )
    assert described(recognise(path)) == ("e2e-ft", "depth", "disparity")
    assert described(recognise(path, family="lotus-d", space="depth")) == ("lotus-d", "depth", "depth")
    (path / "priorscope.json").unlink()
    assert described(recognise(path)) == ("lotus-d", "depth", "depth")


def test_marigold_class_does_not_hide_a_fine_tuned_name(folder):
    path = folder("marigold-e2e-ft-normals", model_index={"_class_name": "MarigoldPipeline"})
    assert described(recognise(path)) == ("e2e-ft", "normals", "depth")


def test_recipe_round_trip(tmp_path):
    recipe = Recipe(FAMILIES["lotus-d"], "depth", "disparity")
    recipe.save(tmp_path, resolution=256)
    assert recognise(tmp_path) == recipe
    assert json.loads((tmp_path / "priorscope.json").read_text())["resolution"] == 256


@pytest.mark.parametrize(
    ("stated", "word"),
    [
        ({"family": "lotus"}, "model family 'lotus'"),
        ({"task": "segmentation"}, "task 'segmentation'"),
        ({"space": "metres"}, "space 'metres'"),
        ({"family": ["lotus-d"]}, "model family"),
        ({"task": 3}, "task 3"),
    ],
)
def test_senseless_statements(folder, stated, word):
    path = folder(priorscope={"family": "lotus-d", "task": "depth", "space": "depth", **stated})
    with pytest.raises(InputError, match=word):
        recognise(path)


def test_unknown_pipeline_class(folder):
    for index in ({"_class_name": "StableDiffusionPipeline"}, {}, {"_class_name": None}, {"_class_name": ["a"]}):
        path = folder(f"m{len(str(index))}", model_index=index)
        with pytest.raises(InputError, match="--family"):
            recognise(path, task="depth", space="depth")
