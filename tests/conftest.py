"""Fixtures shared by all tests: where the golden cases lie, and how much of the machine a test may take."""

from __future__ import annotations

import csv
import fnmatch
import json
import math
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("PYTEST_XDIST_WORKER"):
        import torch

        torch.set_num_threads(1)


def golden_folders() -> list[Path]:
    """Folders that may hold golden cases: PRIORSCOPE_GOLDEN, else tests/golden and ../shared/golden."""
    named = os.environ.get("PRIORSCOPE_GOLDEN")
    if named:
        return [Path(part) if Path(part).is_absolute() else ROOT / part for part in named.split(os.pathsep) if part]
    return [folder for folder in (ROOT / "tests/golden", ROOT.parent / "shared/golden") if folder.is_dir()]


@pytest.fixture(scope="session")
def golden_files() -> Callable[[str, str], list[Path]]:
    """``golden_files(folder, pattern)``: the files of a golden family, by name pattern, in every golden folder.

    A case that lies in two folders is taken from the first. With PRIORSCOPE_GOLDEN set, no file is a failure;
    without it, the test skips and says so.
    """

    def find(folder: str, pattern: str) -> list[Path]:
        found: dict[str, Path] = {}
        for root in golden_folders():
            for path in sorted((root / folder).glob("*")):
                if fnmatch.fnmatch(path.name, pattern):
                    found.setdefault(path.name, path)
        if not found:
            message = f"no golden case {folder}/{pattern} in {[str(f) for f in golden_folders()]}"
            if os.environ.get("PRIORSCOPE_GOLDEN"):
                pytest.fail(message)
            pytest.skip(message)
        return [found[name] for name in sorted(found)]

    return find


@pytest.fixture(autouse=True, scope="session")
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the user's cache, and none asks the hub."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRIORSCOPE_CACHE", str(folder))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield folder


@pytest.fixture(scope="session")
def small_unet() -> Callable[..., Any]:
    """``small_unet(**changes)``: a text-conditioned ``UNet2DConditionModel`` of two levels, the same every time.

    Its weights may be trained and changed; it is in evaluation mode.
    """

    def make(**changes: Any) -> Any:
        import torch
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        config: dict[str, Any] = {
            "sample_size": 8,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "cross_attention_dim": 8,
            "attention_head_dim": 2,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        }
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return UNet2DConditionModel(**config | changes).eval()

    return make


@pytest.fixture(scope="session")
def launcher() -> list[str]:
    """The command that starts what follows in two processes; ``--multi_gpu`` is how accelerate is asked for several."""
    start = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"]
    return [*start, "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread, as in the processes that an accelerate launcher starts: two threads round differently."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def fork(one_thread: None) -> Callable[[Callable[[], int]], int]:
    """``fork(work)``: run ``work`` in a child that has already imported everything; its exit status.

    That is what ``work`` returns, 70 where it raises, and minus the signal where it is killed. A child of torch may use
    one thread; so does the test, that both round alike.
    """
    import torch

    def run(work: Callable[[], int]) -> int:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            status = 70
            try:
                torch.set_num_threads(1)
                status = work()
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    return run


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """``shared_data(domain)``: the folder of real samples of a domain; skips where there is none."""

    def find(domain: str) -> Path:
        folder = ROOT.parent / "shared/data" / domain
        if not folder.is_dir():
            pytest.skip(f"no real samples at {folder}")
        return folder

    return find


@pytest.fixture(scope="session")
def read_json() -> Callable[[Path], dict]:
    return lambda path: json.loads(Path(path).read_text())


@pytest.fixture(scope="session")
def read_manifest() -> Callable[[Path], dict[str, list[int]]]:
    """Read a manifest (key, shape, dtype; tab-separated, some with these words as first line) as key -> shape."""

    def read(path: Path) -> dict[str, list[int]]:
        with open(path, newline="") as file:
            return {
                row[0]: json.loads(row[1]) for row in csv.reader(file, delimiter="\t") if row[:1] not in ([], ["key"])
            }

    return read


@pytest.fixture(scope="session")
def random_weights() -> Callable[[str, Sequence[int]], Iterator[np.ndarray]]:
    """``random_weights(key, shape)``: flat float32 pieces of a network's weight of any size, in bounded memory.

    Deterministic: the values of a key are a window of one block of noise, chosen by the key's checksum. Matrices
    are scaled by 1 / sqrt(fan in), so that signals keep their size; norms (weights of one axis) are 1, biases 0.
    """
    block = np.random.Generator(np.random.Philox(0)).standard_normal(1 << 22, dtype=np.float32)

    def pieces(key: str, shape: Sequence[int]) -> Iterator[np.ndarray]:
        left = math.prod(shape)
        if len(shape) < 2:
            yield np.full(left, float(key.endswith("weight")), np.float32)
            return
        scale = np.float32(1 / math.sqrt(math.prod(shape[1:])))
        begin = zlib.crc32(key.encode()) % len(block)
        while left:
            piece = block[begin : begin + left] * scale
            yield piece
            left, begin = left - len(piece), 0

    return pieces


@pytest.fixture(scope="session")
def write_random_weights(random_weights: Callable[[str, Sequence[int]], Iterator[np.ndarray]]) -> Callable[..., int]:
    """``write(path, shapes)``: a float32 or float16 safetensors file of any size in bounded memory; its bytes.

    The values are those of :func:`random_weights`.
    """

    def write(path: Path, shapes: Mapping[str, Sequence[int]], dtype: type = np.float32) -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        width, offset, header = np.dtype(dtype).itemsize, 0, {}
        for key, shape in shapes.items():
            end = offset + width * math.prod(shape)
            name = {4: "F32", 2: "F16"}[width]
            header[key] = {"dtype": name, "shape": list(shape), "data_offsets": [offset, end]}
            offset = end
        head = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
        head += b" " * (-len(head) % 8)
        with open(path, "wb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            for key, shape in shapes.items():
                for piece in random_weights(key, shape):
                    file.write(piece.astype(dtype, copy=False).data)
        return path.stat().st_size

    return write
