"""mmpose's configs, read as our settings, and a config by which mmpose builds our model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from priorscope.errors import InputError
from priorscope_pose.codecs import CombinedHeatmap, MsraHeatmap, UdpHeatmap
from priorscope_pose.geometry.boxes import PADDING
from priorscope_pose.geometry.crop import Policy
from priorscope_pose.sdpose.checkpoint import load_head
from priorscope_pose.sdpose.settings import PoseSettings
from priorscope_pose.skeletons import skeleton

Codec = UdpHeatmap | CombinedHeatmap | MsraHeatmap

#: mmpose's data sets -> our skeletons.
SKELETONS: dict[str, str] = {
    "CocoDataset": "coco",
    "CocoWholeBodyDataset": "coco_wholebody",
    "HumanArtDataset": "humanart",
    "PoseTrack18Dataset": "posetrack",
    "CrowdPoseDataset": "crowdpose",
    "JhmdbDataset": "jhmdb",
}
_NMS = {"oks_nms": "oks", "soft_oks_nms": "soft_oks", "none": "none"}
#: What makes mmpose's preprocessor give [-1, 1], RGB.
_PREPROCESSOR: dict[str, Any] = {
    "type": "mmpose.PoseDataPreprocessor",
    "mean": [127.5] * 3,
    "std": [127.5] * 3,
    "bgr_to_rgb": True,
}


@dataclass(frozen=True)
class MmposeConfig:
    """What a top-down heatmap config of mmpose says, in our terms.

    Attributes
    ----------
    codec : UdpHeatmap, CombinedHeatmap or MsraHeatmap
        With the config's sizes; ``codec.input_size`` and ``codec.heatmap_size`` are (width, height).
    crop : {"evaluated", "classic"}
        Which warp the test pipeline makes (``use_udp`` or not).
    padding : float
        Share by which boxes are enlarged.
    keypoints : int
        Of the head: its channels, a third of them for combined targets.
    channels : int or None
        That the head takes; None for a head that does not say, or takes several maps.
    skeleton : str or None
        None for a data set that is none of ours.
    flip_test, shift_heatmap : bool
        Of the test: ``shift_heatmap`` is :func:`~priorscope_pose.geometry.flip.merge_flip`'s ``shift``.
    mean, std : tuple of float
        By which the network's input (0 to 255) is normalised; (0, 0, 0) and (1, 1, 1) where it is not.
    annotations, images, boxes : str or None
        Files and folder of the test set, with its ``data_root``, as written; ``boxes`` None: annotated boxes.
    postprocess : dict
        Arguments for :func:`priorscope_pose.evaluation.nms.postprocess`, from the metric's.
    """

    codec: Codec
    crop: Policy
    padding: float
    keypoints: int
    channels: int | None
    skeleton: str | None
    flip_test: bool
    shift_heatmap: bool
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    annotations: str | None = None
    images: str | None = None
    boxes: str | None = None
    postprocess: dict[str, Any] = field(default_factory=dict)

    def settings(self, tap: str) -> PoseSettings:
        """Settings of an SDPose model with this config's crops, heatmaps and keypoints, tapped at ``tap``.

        Raises
        ------
        InputError
            A codec that is not UDP's Gaussians, an unknown data set, or a head whose keypoints are not its.
        """
        if not isinstance(self.codec, UdpHeatmap):
            raise InputError(f"{type(self.codec).__name__} is no codec of SDPose", remedy="Use UDPHeatmap.")
        if self.skeleton is None:
            known = ", ".join(SKELETONS)
            raise InputError("the config's data set is none that is known here", remedy=f"Known are {known}.")
        if len(skeleton(self.skeleton)) != self.keypoints:
            raise InputError(f"a head of {self.keypoints} keypoints for the skeleton {self.skeleton!r}")
        return PoseSettings(self.skeleton, tap, self.codec.input_size, self.codec.heatmap_size, self.codec.sigma)


def read_config(source: str | Path | Mapping[str, Any]) -> MmposeConfig:
    """Read a top-down heatmap config.

    Parameters
    ----------
    source : str, Path or mapping
        A config file of mmpose (``_base_`` files and all; needs mmengine), or what one says.

    Raises
    ------
    InputError
        No such file; a model that is not top-down, or whose codec makes no heatmaps; sizes that contradict each other.
    """
    path = None if isinstance(source, Mapping) else Path(source).expanduser()
    try:
        return _read(source if isinstance(source, Mapping) else _load(path))
    except InputError as error:
        raise InputError(error.fact, path=error.path or path, remedy=error.remedy) from None


def _load(path: Path | None) -> Mapping[str, Any]:
    from priorscope_pose.integrations.openmmlab import module

    assert path is not None
    if not path.is_file():
        raise InputError("does not exist", path=path, remedy="Give a config file of mmpose.")
    config = module("mmengine.config").Config
    try:
        return config.fromfile(str(path), import_custom_modules=False).to_dict()
    except Exception as error:  # it runs the file, which may fail in any way
        raise InputError(f"is no config that mmengine can read ({' '.join(str(error).split())[:200]})") from None


def _read(config: Mapping[str, Any]) -> MmposeConfig:
    model = config.get("model")
    if not isinstance(model, Mapping) or _plain(model.get("type")) != "TopdownPoseEstimator":
        kind = model.get("type") if isinstance(model, Mapping) else None
        raise InputError(f"describes {kind or 'no model'}", remedy="Give a config of a TopdownPoseEstimator.")
    head = model.get("head") or {}
    codec = _codec(head.get("decoder") or config.get("codec"))
    data = _dataset(config)
    steps = {_plain(step.get("type")): step for step in data.get("pipeline", ())}
    affine = steps.get("TopdownAffine", {})
    size = tuple(affine.get("input_size", codec.input_size))
    if size != codec.input_size:
        raise InputError(f"its pipeline cuts crops of {size}, but its codec is for {codec.input_size}")
    outputs = head.get("out_channels")
    if not isinstance(outputs, int):
        raise InputError("its head does not say how many heatmaps it gives (out_channels)")
    taken = head.get("in_channels")
    test = model.get("test_cfg") or {}
    pixels = model.get("data_preprocessor") or {}
    root = str(data.get("data_root") or "")
    boxes = data.get("bbox_file")
    prefix = data.get("data_prefix") or {}
    return MmposeConfig(
        codec,
        "evaluated" if affine.get("use_udp", False) else "classic",
        float(steps.get("GetBBoxCenterScale", {}).get("padding", PADDING)),
        outputs // 3 if isinstance(codec, CombinedHeatmap) else outputs,
        taken if isinstance(taken, int) else None,
        SKELETONS.get(_plain(data.get("type"))),
        bool(test.get("flip_test", False)),
        bool(test.get("shift_heatmap", False)),
        tuple(pixels.get("mean") or (0.0, 0.0, 0.0)),
        tuple(pixels.get("std") or (1.0, 1.0, 1.0)),
        _below(root, data.get("ann_file")),
        _below(root, prefix.get("img")),
        None if boxes is None else str(boxes),  # mmpose does not put data_root before it
        _postprocess(config),
    )


def _codec(config: Any) -> Codec:
    if not isinstance(config, Mapping):
        raise InputError("its head has no decoder, or several", remedy="Give a config with one heatmap codec.")
    kind = _plain(config.get("type"))
    try:
        sizes = tuple(config["input_size"]), tuple(config["heatmap_size"])
    except KeyError:
        raise InputError(f"{kind} makes no heatmaps", remedy="UDPHeatmap and MSRAHeatmap can be read.") from None
    blur = int(config.get("blur_kernel_size", 11))
    sigma = float(config.get("sigma", 2.0))
    if kind in ("UDPHeatmap", "BatchedUDPHeatmap"):
        if config.get("heatmap_type", "gaussian") == "combined":
            return CombinedHeatmap(*sizes, float(config.get("radius_factor", 0.0546875)), blur_kernel=blur)
        return UdpHeatmap(*sizes, sigma, blur_kernel=blur)
    if kind == "MSRAHeatmap":
        return MsraHeatmap(*sizes, sigma, unbiased=bool(config.get("unbiased", False)), blur_kernel=blur)
    raise InputError(f"its codec {kind} is none of ours", remedy="UDPHeatmap and MSRAHeatmap can be read.")


def _dataset(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """That of the test, else of the validation; the pipeline of a combined one goes before those of its parts."""
    for name in ("test_dataloader", "val_dataloader"):
        data = (config.get(name) or {}).get("dataset")
        if isinstance(data, Mapping):
            parts = data.get("datasets") or [{}]
            return {**parts[0], **data, "type": parts[0].get("type", data.get("type"))}
    raise InputError("has neither test_dataloader nor val_dataloader: nothing says how people are cut out")


def _postprocess(config: Mapping[str, Any]) -> dict[str, Any]:
    given = config.get("test_evaluator") or config.get("val_evaluator") or ()
    metrics: Sequence[Any] = [given] if isinstance(given, Mapping) else given
    for metric in metrics:
        if _plain(metric.get("type")) in ("CocoMetric", "CocoWholeBodyMetric", "PoseTrack18Metric"):
            return {
                "score": metric.get("score_mode", "bbox_keypoint"),
                "keypoint_threshold": float(metric.get("keypoint_score_thr", 0.2)),
                "nms": _NMS[metric.get("nms_mode", "oks_nms")],
                "nms_threshold": float(metric.get("nms_thr", 0.9)),
            }
    return {}


def _plain(name: Any) -> str:
    """A type's name without the registry before it (``mmpose.CocoDataset``)."""
    return str(name).rpartition(".")[2]


