"""What each command can be told. Needs no torch, so that ``--help`` answers at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from priorscope.errors import InputError
from priorscope.training.settings import LoopConfig

Device = str
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Format = Literal["overlay", "coco", "openpose", "controlnet", "npz"]
Layout = Literal["coco", "coco-ood", "humanart", "coco-wholebody", "crowdpose", "posetrack", "jhmdb", "pck", "pckh"]


def check_numbers(config: object, *names: str) -> None:
    """Raise an :class:`InputError` for an option that is NaN, which is neither above nor below anything."""
    for name in names:
        if math.isnan(getattr(config, name)):
            raise InputError(f"--{name.replace('_', '-')} nan", remedy="Use a number.")


@dataclass(frozen=True)
class ModelConfig:
    """Which model, and how it is asked."""

    model: str = "tiny-pose"
    """Name in the model table (`priorscope models pose`), hub id (owner/name), folder, or single file (SDPose)."""
    crop: Literal["evaluated", "stretched"] = "evaluated"
    """How SDPose gets people cut out: evaluated, as published figures are measured (the box and a quarter more, aspect
    kept), or stretched, as the web demos and ComfyUI do. The same model gives other keypoints."""
    flip_test: bool = True
    """SDPose: mean of the heatmaps of each crop and of its mirror image, as published figures are measured; twice the
    work."""
    posterior: Literal["mode", "sample"] = "mode"
    """SDPose: how the image is encoded: deterministic, or sampled as in the official code."""
    steps: int = 4
    """DiffPose: solver steps; any number without retraining."""
    ensemble: int = 1
    """DiffPose: noise draws a person, whose heatmaps are averaged."""
    batch_size: int = 4
    """People a batch. Memory grows with it."""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:N."""
    precision: Precision = "auto"
    """auto is bfloat16 on a GPU and float32 on the CPU."""
    compile: bool = False
    """torch.compile SDPose's networks: slow first calls, then faster ones."""
    seed: int = 0
    """Of what is random: DiffPose's noise, and the sampled posterior."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""


@dataclass(frozen=True)
class PredictConfig:
    """Keypoints of the people in images, folders of images, and videos."""

    inputs: tyro.conf.Positional[tuple[Path, ...]]
    """Images, folders (searched with their sub-folders) and videos."""
    out: Path = Path("out")
    """Folder for the results; made where missing."""
    formats: tuple[Format, ...] = ("overlay", "coco", "openpose")
    """What to write: overlay (a picture, or an mp4), coco (COCO's results list), openpose (OpenPose's JSON), controlnet
    (the skeletons on black, as ControlNet takes them), npz (arrays)."""
    boxes: Path | None = None
    """Where the people are, in a file: a detector's list or annotations in COCO's layout, or your own .json or .csv
    (file, x1, y1, x2, y2, and perhaps score and frame)."""
    detector: str = "whole"
    """Who finds the people where no --boxes are given: a hub id or folder of transformers' RT-DETR family (RT-DETR,
    RT-DETRv2, D-FINE, RF-DETR), or whole: each image shows one person."""
    box_threshold: float = 0.5
    """Boxes with a lower score are left out."""
    max_people: int = 0
    """At most so many people an image, those of the best boxes; 0: all."""
    nms: float = 0.9
    """Of two people whose poses are more similar (OKS) than this, only the better stays; 1: all stay."""
    keypoint_threshold: float = 0.3
    """Keypoints with a lower score are not drawn, and are missing (0, 0, 0) in OpenPose's JSON. The other formats hold
    all."""
    openpose_body: Literal[18, 25] = 18
    """Body layout of OpenPose's JSON: 18 points, as ControlNet and ComfyUI take, or OpenPose's own 25 with feet."""
    track: bool = True
    """In videos, people keep a number from frame to frame."""
    overwrite: bool = False
    """Replace results that are there already."""
    settings: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)


@dataclass(frozen=True)
class ConvertConfig:
    """Poses that are annotated or predicted already, in other tools' layouts: pose images for ControlNet, OpenPose's
    JSON, overlays, arrays."""

    poses: tyro.conf.Positional[Path]
    """Annotations, or a results list, in COCO's layout."""
    out: Path = Path("out")
    """Folder for the results; made where missing."""
    formats: tuple[Literal["overlay", "openpose", "controlnet", "npz"], ...] = ("openpose", "controlnet")
    """As for predict."""
    annotations: Path | None = None
    """Annotations that a results list belongs to: they say what its images are called and how large they are."""
    images: Path | None = None
    """Folder of the pictures; by default where COCO keeps them. Only overlays need the pictures."""
    skeleton: Literal["coco", "coco_wholebody", "humanart", "posetrack", "crowdpose", "jhmdb"] = "coco"
    """What the keypoints are."""
    keypoint_threshold: float = 0.3
    """Keypoints with a lower score are not drawn, and are missing in OpenPose's JSON."""
    openpose_body: Literal[18, 25] = 18
    """Body layout of OpenPose's JSON."""
    overwrite: bool = False
    """Replace results that are there already."""


