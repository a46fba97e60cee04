"""Fixtures of the astro app's tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def simulated_survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 80 galaxies of 48 pixels, a tenth of them with a dust lane: read it, do not change it."""
    pytest.importorskip("galsim")
    from priorscope_astro.simulator.config import SimulateConfig
    from priorscope_astro.simulator.survey import run

    folder = tmp_path_factory.mktemp("astro") / "survey"
    return run(SimulateConfig(out=folder, count=80, size=48, seed=11, prevalence=("dust_lane=0.1",)))


@pytest.fixture(scope="session")
def write_tokenizer() -> Callable[..., None]:
    """``write_tokenizer(folder, first_end)``: CLIP's without merges, a token a letter, its two ends from there."""
    from tokenizers.pre_tokenizers import ByteLevel

    def write(folder: Path, first_end: int) -> None:
        letters = sorted(ByteLevel.alphabet())
        ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
        words = letters + [f"{letter}</w>" for letter in letters]
        numbers = {word: number for number, word in enumerate(words)}
        numbers |= {ends["bos_token"]: first_end, ends["eos_token"]: first_end + 1}
        folder.mkdir(parents=True)
        (folder / "vocab.json").write_text(json.dumps(numbers))
        (folder / "merges.txt").write_text("#version: 0.2\n")
        config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": ends["eos_token"], **ends}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        (folder / "special_tokens_map.json").write_text(json.dumps({**ends, "pad_token": ends["eos_token"]}))

    return write
