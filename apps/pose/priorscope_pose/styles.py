"""``priorscope pose styles``: out-of-domain variants of a set in COCO's layout, with its annotations as they are.

Nothing moves in any style, so keypoints stay true. Three looks far from photographs: oil (flat patches with sharp
edges), transfer (another picture's colours and strengths of detail, in the manner of AdaIN but on a pyramid of the
picture itself, without a network), sketch (pencil lines without colour). Deterministic: what is random follows from the
seed and the file's name.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from priorscope.data.files import atomic_path, refuse_overwrite, write_text
from priorscope.data.images import check_rgb, read_image
from priorscope.data.json_file import read_json
from priorscope.diffusion.noise import item_seed
from priorscope.errors import InputError
from priorscope_pose.configs import StylesConfig
from priorscope_pose.data.coco import image_folder
from priorscope_pose.data.json_file import read_object

Picture = NDArray[np.uint8]

#: Grey, yellow against blue, red against green: axes along which colours of pictures are nearly uncorrelated.
_OPPONENT = np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]]) / np.sqrt([[3], [6], [2]])
_LEVELS = 5
#: How far the strength of a band of details may change.
_GAIN = (0.4, 2.5)
#: Share of the reference's two finest bands that is added: its brush marks.
_MARKS = 0.5
#: Says how a style's pictures were made, so that a call that was cut off goes on alike.
_MADE = "style.json"


def oil(image: Picture, strength: float = 1.0) -> Picture:
    """Paint by the Kuwahara filter: a pixel takes the mean of that one of four squares about it that varies least.

    Parameters
    ----------
    image : uint8 array (H, W, 3)
    strength : float
        0 ... 1; a share of the painted picture.

    Returns
    -------
    uint8 array (H, W, 3)
        The squares' sides are a hundredth of the picture's shorter one, 3 pixels at least; done twice.
    """
    check_rgb(image)
    reach = max(2, 2 * round(min(image.shape[:2]) / 200))
    painted = image.astype(np.float32)
    for _ in range(2):
        painted = _kuwahara(painted, reach)
    return _mixed(image, painted, strength)


def _kuwahara(image: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    pads = ((reach, reach), (reach, reach), (0, 0))
    padded = np.pad(image, pads, mode="symmetric")
    grey = padded.mean(-1)
    side, half = reach + 1, reach // 2
    mean = ndimage.uniform_filter(padded, (side, side, 1))
    variance = ndimage.uniform_filter(grey * grey, side) - ndimage.uniform_filter(grey, side) ** 2
    height, width = image.shape[:2]
    places = [(reach + y, reach + x) for y in (-half, half) for x in (-half, half)]
    spreads = np.stack([variance[y : y + height, x : x + width] for y, x in places])
    means = np.stack([mean[y : y + height, x : x + width] for y, x in places])
    best = spreads.argmin(0)
    return np.take_along_axis(means, best[None, ..., None], 0)[0]


def sketch(image: Picture, strength: float = 1.0) -> Picture:
    """Draw with a pencil: grey values divided by their blur, so that only edges are left, on warm paper."""
    check_rgb(image)
    grey = image.astype(np.float32).mean(-1) / 255
    around = ndimage.gaussian_filter(grey, max(1.0, min(grey.shape) / 50))
    lines = np.clip((grey + 0.02) / (around + 0.02), 0, 1) ** 2.5
    shade = 0.85 + 0.15 * ndimage.gaussian_filter(grey, 1.0)
    paper = np.array([252, 248, 238], np.float32)
    return _mixed(image, (lines * shade)[..., None] * paper, strength)


def transfer(image: Picture, reference: Picture, strength: float = 1.0) -> Picture:
    """Give a picture the colours, the strengths of detail, and the brush marks of another.

    In each of three opponent colours, the mean and the deviation of the coarsest layer, and the deviations of the bands
    of a Laplacian pyramid, become those of the reference; AdaIN does so with the features of a network.

    Parameters
    ----------
    image, reference : uint8 arrays (H, W, 3)
        The reference is resized to the image.
    strength : float
        0 ... 1.
    """
    check_rgb(image)
    check_rgb(reference)
    if reference.shape != image.shape:
        size = image.shape[1], image.shape[0]
        reference = np.asarray(Image.fromarray(reference).resize(size, Image.Resampling.BICUBIC))
    own, other = (list(_bands(picture.astype(np.float32) @ _OPPONENT.T)) for picture in (image, reference))
    result = np.zeros(image.shape)
    for level, (band, style) in enumerate(zip(own, other, strict=True)):
        axes = (0, 1)
        gain = np.clip(style.std(axes) / np.maximum(band.std(axes), 1e-3), *_GAIN)
        result += (band - band.mean(axes)) * gain + style.mean(axes)
        if level < 2:
            result += _MARKS * (style - style.mean(axes))
    return _mixed(image, result @ _OPPONENT, strength)


def _bands(picture: NDArray[np.floating]) -> Iterator[NDArray[np.floating]]:
    """Differences of ever wider blurs, then what is left; they add up to the picture."""
    for level in range(_LEVELS):
        width = 2.0**level
        blurred = ndimage.gaussian_filter(picture, (width, width, 0), mode="nearest", truncate=3.0)
        yield picture - blurred
        picture = blurred
    yield picture


def brushed_canvas(height: int, width: int, seed: int) -> Picture:
    """Strokes of a few colours along a smooth field of directions: a style of its own for each seed."""
    random = np.random.default_rng([seed, 7])
    palette = _palette(random)
    canvas = Image.new("RGB", (width, height), tuple(palette[0].tolist()))
    pen = ImageDraw.Draw(canvas)
    coarse = random.uniform(0, 2 * np.pi, (4, 4))
    rows, columns = np.linspace(0, 3, height), np.linspace(0, 3, width)
    where = np.meshgrid(rows, columns, indexing="ij")
    field = np.arctan2(
        *(ndimage.map_coordinates(part(coarse), where, order=1, mode="nearest") for part in (np.sin, np.cos))
    )
    short = min(height, width)
    for _ in range(900):
        y, x = random.integers(height), random.integers(width)
        length, thick = random.uniform(0.05, 0.18) * short, max(1, round(float(random.uniform(0.008, 0.03)) * short))
        colour = palette[random.integers(len(palette))] + random.integers(-18, 19, 3)
        dx, dy = np.cos(field[y, x]) * length / 2, np.sin(field[y, x]) * length / 2
        pen.line([(x - dx, y - dy), (x + dx, y + dy)], fill=tuple(colour.clip(0, 255).tolist()), width=thick)
    return np.asarray(canvas)


def _palette(random: np.random.Generator) -> NDArray[np.int64]:
    """Two hues and their shades, dark to light."""
    hues = random.integers(0, 256, 2)
    hues = np.array([hues[0], hues[0] + 20, hues[1], hues[1] + 12, hues[0] + 128]) % 256
    hsv = np.stack([hues, random.integers(90, 220, 5), np.array([60, 120, 170, 215, 245])], 1).astype(np.uint8)
    return np.asarray(Image.fromarray(hsv[None], "HSV").convert("RGB"))[0].astype(np.int64)


def _mixed(image: Picture, styled: NDArray[np.floating], strength: float) -> Picture:
    if not 0 <= strength <= 1:
        raise InputError(f"a strength of {strength}", remedy="Use a number from 0 to 1.")
    mixed = image + strength * (styled - image)
    return mixed.round().clip(0, 255).astype(np.uint8)


def styled(
    image: Picture, style: str, *, seed: int, reference: Picture | None = None, strength: float = 1.0
) -> Picture:
    """One of the styles by its name; ``seed`` is the picture's own.

    Raises
    ------
    InputError
        No such style.
    """
    if style == "oil":
        return oil(image, strength)
    if style == "sketch":
        return sketch(image, strength)
    if style != "transfer":
        raise InputError(f"no style {style!r}", remedy="There are oil, transfer and sketch.")
    return transfer(
        image, brushed_canvas(image.shape[0], image.shape[1], seed) if reference is None else reference, strength
    )


def run_styles(config: StylesConfig) -> int:
    """Run ``priorscope pose styles``; annotation files are copied last, so a folder that has one is finished.

    Raises
    ------
    InputError
        Not a set in COCO's layout, missing pictures, or a result that is there already.
    """
    if not 0 <= config.strength <= 1 or config.workers < 1:
        raise InputError(
            f"--strength {config.strength} --workers {config.workers}",
            remedy="Use a strength from 0 to 1, and 1 or more.",
        )
    content = read_object(config.data, "images", "annotations")
    folder = image_folder(config.data) if config.images is None else config.images
    names = [str(record.get("file_name", "")) for record in content["images"]]
    for name in names:
        if not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(
                f"names a picture {name!r}", path=config.data, remedy="Names start from the images' folder."
            )
        if not (folder / name).is_file():
            raise InputError("no such picture", path=folder / name, remedy="Give the folder of pictures by --images.")
    reference = None if config.reference is None else read_image(config.reference)
    results = [config.out / style / "annotations" / config.data.name for style in config.styles]
    for result in results:
        refuse_overwrite(result, remedy="Choose another --out.")
    for style, result in zip(config.styles, results, strict=True):
        target = config.out / style / folder.resolve().name
        _remember(config, style, reference)
        todo = [name for name in names if not (target / name).is_file()]
        one = partial(
            _write_one, folder, target, style=style, seed=config.seed, reference=reference, strength=config.strength
        )
        _do_all(one, todo, config.workers, style)
        with atomic_path(result) as aside:
            shutil.copyfile(config.data, aside)
        print(result)
        if image_folder(result) != target:
            print(f"  its pictures: --images {target}")
    return 0


def _remember(config: StylesConfig, style: str, reference: Picture | None) -> None:
    """Write down how a style is made; refuse to go on with one that was begun otherwise (InputError)."""
    path = config.out / style / _MADE
    of_transfer = style == "transfer"
    made = {
        "strength": config.strength,
        "seed": config.seed if of_transfer and reference is None else None,
        "reference": hashlib.sha256(reference.tobytes()).hexdigest() if of_transfer and reference is not None else None,
    }
    if not path.exists():
        write_text(path, json.dumps(made) + "\n")
    elif read_json(path) != made:
        raise InputError(
            "was begun with another strength, seed or reference",
            path=path.parent,
            remedy="Give those, or choose another --out.",
        )


def _write_one(
    folder: Path, target: Path, name: str, *, style: str, seed: int, reference: Picture | None, strength: float
) -> None:
    image = styled(read_image(folder / name), style, seed=item_seed(seed, name), reference=reference, strength=strength)
    with atomic_path(target / name) as aside:
        picture = Image.fromarray(image)
        if aside.suffix.lower() in (".jpg", ".jpeg"):
            picture.save(aside, quality=95, subsampling=0)
        else:
            picture.save(aside)


def _do_all(one: partial, names: list[str], workers: int, title: str) -> None:
    from rich.progress import track

    if workers == 1 or len(names) < 2:
        for name in track(names, title):
            one(name)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # spawn: a forked child would share the parent's threads' locks (torch, BLAS)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for _ in track(pool.map(one, names, chunksize=8), title, total=len(names)):
            pass