@dataclass(frozen=True)
class PeopleConfig:
    """Draw people with exact joints: a data set in COCO's layout, or clips in PoseTrack18's."""

    out: Path = Path("runs/people")
    """Folder."""
    layout: Literal["coco", "posetrack"] = "coco"
    """coco: single pictures, 17 joints; posetrack: clips with motion blur, 15 joints."""
    count: int = 1000
    """Pictures, or clips."""
    first_seed: int = 0
    """Seed of the first; seeds from 1000000000 on are held out."""
    split: str | None = None
    """Name of the split; train2017 (coco) and train (posetrack) by default."""
    frames: int = 5
    """Of a clip."""
    height: int = 160
    width: int = 128
    people: int = 1
    """In a picture; 0: varies."""
    workers: int = 1
    """Processes."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a pose model: on your own annotations, or on people that are drawn for it."""

    data: tyro.conf.Positional[str]
    """Annotations in the layout below; people:COUNT draws so many pictures (DiffPose: clips) into the run folder; for a
    prior also a folder of pictures."""
    method: Literal["sdpose", "diffpose", "conv", "prior"] = "sdpose"
    """sdpose: a U-Net tapped for heatmaps; diffpose: video; conv: a plain convolutional network, to compare with;
    prior: a diffusion model of crops of people, without keypoints, for sdpose to start from."""
    layout: Layout | None = None
    """How DATA is laid out. Default: coco; posetrack for diffpose."""
    images: Path | None = None
    """Folder that the annotations' file names start from, where it does not follow from the layout."""
    out: Path = Path("runs/train")
    """Run folder; the model is out/model, what to look at is out/report.html."""
    start: str = "new"
    """new: random weights; a trained model (name, hub id, folder); for sdpose also a prior: the folder that
    --method prior wrote, or Stable Diffusion 2."""
    size: str = "mini"
    """Of new networks: tiny, mini or small; of a new diffpose: mini, base or large (those on --backbone)."""
    backbone: str | None = None
    """DiffPose base and large: folder or hub id of the pretrained frame encoder."""
    single_frame: bool = False
    """DiffPose: the same network on the key frame alone."""
    distance: int | None = None
    """DiffPose: frames before and after the key frame. Default: 2, or what --start has; a model of one frame that is
    named there can be given more, and begins with all it has learnt."""
    own_runs: float = 0.8
    """DiffPose: share of the people who are learnt on what the network's own runs of 1 to 8 steps make of noise; the
    others on their heatmaps with noise, as published. With 0 more steps can be worse than one."""
    input_size: tuple[int, int] | None = None
    """Width and height of the crops in pixels. Default: the model's own; 96 128 for new ones."""
    sigma: float | None = None
    """Of the Gaussians, in heatmap pixels, for new heads. Default: the published share of their width, 1 / 32."""
    label: float | None = None
    """SDPose: the level that the U-Net is told; no noise is added. Default: the model's own, 999 as published."""
    reconstruction: float = 0.003
    """SDPose: weight of the auxiliary loss (the latent of the crop without blur and hole, under the second task). None
    was published. Heatmaps are nearly all background, so their loss begins at about 0.002 where that of a latent begins
    at about 1: with our default both begin alike. 0 leaves it out, and nearly half of the time with it."""
    freeze: Literal["none", "encoder", "unet"] = "none"
    """What is not trained. sdpose: the U-Net's first half (encoder) or all of it (unet; only the head learns);
    diffpose: encoder, that of frames. The autoencoder never is."""
    augment: bool = True
    """Change crops at random, as published. False: learn the crops that evaluation shows."""
    rotation: float | None = None
    """Largest rotation in degrees. Default: as published, 80 (sdpose) or 45, twice at most (diffpose)."""
    scale: float | None = None
    """Crops show 1 - scale to 1 + scale times the region. Default: as published, 0.5 (sdpose) or 0.35 (diffpose)."""
    half_body: float = 0.3
    """Share of the people with enough keypoints of whom half is shown."""
    hole: float = 1.0
    """Share of the crops with a black rectangle (not diffpose, not prior)."""
    held_out: int = 64
    """Pictures kept out of training to look at, a tenth at most; of videos whole ones. 0: none."""
    save_float32: bool = True
    """Save an SDPose U-Net in float32 rather than float16."""
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(default_factory=LoopConfig)


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure a model on annotated people: OKS AP of the COCO family, PoseTrack's AP, PCK."""

    data: tyro.conf.Positional[str]
    """Annotations in the metric's layout; people:COUNT draws so many held-out pictures (posetrack: clips)."""
    metric: Layout = "coco"
    """Data set, its layout and its protocol."""
    images: Path | None = None
    """Folder that the annotations' file names start from, where it does not follow from the layout."""
    boxes: Path | None = None
    """A detector's boxes (COCO's results list). Default: the annotated boxes."""
    box_threshold: float | None = None
    """Boxes below this score are left out. Default: none are; 0.2 for posetrack, as its lineage does."""
    score: Literal["auto", "bbox_keypoint", "bbox", "keypoint", "bbox_rle", "as_given"] = "auto"
    """What ranks people. auto: bbox_keypoint, as mmpose and SDPose count, but as_given (joints are ranked by themselves
    times the box's score) for posetrack and for PCK."""
    nms: Literal["auto", "oks", "soft_oks", "none"] = "auto"
    """How one person found twice is dropped. auto: oks, but none for posetrack and for PCK."""
    nms_threshold: float = 0.9
    """OKS from which two are one."""
    detection_area: Literal["keypoints", "box"] = "keypoints"
    """Whose area sorts detections into AP (M) and AP (L): keypoints, as COCO and SDPose count, or box, as mmpose 1.3.2
    does by writing boxes into its results."""
    shared_keypoints: bool = False
    """Measure a model that lacks some of the data's keypoints on those that it has, by their names; the others count as
    not labelled. Figures are then not those of the benchmark."""
    limit: int = 0
    """Only the first so many pictures (or videos); 0: all. Figures are then those of this part."""
    worst: int = 8
    """People with the worst results that the report shows."""
    out: Path = Path("runs/evaluate")
    """Run folder: predictions as they come (items.jsonl), results.json (posetrack: results/VIDEO.json, its joints with
    the scores that they were ranked by), metrics.json, report.html."""
    resume: bool = False
    """Go on with a run that was cut off."""
    settings: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)


