#!/usr/bin/env bash
# mmpose 1.3.2 and mmdet 3.3.0 beside a current torch and numpy: scripts/install_openmmlab.sh [PYTHON]
#
# PYTHON is that of the virtual environment to install into (default: .venv/bin/python, else python3). This is a script
# because no extra can say it: plain `pip install mmpose` fails (its dependency chumpy does not build any more), mmdet
# refuses today's mmcv, and the wheel of xtcocotools was built for numpy 1. What is left out here (torchvision,
# compiled mmcv operators) the codecs, transforms, metrics and the top-down estimator do not need.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
command -v "$python" >/dev/null || { echo "$python is no Python; say which: $0 PYTHON" >&2; exit 2; }
install() { "$python" -m pip install --quiet --disable-pip-version-check "$@"; }

install "mmengine==0.10.7" munkres json_tricks six "cython<4" "setuptools<81" wheel
# --no-deps: their lists of dependencies cannot be met, and are not needed in full.
install --no-deps "mmcv-lite==2.1.0" "mmpose==1.3.2" "mmdet==3.3.0"
# Built here, against the numpy that is installed.
install --no-deps --no-build-isolation --no-binary xtcocotools "xtcocotools==1.14.3"
install terminaltables pycocotools shapely

"$python" - <<'PYTHON'
import mmdet, mmengine, mmcv, numpy, torch, xtcocotools.mask
from mmpose.codecs import UDPHeatmap
from mmpose.evaluation.metrics import CocoMetric
import mmpose

print(f"mmpose {mmpose.__version__}, mmdet {mmdet.__version__}, mmcv {mmcv.__version__}, mmengine {mmengine.__version__}"
      f" with numpy {numpy.__version__} and torch {torch.__version__}")
PYTHON
