"""The app as a package: what it offers, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import priorscope_detection


def test_importing_the_app_and_its_commands_imports_no_torch():
    code = "import sys, priorscope_detection, priorscope_detection.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_name_that_is_offered_is_there():
    for name in priorscope_detection.__all__:
        assert getattr(priorscope_detection, name).__module__.startswith("priorscope_detection.")
