"""The pose app's models: published and bundled. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from priorscope.backbones.table import PublishedModel

#: The one file of a hub repository that a row with loader ``sdpose-file`` means.
FILES: dict[str, str] = {"Comfy-Org/SDPose": "checkpoints/sdpose_wholebody_fp16.safetensors"}


def _sdpose(name: str, source: str, note: str, *, loader: str = "sdpose", licence: str, size: str) -> PublishedModel:
    return PublishedModel(name, "pose", "keypoints", loader, source, licence, size, note=note)


#: The pose app's rows of the model table.
MODELS: list[PublishedModel] = [
    PublishedModel(
        "tiny-pose",
        "pose",
        "keypoints",
        "sdpose",
        str(Path(__file__).parent / "models/tiny-pose"),
        "Apache-2.0",
        "3 MB",
        note="ours; 17 keypoints of COCO, small, trained on drawn people only: for demos, tests and first looks",
        bundled=True,
    ),
    _sdpose(
        "sdpose-body",
        "teemosliang/SDPose-Body",
        "17 keypoints of COCO, from crops of 768 x 1024",
        licence="MIT",
        size="3.8 GB",
    ),
    _sdpose(
        "sdpose-wholebody",
        "teemosliang/SDPose-Wholebody",
        "133 keypoints of COCO-WholeBody, from crops of 768 x 1024",
        licence="MIT",
        size="3.8 GB",
    ),
    _sdpose(
        "sdpose-wholebody-fp16",
        "Comfy-Org/SDPose",
        "the same in one file, as ComfyUI takes it; its key names were not verified here",
        loader="sdpose-file",
        licence="not stated",
        size="1.9 GB",
    ),
]
