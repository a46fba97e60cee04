"""A trained model with its backbone: images in, class probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from priorscope.backbones.loading import read_config
from priorscope.data.files import write_text
from priorscope.device import Precision
from priorscope.errors import InputError
from priorscope.evaluation.run_folder import read_yaml
from priorscope_remote_sensing.backbone import DiffusionSat
from priorscope_remote_sensing.features import Backbone, KeptFeatures
from priorscope_remote_sensing.metadata import Metadata
from priorscope_remote_sensing.prior import ReflectanceSpace, TerrainPrior
from priorscope_remote_sensing.satdifuser import SatDiFuserModel
from priorscope_remote_sensing.table import find_backbone

_TRAINED_ON = "training.yaml"
_OWN = ReflectanceSpace.__name__


def load_backbone(
    source: str,
    *,
    resolution: int = 256,
    use_metadata: bool = False,
    device: str = "auto",
    precision: Precision = "auto",
) -> Backbone:
    """A backbone by its name in the model table or its folder, frozen.

    Parameters
    ----------
    source : str
    resolution : {256, 512}
        Which of DiffusionSat's models, where the folder holds both.
    use_metadata : bool
        Keep what takes the metadata in.
    device, precision : str
    """
    folder = find_backbone(source)
    if (folder / "vae" / "config.json").is_file() and read_config(folder / "vae").get("_class_name") == _OWN:
        if use_metadata:
            raise InputError(f"{source} is told no metadata", remedy="Leave --use-metadata out.")
        return TerrainPrior.from_pretrained(folder, device=device)
    return DiffusionSat.from_pretrained(
        folder, resolution=resolution, use_metadata=use_metadata, device=device, precision=precision
    )


class SatellitePredictor:
    """Class probabilities of images and of every pixel of scenes.

    ``predictor = SatellitePredictor.from_pretrained("runs/train/model")``, then ``predictor(images)``.

    Parameters
    ----------
    model : SatDiFuserModel
    backbone : DiffusionSat or TerrainPrior
    side : int
        Side of the images it was trained on, in pixels: larger ones are better cut into tiles of this size, since
        images of any size are brought to one.
    seed, batch_size : int
        Of the noise; images a call of the network.
    """

    def __init__(
        self, model: SatDiFuserModel, backbone: Backbone, *, side: int = 0, seed: int = 0, batch_size: int = 4
    ) -> None:
        self.model = model.to(backbone.device)
        self.side = side or model.settings.image_size
        self.features = KeptFeatures(model, backbone, seed=seed, batch_size=batch_size)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        backbone: str | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        seed: int = 0,
        batch_size: int = 4,
    ) -> SatellitePredictor:
        """Load a model folder and the backbone that it names.

        Parameters
        ----------
        folder : str or Path
            ``out/model`` of a training.
        backbone : str, optional
            Where the backbone is, if elsewhere than when the model was trained.
        device, precision : str
        seed, batch_size : int

        Raises
        ------
        InputError
            A folder is missing or incomplete, or weights do not fit.
        """
        model = SatDiFuserModel.from_pretrained(folder)
        settings = model.settings
        try:
            network = load_backbone(
                backbone or settings.backbone, use_metadata=settings.use_metadata, device=device, precision=precision
            )
        except InputError as error:
            if backbone is not None:
                raise
            raise InputError(
                f"its backbone {settings.backbone} cannot be loaded: {error}",
                path=folder,
                remedy="Say where it is with --backbone.",
            ) from None
        path = Path(folder) / _TRAINED_ON
        side = int(read_yaml(path).get("side", 0)) if path.is_file() else 0
        return cls(model, network, side=side, seed=seed, batch_size=batch_size)

    def __call__(
        self, images: torch.Tensor, metadata: Sequence[Metadata | None] | Metadata | None = None
    ) -> torch.Tensor:
        """Class probabilities.

        Parameters
        ----------
        images : Tensor (B, bands, H, W), float32
            As the model's band recipe scales them; any size, without NaN.
        metadata : Metadata, or one (or None) an image, optional
            For models that are told it. The ground sampling distance is that of `images`.

        Returns
        -------
        Tensor (B, classes), or (B, classes, H, W) for segmentation; float32 on the CPU
            Sum to 1 over the classes, except for multi-label classification.
        """
        given = [metadata] * len(images) if metadata is None or isinstance(metadata, Metadata) else metadata
        features = self.features(images, metadata=given)
        height, width = images.shape[-2:]
        return self.model.probabilities(features, (height, width)).cpu()

    def at_side(self, side: int) -> SatellitePredictor:
        """The same predictor for images of another side, seen at the scale it was trained at."""
        if side == self.side:
            return self
        settings = self.model.settings
        size = max(1, round(settings.image_size * side / self.side))
        model = SatDiFuserModel(self.model.decoder, replace(settings, image_size=size), prompt=self.model.prompt)
        features = self.features
        return SatellitePredictor(
            model, features.backbone, side=side, seed=features.seed, batch_size=features.batch_size
        )


def save_trained(model: SatDiFuserModel, folder: Path, *, side: int, half: bool = False) -> None:
    """Write a model folder, with the side of the images it was trained on."""
    model.save_pretrained(folder, half=half)
    write_text(folder / _TRAINED_ON, f"# side of the training images, in pixels\nside: {side}\n")
