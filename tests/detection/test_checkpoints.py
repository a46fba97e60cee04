"""Detectors on disk: the published keys to the last one, CoAlign's directories at full size, what is refused."""

from __future__ import annotations

import json
import os
import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from priorscope.cli import main
from priorscope.errors import InputError
from priorscope_detection.checkpoints import AnchorSettings, Detector, load_detector, save_detector
from priorscope_detection.coalign import find_weights, read_settings
from priorscope_detection.codiff.released_unet import ReleasedUnet
from priorscope_detection.network.batch import AgentSweep, make_batch
from priorscope_detection.network.detector import CollaborativeDetector
from priorscope_detection.network.spec import SIZES, CoDiffSpec, DetectorSpec
from priorscope_detection.post_processing import PostProcessing
from priorscope_detection.simulator.settings import StreetSettings
from priorscope_detection.simulator.write import write_opv2v as write_opv2v_streets

TINY = replace(SIZES["tiny"], attend="published")


def shapes(network):
    return {key: list(value.shape) for key, value in network.state_dict().items()}


def on_meta(spec):
    with torch.device("meta"):
        return CollaborativeDetector(spec)


def test_golden_manifest_detection(golden_files, read_manifest):
    found = {path.name: read_manifest(path) for path in golden_files("robotics_detection", "manifest-co*")}
    coalign = found.pop("manifest-coalign-pointpillar-resnet-multiscale-att.tsv")
    assert shapes(on_meta(DetectorSpec())) == coalign
    codiff = found.pop("manifest-codiff-DifussionFusion.tsv")
    with torch.device("meta"):
        unet = shapes(ReleasedUnet())
    names = [f"diffusion.{part}.{key}" for part in ("unet", "diffusion.model") for key in unet]
    rest = {"diffusion.conv_layer_downsample.weight": [8, 8, 3, 3], "diffusion.conv_layer_downsample.bias": [8]}
    assert {key: unet[key.split(".", 2)[2].removeprefix("model.")] for key in names} | rest == codiff
    assert not found


# ---- CoAlign's directories ----------------------------------------------------------------------------------------


class Numpy:
    """Stands for an array among the settings, as numpy has itself written."""


def settings_of(spec, **changes):
    """The settings that a directory holds, as they are saved after OpenCOOD has computed on them."""
    args = {
        "anchor_number": spec.anchors,
        "voxel_size": list(spec.cell),
        "lidar_range": list(spec.extent),
        "grid_size": Numpy(),
        "fusion_method": {"attention": "att", "max": "max"}[spec.fusion],
        "pillar_vfe": {"use_norm": True, "with_distance": False, "use_absolute_xyz": True, "num_filters": [64]},
        "base_bev_backbone": {
            "resnet": True,
            "layer_nums": list(spec.layers),
            "layer_strides": list(spec.strides),
            "num_filters": list(spec.filters),
            "upsample_strides": list(spec.up_strides),
            "num_upsample_filter": list(spec.up_filters),
        },
    }
    return {
        "name": "opv2v_point_pillar_lidar_multiscale_att",
        "preprocess": {
            "core_method": "SpVoxelPreprocessor",
            "args": {"voxel_size": list(spec.cell), "max_points_per_voxel": 32, "max_voxel_test": 70000},
            "cav_lidar_range": list(spec.extent),
        },
        "postprocess": {
            "core_method": "VoxelPostprocessor",
            "gt_range": list(spec.extent),
            "anchor_args": {"l": 3.9, "w": 1.6, "h": 1.56, "r": [0, 90], "feature_stride": 2, "num": 2},
            "target_args": {"pos_threshold": 0.6, "neg_threshold": 0.45, "score_threshold": 0.25},
            "order": "hwl",
            "nms_thresh": 0.15,
            "dir_args": {"dir_offset": 0.7853, "num_bins": 2, "anchor_yaw": [0, 90]},
        },
        "model": {"core_method": "point_pillar_baseline_multiscale", "args": args},
        "lr": "2e-3",
    } | changes


class _Dumper(yaml.Dumper):
    pass


_Dumper.add_representer(
    Numpy,
    lambda dumper, _: dumper.represent_mapping(
        "tag:yaml.org,2002:python/object/apply:numpy.core.multiarray._reconstruct", {"args": [0], "state": [1, 2]}
    ),
)