@dataclass(frozen=True)
class StylesConfig:
    """Make an out-of-domain variant of a set in COCO's layout: other pictures, the same annotations."""

    data: tyro.conf.Positional[Path]
    """The annotation file."""
    out: Path = Path("runs/styles")
    """Folder; a style becomes out/STYLE/, with annotations/ and the folder of pictures."""
    images: Path | None = None
    """Folder that the annotations' file names start from, where it does not follow from the layout."""
    styles: tuple[Literal["oil", "transfer", "sketch"], ...] = ("oil", "transfer", "sketch")
    """oil: an edge-keeping (Kuwahara) filter; transfer: colours and strengths of detail from another picture, in the
    manner of AdaIN; sketch: pencil lines."""
    reference: Path | None = None
    """The picture that transfer takes its style from. Default: a brushed canvas, drawn anew for each picture."""
    strength: float = 1.0
    """0 leaves pictures as they are."""
    seed: int = 0
    """Of the drawn canvases; a picture's own follows from it and the file name."""
    workers: int = 1
    """Processes."""


@dataclass(frozen=True)
class DemoConfig:
    """A photograph, drawn people whose joints are known, and a clip, with a report to look at."""

    out: Path = Path("runs/demo")
    """Run folder; replaced if a demo made it."""
    pictures: int = 48
    """Drawn people to measure on, as drawn and in another style."""
    frames: int = 24
    """Of the clip; 0: none."""
    keypoint_threshold: float = 0.3
    """Keypoints with a lower score are not drawn."""
    settings: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)
