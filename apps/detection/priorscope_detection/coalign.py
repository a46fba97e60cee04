"""CoAlign's directories: config.yaml beside net_epochN.pth or net_epoch_bestval_atN.pth, plain state dicts.

Sizes are read off the weights. The settings tell what weights cannot: range, cells, strides, fusion, anchors, limits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from math import isfinite, nan
from pathlib import Path
from typing import Any

import torch
import yaml

from priorscope.data.torch_pickle import load_tensors_and
from priorscope.errors import InputError
from priorscope_detection.box_coder import DIRECTION_OFFSET
from priorscope_detection.checkpoints import AnchorSettings, Detector, network_of
from priorscope_detection.data.safe_yaml import check_size
from priorscope_detection.network.spec import DetectorSpec, FusionName
from priorscope_detection.post_processing import PostProcessing

_EPOCH = re.compile(r"net_epoch(\d+)\.pth")
_BEST = re.compile(r"net_epoch_bestval_at(\d+)\.pth")
_MAX_SETTINGS = 4 << 20


def load_coalign(source: str | Path) -> Detector:
    """Read a directory, or the .pth file named.

    In a directory the best of the validation counts, else the last epoch. The detector behaves as the published one:
    attention over all agents, anchors and filters where CoAlign has them.

    Raises
    ------
    InputError
        Missing or damaged files, settings of another model, or weights that do not fit to the last key.
    """
    path = Path(source).expanduser()
    folder = path.parent if path.suffix == ".pth" else path
    weights_path = path if path.suffix == ".pth" else find_weights(folder)
    settings_path = folder / "config.yaml"
    settings = read_settings(settings_path)
    state = read_weights(weights_path)
    try:
        spec = spec_of(settings, state)
        _check_codes(settings, spec)
        anchors = _anchors(settings, spec)
        choice = _choice(settings, spec)
    except InputError as error:
        raise InputError(error.fact, path=settings_path, remedy=error.remedy) from None
    name = settings.get("name")
    return Detector(network_of(spec, state, weights_path), anchors, choice, str(name or ""), str(weights_path))


def find_weights(folder: Path) -> Path:
    """The file of a directory that counts: the best of the validation, else the last epoch (InputError: none)."""
    if not folder.is_dir():
        raise InputError("no such directory", path=folder)
    for pattern in (_BEST, _EPOCH):
        found = {int(match[1]): file for file in folder.iterdir() if (match := pattern.fullmatch(file.name))}
        if found:
            return found[max(found)]
    raise InputError(
        "has neither net_epoch_bestval_atN.pth nor net_epochN.pth", path=folder, remedy="Was the download complete?"
    )


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A state dict, in float32; only tensors and plain containers are unpickled.

    Raises
    ------
    InputError
        It is missing, damaged, asks for other classes, or is no state dict.
    """

    def other(module: str, name: str) -> Any:
        raise InputError(
            f"its pickle asks for {module}.{name}, which is not loaded: pickles can run code",
            path=path,
            remedy="A state dict needs tensors only; use the published file.",
        )

    try:
        content = load_tensors_and(path, other, mapped=True)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError("is missing", path=path, remedy="Was the download complete?") from None
    except Exception as error:  # a damaged archive may raise anything
        lines = str(error).strip().splitlines()
        raise InputError(
            f"is no file of weights that can be read: {lines[0] if lines else type(error).__name__}",
            path=path,
            remedy="Download it again.",
        ) from None
    if not isinstance(content, Mapping) or not content or not all(torch.is_tensor(v) for v in content.values()):
        raise InputError("holds no state dict", path=path, remedy="CoAlign saves model.state_dict() as it is.")
    # copied: the file is mapped, and may be replaced while we live
    return {
        str(key).removeprefix("module."): value.to(
            torch.float32 if value.is_floating_point() else value.dtype, copy=True
        )
        for key, value in content.items()
    }


class _Loader(yaml.SafeLoader):
    """Plain values. Objects of Python and numpy, which saved settings contain, are read as None and never made.

    Merge keys are refused: with them a short file may unfold to one of any size.
    """

    def flatten_mapping(self, node: Any) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.YAMLError("merge keys are not read")


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)