def random_state(spec, seed=0):
    """Weights that keep signals at their size, running statistics that change something."""
    torch.manual_seed(seed)
    network = CollaborativeDetector(spec)
    for name, value in network.state_dict().items():
        if value.ndim > 1:
            nn.init.normal_(value, std=(2 / value[0].numel()) ** 0.5)
        elif name.endswith("running_var"):
            nn.init.uniform_(value, 0.5, 1.5)
        elif value.is_floating_point():
            nn.init.normal_(value, mean=float(name.endswith("weight")), std=0.1)
    return network.state_dict()


def write_directory(folder, spec, state, *, name="net_epoch_bestval_at23.pth", settings=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.dump(settings or settings_of(spec), Dumper=_Dumper))
    torch.save(state, folder / name)
    return folder


def frame(spec, agents=2, count=3000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([spec.extent[3] - spec.extent[0], spec.extent[4] - spec.extent[1], 3.0]) / 4
    sweeps = []
    for number in range(agents):
        xyz = torch.randn(count, 3, generator=generator) * size
        pose = torch.eye(4, dtype=torch.float64)
        pose[0, 3] = 3.0 * number
        sweeps.append(AgentSweep(torch.cat([xyz, torch.rand(count, 1, generator=generator)], 1), pose))
    return sweeps


@pytest.mark.parametrize("fusion", ["attention", "max"])
def test_directory_of_coalign(tmp_path, fusion):
    spec = replace(TINY, fusion=fusion, max_points=32, max_pillars=70_000)
    state = random_state(spec)
    folder = write_directory(tmp_path / "coalign", spec, {f"module.{key}": value for key, value in state.items()})
    for source in (folder, folder / "net_epoch_bestval_at23.pth"):
        found = load_detector(source)
        assert found.spec == replace(spec, codiff=CoDiffSpec())  # it has none
        assert (found.choice.score, found.choice.nms, found.choice.longest) == (0.25, 0.15, 6.0)
        assert found.choice.limits == spec.extent
        assert found.anchors.placement == "published"
        assert found.anchor_boxes().shape == (8, 16, 2, 7)
        assert found.trained_on == "opv2v_point_pillar_lidar_multiscale_att"
        assert all(torch.equal(value, state[key]) for key, value in found.network.state_dict().items())
    network = CollaborativeDetector(spec).eval()
    network.load_state_dict(state)
    batch = make_batch([frame(spec)], spec)
    with torch.no_grad():
        torch.testing.assert_close(found.network(batch).classes, network(batch).classes)


def test_which_epoch_counts(tmp_path):
    for name in ("net_epoch1.pth", "net_epoch9.pth", "net_epoch10.pth", "other.pth", "net_epoch_x.pth"):
        (tmp_path / name).touch()
    assert find_weights(tmp_path).name == "net_epoch10.pth"
    for name in ("net_epoch_bestval_at3.pth", "net_epoch_bestval_at7.pth"):
        (tmp_path / name).touch()
    assert find_weights(tmp_path).name == "net_epoch_bestval_at7.pth"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="neither net_epoch_bestval_atN"):
        find_weights(tmp_path / "empty")


class Attack:
    def __reduce__(self):
        return os.system, ("true",)


