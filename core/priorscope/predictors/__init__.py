"""Dense prediction: geometry, tiling, ensembling, and one- or few-step prediction in a latent space."""

from priorscope.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Geometry": "geometry",
        "Frame": "geometry",
        "resize": "geometry",
        "predict_tiled": "tiling",
        "tile_starts": "tiling",
        "ensemble_affine": "ensemble",
        "ensemble_normals": "ensemble",
        "LatentPredictor": "latent",
        "LatentMemory": "latent",
        "equal_batches": "batching",
        "Patched": "patch_consistency",
    },
)
