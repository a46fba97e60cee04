"""No test of this app reads or writes the user's cache, and none asks the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRIORSCOPE_CACHE", str(folder))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield folder