def read_settings(path: Path) -> dict[str, Any]:
    """What ``config.yaml`` says (InputError: missing, damaged, larger than 4 MiB, no mapping)."""
    try:
        if path.stat().st_size > _MAX_SETTINGS:
            raise InputError(f"has more than {_MAX_SETTINGS >> 20} MiB", path=path, remedy="Are these settings?")
        text = path.read_text(encoding="utf-8")
        check_size(text, path)
        content = yaml.load(text, Loader=_Loader)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError("is missing", path=path, remedy="It lies beside the weights; copy it there.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError, OSError) as error:
        raise InputError(f"is no YAML that can be read: {error}", path=path) from None
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise InputError("holds no settings of a model", path=path, remedy="Is it CoAlign's config.yaml?")
    return content


def spec_of(settings: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> DetectorSpec:
    """What a detector is, by its settings and its weights.

    Raises
    ------
    InputError
        Another model, settings that are missing or do not agree with the weights.
    """
    core = str(_at(settings, "model.core_method") or "")
    if "multiscale" not in core:
        raise InputError(
            f"its model is {core or 'not told'}", remedy="point_pillar_baseline_multiscale can be read, no other."
        )
    extent = _numbers(settings, 6, "preprocess.cav_lidar_range", "model.args.lidar_range")
    cell = _numbers(settings, 3, "preprocess.args.voxel_size", "model.args.voxel_size")
    spec = sizes_of(state)
    stages = len(spec.layers)
    name = "model.args.base_bev_backbone.layer_strides"
    told = _at(settings, name)
    strides = tuple(_whole(value, name) for value in told) if isinstance(told, list) else _strides(spec.up_strides)
    most, pillars = (
        _whole(_at(settings, name), name)
        for name in ("preprocess.args.max_points_per_voxel", "preprocess.args.max_voxel_test")
    )
    for name, mine in (("layer_nums", spec.layers), ("num_filters", spec.filters)):
        given = _at(settings, f"model.args.base_bev_backbone.{name}")
        if isinstance(given, list) and tuple(given) != mine:
            raise InputError(f"{name} is {given} in the settings and {list(mine)} in the weights")
    if len(strides) != stages:
        raise InputError(f"{len(strides)} strides for {stages} stages")
    return replace(
        spec,
        extent=extent,
        cell=cell,
        strides=strides,
        max_points=most or spec.max_points,
        max_pillars=pillars or spec.max_pillars,
        fusion=_fusion(settings),
        attend="published",
    ).check()


def sizes_of(state: Mapping[str, torch.Tensor]) -> DetectorSpec:
    """The sizes of a network, from the shapes of its weights (InputError: not those of this network)."""
    shapes = {key: tuple(value.shape) for key, value in state.items()}

    def shape(key: str) -> tuple[int, ...]:
        if key not in shapes:
            raise InputError(f"the weights have no {key}", remedy="Are they point_pillar_baseline_multiscale's?")
        return shapes[key]

    def count(pattern: str) -> int:
        found = [int(match[1]) for key in shapes if (match := re.match(pattern, key))]
        return 1 + max(found, default=-1)

    pfn = count(r"pillar_vfe\.pfn_layers\.(\d+)\.")
    first = shape("pillar_vfe.pfn_layers.0.linear.weight")
    widths = [shape(f"pillar_vfe.pfn_layers.{i}.linear.weight")[0] for i in range(pfn)]
    inputs = {10: (True, False), 11: (True, True), 7: (False, False), 8: (False, True)}
    if first[1] not in inputs:
        raise InputError(f"a pillar network of {first[1]} inputs", remedy="Points of x, y, z, intensity can be read.")
    stages = count(r"backbone\.resnet\.layer(\d+)\.")
    layers = tuple(count(rf"backbone\.resnet\.layer{i}\.(\d+)\.") for i in range(stages))
    up = [shape(f"backbone.deblocks.{i}.0.weight") for i in range(stages)]
    shrinks = any(key.startswith("shrink_conv.") for key in shapes)
    anchors = shape("cls_head.weight")[0]
    bins = shape("dir_head.weight")[0] // anchors if "dir_head.weight" in shapes else 0
    absolute, distance = inputs[first[1]]
    return DetectorSpec(
        pillar_filters=tuple(width if i == pfn - 1 else 2 * width for i, width in enumerate(widths)),
        use_norm="pillar_vfe.pfn_layers.0.norm.weight" in shapes,
        use_absolute_xyz=absolute,
        with_distance=distance,
        layers=layers,
        filters=tuple(shape(f"backbone.resnet.layer{i}.0.conv1.weight")[0] for i in range(stages)),
        up_strides=tuple(s[2] for s in up),
        up_filters=tuple(s[1] for s in up),
        shrink=shape("shrink_conv.layers.0.double_conv.0.weight")[0] if shrinks else 0,
        anchors=anchors,
        direction_bins=bins,
    )


def _strides(up: tuple[int, ...]) -> tuple[int, ...]:
    """The first stage halves; each other by as much as its map is brought up more than the one before."""
    return (2 * up[0], *(later // before for before, later in pairwise(up)))


def _fusion(settings: Mapping[str, Any]) -> FusionName:
    told = _at(settings, "model.args.fusion_method") or "att"
    known: dict[str, FusionName] = {"att": "attention", "max": "max"}
    if not isinstance(told, str) or told not in known:
        raise InputError(f"its fusion is {told!r}", remedy="att and max can be read.")
    return known[told]


def _anchors(settings: Mapping[str, Any], spec: DetectorSpec) -> AnchorSettings:
    start = "postprocess.anchor_args"
    default = AnchorSettings(placement="published")
    size = tuple(_number(_at(settings, f"{start}.{name}"), f"{start}.{name}") for name in "lwh")
    yaws = _at(settings, f"{start}.r")
    told_stride = _at(settings, f"{start}.feature_stride")
    if told_stride is not None and _whole(told_stride, f"{start}.feature_stride") != spec.head_stride:
        raise InputError(f"anchors of stride {told_stride} for a network of stride {spec.head_stride}")
    found = replace(
        default,
        size=size if None not in size else default.size,  # type: ignore[arg-type]
        yaws=_numbers(settings, len(yaws), f"{start}.r") if isinstance(yaws, list) else default.yaws,
    )
    found.grid(spec)
    return found


def _check_codes(settings: Mapping[str, Any], spec: DetectorSpec) -> None:
    """Refuse boxes that are coded otherwise than here: they would be read without a word, and wrong."""
    order = _at(settings, "postprocess.order")
    if order not in (None, "hwl"):
        raise InputError(f"postprocess.order is {order!r}", remedy="Boxes in the order hwl can be read.")
    bins = spec.direction_bins
    for place in ("postprocess.dir_args", "model.args.dir_args"):
        offset = _number(_at(settings, f"{place}.dir_offset"), f"{place}.dir_offset")
        if bins and offset is not None and abs(offset - DIRECTION_OFFSET) > 1e-3:
            raise InputError(f"{place}.dir_offset is {offset:g}", remedy=f"{DIRECTION_OFFSET} can be read.")
        told = _whole(_at(settings, f"{place}.num_bins"), f"{place}.num_bins")
        if bins and told and told != bins:
            raise InputError(f"{place}.num_bins is {told} in the settings and {bins} in the weights")
    if bins not in (0, 2):
        raise InputError(f"headings in {bins} bins", remedy="2 can be read.")


def _choice(settings: Mapping[str, Any], spec: DetectorSpec) -> PostProcessing:
    limits = _at(settings, "postprocess.gt_range")
    found = PostProcessing.published(
        _numbers(settings, 6, "postprocess.gt_range") if isinstance(limits, list) else spec.extent
    )
    names = ("postprocess.target_args.score_threshold", "postprocess.nms_thresh")
    score, nms = (_number(_at(settings, name), name) for name in names)
    return replace(found, score=found.score if score is None else score, nms=found.nms if nms is None else nms)


def _at(settings: Mapping[str, Any], name: str) -> Any:
    """What stands at a dotted name, None where nothing does."""
    value: Any = settings
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _number(value: Any, name: str) -> float | None:
    """A setting as a number; None where it is not told. YAML takes 1e-3 for text."""
    if value is None:
        return None
    try:
        number = nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = nan
    if not isfinite(number):
        raise InputError(f"{name} is {value!r}", remedy="A number is expected.")
    return number


def _whole(value: Any, name: str) -> int:
    """The same as a whole number; 0 where it is not told."""
    number = _number(value, name) or 0.0
    if number != int(number) or number < 0:
        raise InputError(f"{name} is {value!r}", remedy="A whole number of 0 or more is expected.")
    return int(number)


def _numbers(settings: Mapping[str, Any], count: int, *names: str) -> Any:
    for name in names:
        value = _at(settings, name)
        if isinstance(value, list):
            try:
                numbers = tuple(_number(v, name) for v in value)
            except InputError:
                numbers = ()
            if len(numbers) != count or None in numbers:
                raise InputError(f"{name} is {value}", remedy=f"{count} numbers are expected.")
            return numbers
    raise InputError(f"its settings have no {names[0]}")