def test_directories_that_do_not_fit(tmp_path):
    state = random_state(TINY)

    def refused(message, *, weights=None, settings=None):
        folder = write_directory(tmp_path / "coalign", TINY, weights or state, settings=settings)
        with pytest.raises(InputError, match=message) as error:
            load_detector(folder)
        assert "\n" not in str(error.value)

    lacking = {key: value for key, value in state.items() if key != "cls_head.bias"}
    refused(r"1 missing \(cls_head\.bias\)", weights=lacking)
    refused(r"1 unexpected \(extra\)", weights=state | {"extra": torch.zeros(1)})
    refused(r"1 not finite \(cls_head\.bias\)", weights=state | {"cls_head.bias": torch.full((2,), float("nan"))})
    refused("have no cls_head.weight", weights={k: v for k, v in state.items() if "cls" not in k})
    refused(r"its pickle asks for posix\.system, which is not loaded", weights={"x": Attack()})
    refused("holds no state dict", weights={"epoch": 3})
    base = settings_of(TINY)
    refused("its model is point_pillar", settings=base | {"model": {"core_method": "point_pillar", "args": {}}})
    args = base["model"]["args"]

    def model(**changes):
        return base | {"model": base["model"] | {"args": args | changes}}

    refused("its fusion is 'v2v'", settings=model(fusion_method="v2v"))
    refused(r"its fusion is \['att'\]", settings=model(fusion_method=["att"]))
    backbone = args["base_bev_backbone"]
    refused("layer_nums is", settings=model(base_bev_backbone=backbone | {"layer_nums": [3, 3, 3]}))
    refused("do not give maps", settings=model(base_bev_backbone=backbone | {"layer_strides": [2, 1, 2]}))
    refused("no preprocess.cav_lidar_range", settings=model(lidar_range=None) | {"preprocess": {}})
    wide = base["preprocess"] | {"cav_lidar_range": [-12.8, -6.4, -3, 13.6, 6.4, 1]}
    refused("End the range at", settings=base | {"preprocess": wide})
    refused("6 numbers are expected", settings=base | {"preprocess": wide | {"cav_lidar_range": [1, 2]}})
    anchors = base["postprocess"]["anchor_args"]
    post = base["postprocess"] | {"anchor_args": anchors | {"feature_stride": 4}}
    refused("anchors of stride 4", settings=base | {"postprocess": post})
    post = base["postprocess"] | {"anchor_args": anchors | {"r": [0, 45, 90]}}
    refused("for a detector with 2 a cell", settings=base | {"postprocess": post})
    for name, value in (("feature_stride", "two"), ("l", [3.9]), ("r", ["north", 90])):
        post = base["postprocess"] | {"anchor_args": anchors | {name: value}}
        refused(rf"anchor_args\.{name} is .*expected", settings=base | {"postprocess": post})
    for name, value in (
        ("nms_thresh", "low"),
        ("nms_thresh", float("nan")),
        ("nms_thresh", 10**400),
        ("gt_range", [0, 1, "far", 3, 4, 5]),
    ):
        refused(rf"{name} is .*expected", settings=base | {"postprocess": base["postprocess"] | {name: value}})
    for name, value, message in (
        ("order", "lhw", "postprocess.order is 'lhw'"),
        ("dir_args", {"dir_offset": 0.0}, "dir_offset is 0"),
        ("dir_args", {"num_bins": 4}, "num_bins is 4 in the settings and 2"),
    ):
        refused(message, settings=base | {"postprocess": base["postprocess"] | {name: value}})
    four = {key: torch.cat([value] * 2) if key.startswith("dir_head") else value for key, value in state.items()}
    quiet = base | {"postprocess": {k: v for k, v in base["postprocess"].items() if k != "dir_args"}}
    refused("headings in 4 bins", weights=four, settings=quiet)
    voxels = base["preprocess"] | {"args": {"max_points_per_voxel": "many", "voxel_size": list(TINY.cell)}}
    refused("max_points_per_voxel is 'many'", settings=base | {"preprocess": voxels})
    refused("layer_strides is 2.5", settings=model(base_bev_backbone=backbone | {"layer_strides": [2.5, 2, 2]}))
    folder = tmp_path / "coalign"
    write_directory(folder, TINY, state)
    (folder / "net_epoch_bestval_at23.pth").write_bytes(b"no zip")
    with pytest.raises(InputError, match="is no file of weights that can be read"):
        load_detector(folder)


