"""priorscope robotics: observations in, actions out, in time."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "PolicyModel": "model",
        "PolicySpec": "spec",
        "load_policy": "checkpoints.load",
        "FullPolicy": "policies.full",
        "RtiPolicy": "policies.rti",
        "WarmStart": "policies.rti",
        "StreamingPolicy": "policies.streaming",
        "ConsistencyPolicy": "policies.consistency",
        "EnvironmentNoise": "policies.noise",
        "measure_contraction": "policies.contraction",
        "propose_start": "policies.start_level",
        "make_policy": "policies.named",
        "make_environment": "envs.environment",
        "run_episodes": "episodes_run",
        "open_episodes": "data.open",
    },
)
