"""Run `priorscope depth evaluate` on real NYUv2 and KITTI frames.

Writes the frames of ../shared/data/depth (two of each; nothing of them is committed) into archives in the true
evaluation layout and runs the command on them. Two images say nothing about a model: this shows that decoding, masks
and crops hold on real files. The NYU frames are raw ones with a white border, not the labelled set.

    python benchmarks/depth_real_samples.py
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
import tempfile
from pathlib import Path

from PIL import Image

from priorscope.cli import main as priorscope

DATA = Path(__file__).resolve().parents[2] / "shared/data/depth"


def png(path: Path) -> bytes:
    buffer = io.BytesIO()
    Image.open(path).save(buffer, "png")
    return buffer.getvalue()


def write_archive(folder: Path, tar: str, list_file: str, lines: list[str], members: dict[str, bytes]) -> None:
    path = folder / tar
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    (path.parent / list_file).write_text("\n".join(lines))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-depth")
    parser.add_argument("--out", type=Path, help="keep the run folders here")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        print(f"no real samples at {DATA}")
        return 1
    with tempfile.TemporaryDirectory() as temporary:
        root, out = Path(temporary), arguments.out or Path(temporary) / "runs"
        lines, members = [], {}
        for number in ("00000", "00050"):
            names = [f"test/basement/{kind}_{number}.png" for kind in ("rgb", "depth", "filled")]
            depth = (DATA / f"nyu_raw/sync_depth_{number}.png").read_bytes()
            members |= dict(zip(names, (png(DATA / f"nyu_raw/rgb_{number}.jpg"), depth, depth), strict=True))
            lines.append(" ".join(names))
        write_archive(root, "nyuv2/nyu_labeled_extracted.tar", "filename_list_test.txt", lines, members)
        lines, members = [], {}
        for number in ("0000000005", "0000000100"):
            rgb, depth = f"drive/image_02/data/{number}.png", f"drive/proj_depth/groundtruth/image_02/{number}.png"
            members |= {
                rgb: (DATA / f"kitti_raw/rgb/{number}.png").read_bytes(),
                depth: (DATA / f"kitti_raw/depth/{number}.png").read_bytes(),
            }
            lines.append(f"{rgb} {depth} 707.0493")
        lines.append("drive/image_02/data/0000000200.png None 707.0493")
        write_archive(root, "kitti/kitti_eigen_split_test.tar", "eigen_test_files_with_gt.txt", lines, members)
        status = 0
        for name in ("nyuv2", "kitti"):
            words = ["depth", "evaluate", name, "--data", str(root), "--model", arguments.model]
            status |= priorscope([*words, "--out", str(out / name)])
        return status


if __name__ == "__main__":
    sys.exit(main())