def _below(root: str, name: Any) -> str | None:
    return None if name is None else str(Path(root) / str(name))


def model_config(source: str | Path, *, flip_test: bool = True, trainable: bool = False) -> dict[str, Any]:
    """The ``model`` of an mmpose config by which mmpose builds an SDPose model of ours.

    Parameters
    ----------
    source : str or Path
        See :func:`~priorscope_pose.sdpose.checkpoint.load_network`. Only its head is read here.
    flip_test : bool
    trainable : bool
        Keep gradients of the U-Net; the autoencoder is frozen always, as in SDPose's own training.

    Returns
    -------
    dict
        Plain values, for ``mmpose.registry.MODELS.build`` or a config file; beside it, the file needs
        ``custom_imports = dict(imports=["priorscope_pose.integrations.modules"])``, a pipeline whose ``TopdownAffine``
        has ``use_udp=True`` and the codec's input size, and for training ``GenerateTarget`` with the codec as encoder.
    """
    head, settings = load_head(source)
    codec = {
        "type": "mmpose.BatchedUDPHeatmap",
        "input_size": settings.input_size,
        "heatmap_size": settings.heatmap_size,
        "sigma": settings.sigma,
    }
    return {
        "type": "mmpose.TopdownPoseEstimator",
        "data_preprocessor": dict(_PREPROCESSOR),
        "backbone": {"type": "mmpose.SDPoseBackbone", "source": str(source), "trainable": trainable},
        "head": {
            "type": "mmpose.SDPoseHead",
            "in_channels": head.channels,
            "out_channels": head.keypoints,
            "source": str(source),
            "decoder": codec,
        },
        "test_cfg": {"flip_test": flip_test, "flip_mode": "heatmap", "shift_heatmap": False},
    }
