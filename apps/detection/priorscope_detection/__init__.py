"""priorscope detection: what several cars see together, as oriented boxes in 3D (CoDiff)."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "AgentBatch": "network.batch",
        "AnchorGrid": "anchors",
        "Detector": "checkpoints",
        "DetectorSpec": "network.spec",
        "Disturbance": "noise",
        "ModelConfig": "configs",
        "PostProcessing": "post_processing",
        "Predictor": "predictor",
        "assign": "targets",
        "average_precision": "evaluation.ap",
        "bev_iou": "geometry.overlap",
        "iou_3d": "geometry.overlap",
        "load_detector": "checkpoints",
        "make_batch": "network.batch",
        "measure_frame": "evaluation.ap",
        "open_frames": "data.open",
        "rotated_nms": "geometry.nms",
        "write_opv2v": "simulator.write",
    },
)
