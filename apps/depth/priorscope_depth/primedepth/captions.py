"""What PrimeDepth is told about a picture in words, and the state of the text tower for it.

The authors' code describes each picture with BLIP-2. Here the default is the empty prompt, which needs no second
network; what that costs in accuracy was not measured, since it takes the published weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from priorscope.backbones.prompt import kept_state, read_tokenizer
from priorscope.data.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from priorscope.errors import InputError

#: The two ends of a text, and what fills it up, in CLIP's vocabulary; open_clip fills with 0, transformers with ends.
START, END, PADDING = 49406, 49407, 0
#: Published models whose ``tokenizer`` folder is Stable Diffusion 2's; a local copy of either will do.
_TOKENIZERS = ("stabilityai/stable-diffusion-2-1", "jingheya/lotus-depth-d-v2-0-disparity")
#: Tokens of a description, as transformers had it by default when PrimeDepth was published.
_LONGEST = 20


@dataclass
class Captions:
    """Captions of pictures: one for all, from a file by name, or by a model that looks at them.

    Parameters
    ----------
    text : str
        For every picture that has no caption of its own.
    by_name : dict of str to str
        By an item's name, or the last part of it, with or without suffix; a video's is that of its frames (clip/3).
    model : str or Path, optional
        A BLIP-2 model that describes the pictures; a folder, or a hub id that is in the local cache.
    source : Path, optional
        The file of ``by_name``, for messages.
    """

    text: str = ""
    by_name: dict[str, str] = field(default_factory=dict)
    model: str | Path | None = None
    source: Path | None = None
    _captioner: Callable[[torch.Tensor], list[str]] | None = None

    @classmethod
    def from_file(cls, path: Path, text: str = "") -> Captions:
        """Captions of a JSON object ``{"photo.jpg": "a street", ...}``, or of lines ``photo.jpg<TAB>a street``."""
        if not path.is_file():
            fact = "is a folder" if path.is_dir() else "no such file"
            raise InputError(fact, path=path, remedy="Give a JSON object of names and captions, or lines of both.")
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot be read ({error})", path=path) from None
        if path.suffix == ".json":
            try:
                entries = json.loads(content)
            except json.JSONDecodeError as error:
                raise InputError(f"is not valid JSON ({error})", path=path) from None
            if not isinstance(entries, dict) or not all(isinstance(value, str) for value in entries.values()):
                raise InputError("holds no JSON object of names and captions", path=path)
            return cls._named(text, entries, path)
        entries = {}
        for number, line in enumerate(content.splitlines(), 1):
            if not line.strip():
                continue
            name, found, caption = line.partition("\t")
            if not found:
                raise InputError(f"line {number} has no tab", path=path, remedy="Write NAME, a tab, the caption.")
            entries[name] = caption.strip()
        return cls._named(text, entries, path)

    @classmethod
    def _named(cls, text: str, entries: dict[str, str], path: Path) -> Captions:
        if not entries:
            raise InputError("holds no caption", path=path, remedy="Leave out --caption-file for the empty prompt.")
        return cls(text, entries, source=path)

    @property
    def known(self) -> list[str]:
        """Every caption that is known before a picture is seen."""
        return [] if self.model is not None else [self.text, *self.by_name.values()]

    def describe(self) -> str:
        """Where captions come from, in words."""
        if self.model is not None:
            return f"by {self.model}"
        default = self.text or "empty"
        return f"from a file, else {default}" if self.by_name else default

    def check_items(self, items: Sequence[int | str]) -> None:
        """Refuse captions by name that are all of other pictures (InputError): none of them would be told."""
        if self.source is not None and all(self._own(str(item)) is None for item in items):
            names = ", ".join(list(self.by_name)[:3]) or "nothing"
            raise InputError(
                f"names none of the {len(items)} pictures, the first of which is {items[0]}; it names {names}",
                path=self.source,
                remedy="Name captions by the pictures' files.",
            )

    def load(self, device: torch.device) -> None:
        """Load the model that looks at pictures, where there is one: its absence is then known before work begins."""
        if self.model is not None and self._captioner is None:
            self._captioner = load_captioner(self.model, device)

    def of(self, rgb: torch.Tensor, items: Sequence[int | str]) -> list[str]:
        """Captions of pictures (B, 3, H, W) in [0, 1]."""
        if self.model is not None:
            self.load(rgb.device)
            assert self._captioner is not None
            return self._captioner(rgb)
        own = (self._own(str(item)) for item in items)
        return [self.text if caption is None else caption for caption in own]

    @cached_property
    def _by_stem(self) -> dict[str, str]:
        return {_stem(name): caption for name, caption in self.by_name.items()}

    @cached_property
    def _by_clip(self) -> dict[str, str]:
        return {_stem(name): text for name, text in self.by_name.items() if not _is_picture(name)}

    def _own(self, item: str) -> str | None:
        if item in self.by_name:
            return self.by_name[item]
        clip, _, frame = item.rpartition("/")
        if frame.isdecimal() and _stem(clip) in self._by_clip:
            return self._by_clip[_stem(clip)]
        return self.by_name.get(Path(item).name, self._by_stem.get(_stem(item)))


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _stem(name: str) -> str:
    """The last part of a name without a picture's suffix; other dots belong to it (IMG.2024)."""
    path = Path(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES else path.name


class TextStates:
    """States of captions, (1, 77, width) each, computed once and kept in the user's cache.

    Parameters
    ----------
    checkpoint : Path
        Identifies the text tower; a folder ``tokenizer`` beside it is used.
    load : callable
        Loads the tower (``CLIPTextModel``), when it is needed.
    tokens : int
        Of a state.
    """

    def __init__(self, checkpoint: Path, load: Callable[[], Any], tokens: int = 77) -> None:
        self.checkpoint = checkpoint
        self.load = load
        self.tokens = tokens
        self._states: dict[str, torch.Tensor] = {}
        self._tower: Any = None
        self._tokenizer: Any = None

    def prepare(self, captions: Sequence[str]) -> None:
        """Compute the states of captions that are known beforehand, and let the tower go."""
        for caption in dict.fromkeys(captions):
            self(caption)
        self._tower = None

    def __call__(self, caption: str) -> torch.Tensor:
        """The state of one caption: the last layer's, normalised. Source: PrimeDepth's config, ``layer="last"``.

        Raises
        ------
        InputError
            A caption of more tokens than the tower takes; no tokenizer.
        """
        caption = caption.strip()
        if caption not in self._states:
            stamp = self.checkpoint.stat()  # identifies the file without reading its gigabytes
            file = (str(self.checkpoint.resolve()), stamp.st_size, stamp.st_mtime_ns)
            self._states[caption] = kept_state([*file, self.tokens, caption], lambda: self._compute(caption))
        return self._states[caption]

    def token_ids(self, caption: str) -> list[int]:
        """Ids of a caption between its two ends, filled up to :attr:`tokens`."""
        ids: list[int] = []
        if caption:  # the empty prompt needs no tokenizer
            if self._tokenizer is None:
                self._tokenizer = load_tokenizer(self.checkpoint.parent)
            ids = list(self._tokenizer(caption, add_special_tokens=False).input_ids)
        if len(ids) > self.tokens - 2:
            raise InputError(
                f"the caption {caption[:40]!r}... has {len(ids)} tokens; the text encoder takes {self.tokens - 2}",
                remedy="Shorten it.",
            )
        ids = [START, *ids, END]
        return ids + [PADDING] * (self.tokens - len(ids))

    def _compute(self, caption: str) -> torch.Tensor:
        ids = self.token_ids(caption)
        if self._tower is None:
            self._tower = self.load()
        with torch.no_grad():
            return self._tower(torch.tensor([ids])).last_hidden_state.float()


def load_tokenizer(folder: Path) -> Any:
    """CLIP's tokenizer: the folder ``tokenizer`` in ``folder``, else that of a published model in the local cache."""
    from huggingface_hub import snapshot_download

    places = [folder / "tokenizer"] if (folder / "tokenizer").is_dir() else []
    for name in () if places else _TOKENIZERS:
        try:
            found = Path(snapshot_download(name, allow_patterns=["tokenizer/*"], local_files_only=True))
        except Exception:
            continue
        if (found / "tokenizer").is_dir():
            places.append(found / "tokenizer")
    if not places:
        raise InputError(
            "captions other than the empty prompt need CLIP's tokenizer, which the checkpoint does not hold",
            path=folder,
            remedy=f"Put the tokenizer folder of {_TOKENIZERS[-1]} beside the checkpoint.",
        )
    return read_tokenizer(places[0])


def load_captioner(model: str | Path, device: torch.device) -> Callable[[torch.Tensor], list[str]]:
    """BLIP-2 as a function from pictures (B, 3, H, W) in [0, 1] to captions, in float16 on a GPU.

    Raises
    ------
    InputError
        The model is not here; it is never downloaded without being asked for (7 GB and more).
    """
    from transformers import AutoProcessor, Blip2ForConditionalGeneration

    dtype = torch.float16 if device.type == "cuda" else torch.float32
    try:
        processor = AutoProcessor.from_pretrained(str(model), local_files_only=True)
        network = Blip2ForConditionalGeneration.from_pretrained(str(model), local_files_only=True, dtype=dtype)
    except Exception as error:
        raise InputError(
            f"no caption model: {model} is not on this machine, or is no BLIP-2 model",
            remedy=f"Run `hf download {model}`, or caption by --caption TEXT or --caption-file; the empty prompt needs "
            "none.",
        ) from error
    network = network.to(device).eval()

    @torch.no_grad()
    def describe(rgb: torch.Tensor) -> list[str]:
        pictures = list((rgb * 255).round().to(torch.uint8).cpu())
        inputs = processor(images=pictures, return_tensors="pt").to(device, dtype)
        texts = processor.batch_decode(network.generate(**inputs, max_new_tokens=_LONGEST), skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]

    return describe