#: Whoever prints what stands at "order" prints a thousand million values.
BOMB = "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]\n" for n in range(9))
BOMB += "model: {core_method: x}\npostprocess: {order: *a9}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [", "no YAML that can be read"),
        ("[" * 1500, "no YAML that can be read"),
        (BOMB, "aliases unfold to more than"),
        ("model: &a {x: 1}\nb:\n  <<: *a\n", "merge keys"),
        ("- 1\n", "no settings of a model"),
        ("model: !!python/object/apply:os.system ['true']\n", "no settings of a model"),
        ("model: !<!own> 3\n", "no YAML that can be read"),
        ("\xff", "no settings of a model"),
    ],
)
def test_settings_that_are_none(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_settings(path)
    path.unlink()
    with pytest.raises(InputError, match="is missing"):
        read_settings(path)


# ---- our folder ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", ["attention", "v2x", "codiff"])
def test_our_folder_keeps_everything(tmp_path, fusion):
    spec = replace(SIZES["tiny"], fusion=fusion)
    network = CollaborativeDetector(spec).eval()
    network.load_state_dict(random_state(spec))
    detector = Detector(network, AnchorSettings(z=-0.5), PostProcessing(score=0.3), "streets")
    save_detector(detector, tmp_path / "model")
    found = load_detector(tmp_path / "model")
    assert (found.spec, found.anchors, found.choice, found.trained_on) == (
        spec,
        detector.anchors,
        detector.choice,
        "streets",
    )
    batch = make_batch([frame(spec)], spec)
    with torch.no_grad():
        torch.testing.assert_close(found.network(batch).classes, network(batch).classes)
    save_detector(detector, tmp_path / "half", dtype=torch.float16)
    stored = load_file(tmp_path / "half/model.safetensors")
    assert {value.dtype for key, value in stored.items() if "running" in key} == {torch.float32}
    with torch.no_grad():
        half = load_detector(tmp_path / "half").network(batch).classes
    torch.testing.assert_close(half, network(batch).classes, rtol=0.02, atol=0.02)


def test_folders_that_do_not_fit(tmp_path):
    with pytest.raises(InputError, match="no such model folder"):
        load_detector(tmp_path / "nowhere")
    save_detector(Detector(CollaborativeDetector(TINY)), tmp_path / "model")
    (tmp_path / "model/model.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match="cannot be read"):
        load_detector(tmp_path / "model")
    (tmp_path / "model/config.json").write_text("{}")
    with pytest.raises(InputError, match="is no detector of priorscope"):
        load_detector(tmp_path / "model")
    (tmp_path / "model/config.json").unlink()
    with pytest.raises(InputError, match="holds no model: neither"):
        load_detector(tmp_path / "model")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("layers", 1), 10**9, "a size of 1000000000"),
        (("filters", 0), 10**9, "a size of 1000000000"),
        (("shrink",), 10**6, "a size of 1000000"),
        (("shrink",), -1, "a size of 0"),
        (("direction_bins",), -1, "a size of 0"),
        (("max_points",), 0, "a size of 0"),
        (("pillar_filters",), [], "a size of 0"),
        (("v2x_heads",), 3, "3 heads on 16 channels"),
        (("v2x_windows",), [], "in windows of"),
        (("v2x_windows", 0), 10**9, "a size of 1000000000"),
        (("codiff", "blocks"), 10**9, "a size of 1000000000"),
        (("codiff", "noise_steps"), 10**9, "1000000000 noise steps"),
        (("codiff", "steps"), 0, "a size of 0"),
    ],
)
def test_sizes_that_cannot_be(tmp_path, place, value, message):
    folder = save_detector(Detector(CollaborativeDetector(replace(TINY, fusion="v2x"))), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    part = config["network"]
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message) as caught:
        load_detector(folder)
    assert len(str(caught.value)) < 300


# ---- full size ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_full_size_directory_of_coalign(tmp_path, golden_files, read_manifest, write_random_weights):
    (path,) = golden_files("robotics_detection", "manifest-coalign-pointpillar-resnet-multiscale-att.tsv")
    manifest = read_manifest(path)
    write_random_weights(tmp_path / "weights.safetensors", manifest)
    state = load_file(tmp_path / "weights.safetensors")
    for key in state:
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(1000)
        elif key.endswith(("running_var", "bn1.weight", "bn2.weight", ".1.weight")):
            state[key] = torch.ones_like(state[key])  # norms that are not called norm
    spec = DetectorSpec()
    folder = write_directory(tmp_path / "coalign", spec, state)
    detector = load_detector(folder)
    assert sum(weight.numel() for weight in detector.network.parameters()) > 12_800_000
    batch = make_batch([frame(spec, agents=3, count=60_000)], detector.spec)
    with torch.no_grad():
        maps = detector.network(batch)
    assert maps.classes.shape == (1, 2, 100, 352)
    assert float(maps.classes.std()) > 0.01
    # the user's way: three agents in OPV2V's layout through the command, at full width
    streets = StreetSettings(cars=3, road_side_unit=False, frames=1, spread=25.0)
    data = write_opv2v_streets(tmp_path / "streets", [0], streets, progress=False)
    words = ["detection", "predict", str(data), "--model", str(folder), "--published-frames", "--device", "cpu"]
    scores = torch.sigmoid(maps.classes).flatten()
    threshold = float(scores.kthvalue(len(scores) - 200).values)  # random weights: the best few hundred
    assert main([*words, "--out", str(tmp_path / "out"), "--score-threshold", f"{threshold:.6f}"]) == 0
    (path,) = (tmp_path / "out").glob("*.json")
    found = json.loads(path.read_text())
    assert len(found["agents"]) == 3
    assert all(np.isfinite([*box["centre"], *box["size"], box["yaw"], box["score"]]).all() for box in found["boxes"])
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".txt", ".png"}
    size = os.path.getsize(folder / "net_epoch_bestval_at23.pth") / 1e6
    print(f"{len(found['boxes'])} boxes, {size:.0f} MB file,")
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB at most")
