"""``priorscope robotics convert``: a policy in another layout."""

from __future__ import annotations

from priorscope.data.files import refuse_overwrite
from priorscope_robotics.checkpoints.folder import save_model
from priorscope_robotics.checkpoints.lerobot_export import export_lerobot
from priorscope_robotics.checkpoints.load import load_policy
from priorscope_robotics.configs import ConvertConfig


def convert(config: ConvertConfig) -> int:
    """Write the policy; returns the exit status."""
    refuse_overwrite(config.out)
    model = load_policy(config.model)
    folder = export_lerobot(model, config.out) if config.layout == "lerobot" else save_model(model, config.out)
    print(f"{sum(weight.numel() for weight in model.parameters()) / 1e6:.1f} M weights in {folder}")
    return 0
