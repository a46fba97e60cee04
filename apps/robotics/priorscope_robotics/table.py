"""The robotics app's models: published and bundled. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from priorscope.backbones.table import PublishedModel

_EXPERIMENTS = "diffusion-policy.cs.columbia.edu/data/experiments"


def _columbia(name: str, folder: str, size: str, note: str) -> PublishedModel:
    return PublishedModel(
        name=name,
        app="robotics",
        task="actions",
        loader="diffusion-policy",
        source=f"{_EXPERIMENTS}/{folder}",
        licence="MIT (code)",
        size=size,
        note=f"{note}; give the .ckpt file",
        by_hand=True,
    )


MODELS: tuple[PublishedModel, ...] = (
    PublishedModel(
        name="tiny-pusht",
        app="robotics",
        task="actions",
        loader="priorscope",
        source=str(Path(__file__).parent / "models/tiny-pusht"),
        licence="Apache-2.0",
        size="2 MB",
        note="ours, bundled: Push-T from nine keypoints and the agent, learnt from a planner; for demos and tests",
        bundled=True,
    ),
    _columbia(
        "dp-pusht-lowdim-cnn",
        "low_dim/pusht/diffusion_policy_cnn",
        "65 million weights",
        "Push-T from nine keypoints and the agent; inpainting",
    ),
    _columbia(
        "dp-pusht-lowdim-transformer",
        "low_dim/pusht/diffusion_policy_transformer",
        "9 million weights",
        "Push-T from nine keypoints and the agent",
    ),
    _columbia(
        "dp-pusht-image-cnn", "image/pusht/diffusion_policy_cnn", "263 million weights", "Push-T from 96 x 96 images"
    ),
    *(
        _columbia(
            f"dp-{task.replace('_', '-')}-lowdim-cnn",
            f"low_dim/{task}_ph/diffusion_policy_cnn",
            "66 million weights",
            f"robomimic {task}, absolute actions",
        )
        for task in ("lift", "can", "square", "tool_hang", "transport")
    ),
    PublishedModel(
        name="rti-dp-scale",
        app="robotics",
        task="actions",
        loader="diffusion-policy",
        source="huggingface.co/duandaxia/rti-dp-scale",
        licence="not stated",
        size="not stated",
        note="robomimic tasks trained with the gripper divided by 10; give TASK/train_0/cp1.ckpt",
        by_hand=True,
    ),
    PublishedModel(
        name="lerobot-pusht",
        app="robotics",
        task="actions",
        loader="lerobot",
        source="lerobot/diffusion_pusht",
        licence="Apache-2.0",
        size="263 million weights",
        note="Push-T from 96 x 96 images",
    ),
    PublishedModel(
        name="lerobot-pusht-keypoints",
        app="robotics",
        task="actions",
        loader="lerobot",
        source="lerobot/diffusion_pusht_keypoints",
        licence="Apache-2.0",
        size="252 million weights",
        note="Push-T from eight keypoints and the agent",
    ),
)
