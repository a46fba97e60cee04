"""What the integrations do without mmpose: configs given as values, heads alone, and one line where mmpose lacks."""

from __future__ import annotations

import copy
import importlib.util
import sys

import pytest
import torch
from safetensors.torch import save_file

from priorscope.errors import InputError
from priorscope_pose.codecs import CombinedHeatmap, MsraHeatmap, UdpHeatmap
from priorscope_pose.integrations import model_config, read_config
from priorscope_pose.integrations.openmmlab import module
from priorscope_pose.sdpose.checkpoint import load_head, load_network, save_network
from priorscope_pose.sdpose.settings import PUBLISHED
from priorscope_pose.sdpose.small import new_model

CODEC = {"type": "UDPHeatmap", "input_size": (768, 1024), "heatmap_size": (192, 256), "sigma": 6}
CONFIG = {
    "model": {
        "type": "TopdownPoseEstimator",
        "data_preprocessor": {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "bgr_to_rgb": True},
        "head": {"type": "HeatmapHead", "in_channels": 320, "out_channels": 17, "decoder": CODEC},
        "test_cfg": {"flip_test": True, "shift_heatmap": False},
    },
    "val_dataloader": {
        "dataset": {
            "type": "CocoDataset",
            "data_root": "data/coco/",
            "ann_file": "annotations/person_keypoints_val2017.json",
            "bbox_file": "data/coco/boxes.json",
            "data_prefix": {"img": "val2017/"},
            "pipeline": [
                {"type": "LoadImage"},
                {"type": "GetBBoxCenterScale", "padding": 1.4},
                {"type": "mmpose.TopdownAffine", "input_size": (768, 1024), "use_udp": True},
            ],
        }
    },
    "val_evaluator": {"type": "CocoMetric", "nms_mode": "soft_oks_nms", "nms_thr": 0.8, "score_mode": "bbox"},
}


def changed(**parts):
    """CONFIG with other values; a key names the way to it, with underlines doubled."""
    config = copy.deepcopy(CONFIG)
    for way, value in parts.items():
        *to, last = way.split("__")
        place = config
        for step in to:
            place = place[step]
        place[last] = value
    return config


def test_config_as_settings() -> None:
    found = read_config(CONFIG)
    assert found.codec == UdpHeatmap((768, 1024), (192, 256), 6)
    assert (found.crop, found.padding, found.keypoints, found.channels) == ("evaluated", 1.4, 17, 320)
    assert (found.skeleton, found.flip_test, found.shift_heatmap) == ("coco", True, False)
    assert (found.mean, found.std) == ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    assert found.annotations == "data/coco/annotations/person_keypoints_val2017.json"
    assert (found.images, found.boxes) == ("data/coco/val2017", "data/coco/boxes.json")
    assert found.postprocess == {
        "score": "bbox",
        "keypoint_threshold": 0.2,
        "nms": "soft_oks",
        "nms_threshold": 0.8,
    }
    assert found.settings("up_blocks.3") == PUBLISHED[17]


def test_other_codecs_and_crops() -> None:
    msra = {**CODEC, "type": "MSRAHeatmap", "sigma": 2, "unbiased": True, "blur_kernel_size": 17}
    found = read_config(changed(model__head__decoder=msra))
    assert found.codec == MsraHeatmap((768, 1024), (192, 256), 2, unbiased=True, blur_kernel=17)
    with pytest.raises(InputError, match="MsraHeatmap is no codec of SDPose"):
        found.settings("up_blocks.3")
    combined = {**CODEC, "heatmap_type": "combined", "radius_factor": 0.05}
    found = read_config(changed(model__head__decoder=combined, model__head__out_channels=51))
    assert found.codec == CombinedHeatmap((768, 1024), (192, 256), 0.05)
    assert found.keypoints == 17
    classic = [{"type": "TopdownAffine", "input_size": [768, 1024]}]
    assert read_config(changed(val_dataloader__dataset__pipeline=classic)).crop == "classic"
    with pytest.raises(InputError, match="none that is known here"):
        read_config(changed(val_dataloader__dataset__type="AicDataset")).settings("up_blocks.3")
    with pytest.raises(InputError, match="head of 21 keypoints for the skeleton 'coco'"):
        read_config(changed(model__head__out_channels=21)).settings("up_blocks.3")


@pytest.mark.parametrize(
    ("parts", "fact"),
    [
        ({"model": {"type": "BottomupPoseEstimator"}}, "describes BottomupPoseEstimator"),
        ({"model": None}, "describes no model"),
        ({"model__head__decoder": [CODEC, CODEC]}, "no decoder, or several"),
        ({"model__head__decoder": {"type": "RegressionLabel", "input_size": (1, 2)}}, "makes no heatmaps"),
        ({"model__head__decoder": {**CODEC, "type": "MegviiHeatmap"}}, "MegviiHeatmap is none of ours"),
        ({"model__head__decoder": {**CODEC, "input_size": (192, 256)}}, r"crops of \(768, 1024\)"),
        ({"model__head__out_channels": None}, "does not say how many heatmaps"),
        ({"val_dataloader": None}, "neither test_dataloader nor val_dataloader"),
    ],
)
def test_configs_that_cannot_be_read_are_one_line(parts, fact) -> None:
    with pytest.raises(InputError, match=fact) as caught:
        read_config(changed(**parts))
    assert "\n" not in str(caught.value)


def test_no_file_is_one_line(tmp_path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.py: does not exist"):
        read_config(tmp_path / "nowhere.py")


def test_a_head_alone(tmp_path) -> None:
    network = new_model("tiny", input_size=(32, 48), seed=3)
    folder = save_network(network, tmp_path / "model")
    head, settings = load_head(folder)
    whole = load_network(folder)
    assert settings == whole.settings
    for key, value in whole.head.state_dict().items():
        assert torch.equal(head.state_dict()[key], value), key
    assert not head.training
    assert not any(value.requires_grad for value in head.parameters())
    file = tmp_path / "model.safetensors"
    save_file(
        {f"heatmap_head.{key}": value for key, value in network.head.state_dict().items()} | {"rest": torch.ones(1)},
        file,
    )
    assert torch.equal(load_head(file)[0].final_layer.weight, network.head.final_layer.weight)
    save_file({"rest": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors: is no SDPose head: it lacks deconv_layers"):
        load_head(tmp_path / "other.safetensors")


def test_model_config_says_what_the_checkpoint_is(tmp_path) -> None:
    folder = save_network(new_model("tiny", input_size=(32, 48)), tmp_path / "model")
    config = model_config(folder, flip_test=False)
    head = config["head"]
    assert (head["in_channels"], head["out_channels"]) == (16, 17)
    assert head["decoder"]["input_size"] == (32, 48)
    assert head["decoder"]["heatmap_size"] == (16, 24)
    assert config["test_cfg"]["flip_test"] is False


@pytest.mark.skipif(importlib.util.find_spec("mmpose") is not None, reason="mmpose is installed")
def test_without_mmpose_one_line_says_how_to_get_it() -> None:
    with pytest.raises(InputError, match=r"mmpose\.models cannot be imported .* Install it with scripts/"):
        module("mmpose.models")
    assert "mmcv._ext" not in sys.modules
