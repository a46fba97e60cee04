"""What the documentation points at is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    page
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("apps/**/*.md"), *ROOT.glob("benchmarks/*.md")])
    if not any(part.startswith(".") for part in page.relative_to(ROOT).parts)
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing
    assert not re.search(r"@[A-Z0-9]+@", page.read_text()), "a placeholder was left"


def test_the_readme_names_commands_that_exist():
    from priorscope_depth.cli import _VERBS

    text = (ROOT / "README.md").read_text() + (ROOT / "apps/depth/README.md").read_text()
    verbs = set(re.findall(r"priorscope depth ([a-z-]+)", text))
    assert verbs
    assert verbs <= set(_VERBS)
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make ([a-z-]+)", text, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
