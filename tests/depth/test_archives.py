"""Readers of the evaluation archives, on miniatures in the true layout: decoding, and what is wrong with an archive."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from priorscope.data.members import Members
from priorscope.errors import InputError
from priorscope_depth.archives import DepthArchive, DepthSample
from priorscope_depth.normals_data import NormalsArchive, NormalsSample, pad_centred
from priorscope_depth.protocols import depth_protocol

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (480, 640, 3), dtype=np.uint8)


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        folder = tarfile.TarInfo(".")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in members.items():
            info = tarfile.TarInfo("./" + name)  # as published
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write_folder(path, members):
    for name, data in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


def write_list(root, protocol, lines):
    path = root / "data_split" / protocol.list_file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))  # no newline at the end, as published
    return path


NYU_DEPTH = RNG.integers(0, 12000, (480, 640)).astype(np.uint16)
NYU_FILES = {
    "test/kitchen_0004/rgb_0001.png": png(RGB),
    "test/kitchen_0004/depth_0001.png": png(NYU_DEPTH),
    "test/kitchen_0004/filled_0001.png": png(NYU_DEPTH),
    "test/office_0002/rgb_0002.png": png(RGB[::-1]),
    "test/office_0002/depth_0002.png": png(NYU_DEPTH[::-1]),
    "test/office_0002/filled_0002.png": png(NYU_DEPTH[::-1]),
}
NYU_LINES = [
    "test/kitchen_0004/rgb_0001.png test/kitchen_0004/depth_0001.png test/kitchen_0004/filled_0001.png",
    "test/office_0002/rgb_0002.png test/office_0002/depth_0002.png test/office_0002/filled_0002.png",
]


@pytest.fixture
def nyu(tmp_path):
    protocol = depth_protocol("nyuv2")
    write_tar(tmp_path / protocol.tar, NYU_FILES)
    write_list(tmp_path, protocol, NYU_LINES)
    return tmp_path


def check_nyu(archive):
    assert [item.key for item in archive] == [line.split()[0] for line in NYU_LINES]
    assert not archive.complete
    sample = archive[0].load()
    np.testing.assert_array_equal(sample.rgb, RGB)
    np.testing.assert_array_equal(sample.depth, (NYU_DEPTH / 1000).astype(np.float32))
    expected = np.zeros((480, 640), bool)
    expected[45:471, 41:601] = ((NYU_DEPTH > 1) & (NYU_DEPTH < 10000))[45:471, 41:601]
    np.testing.assert_array_equal(sample.valid, expected)
    np.testing.assert_array_equal(archive[1].load().rgb, RGB[::-1])


def test_nyu_from_the_folder_of_archives(nyu):
    check_nyu(DepthArchive(nyu, depth_protocol("nyuv2")))


def test_nyu_from_the_tar_with_its_list_named_or_beside_it(nyu):
    protocol = depth_protocol("nyuv2")
    given = nyu / "data_split" / protocol.list_file
    check_nyu(DepthArchive(nyu / protocol.tar, protocol, list_file=given))
    check_nyu(DepthArchive(nyu / protocol.tar, protocol))  # data_split lies above the tar
    given.rename(nyu / "nyuv2/filename_list_test.txt")
    check_nyu(DepthArchive(nyu / protocol.tar, protocol))


@pytest.mark.parametrize("place", ["nyuv2/nyu_labeled_extracted", "nyuv2", "."])
def test_nyu_from_an_extracted_folder(tmp_path, place):
    protocol = depth_protocol("nyuv2")
    write_folder(tmp_path / place, NYU_FILES)
    write_list(tmp_path, protocol, NYU_LINES)
    check_nyu(DepthArchive(tmp_path, protocol))


def test_a_tar_without_leading_dots_is_read_too(tmp_path):
    protocol = depth_protocol("nyuv2")
    write_folder(tmp_path / "plain", NYU_FILES)
    (tmp_path / "nyuv2").mkdir()
    with tarfile.open(tmp_path / protocol.tar, "w") as tar:
        tar.add(tmp_path / "plain/test", "test")
    write_list(tmp_path, protocol, NYU_LINES)
    check_nyu(DepthArchive(tmp_path, protocol))


def test_an_archive_can_be_sent_to_a_worker(nyu):
    check_nyu(pickle.loads(pickle.dumps(DepthArchive(nyu, depth_protocol("nyuv2")))))


def test_kitti_crops_first_and_drops_lines_without_ground_truth(tmp_path):
    protocol = depth_protocol("kitti")
    rgb = RNG.integers(0, 256, (375, 1242, 3), dtype=np.uint8)
    depth = RNG.integers(0, 90 * 256, (375, 1242)).astype(np.uint16)
    names = "2011_09_26/drive/image_02/data/0000000069.png", "drive/proj_depth/groundtruth/image_02/0000000069.png"
    write_tar(tmp_path / protocol.tar, {names[0]: png(rgb), names[1]: png(depth)})
    write_list(tmp_path, protocol, ["2011_09_26/other/0000000001.png None 721.5377", f"{names[0]} {names[1]} 721.5377"])
    archive = DepthArchive(tmp_path, protocol)
    assert [item.key for item in archive] == [names[0]]
    sample = archive[0].load()
    np.testing.assert_array_equal(sample.rgb, rgb[23:, 13:1229])
    metres = depth[23:, 13:1229] / 256
    np.testing.assert_array_equal(sample.depth, metres.astype(np.float32))
    assert sample.valid.sum() == ((metres > 1e-5) & (metres < 80))[117:321, 43:1172].sum()
    assert not sample.valid[:117].any()


def test_eth3d_depth_has_no_header_and_infinity_is_a_hole(tmp_path):
    protocol = replace(depth_protocol("eth3d"), raw_shape=(4, 6))
    depth = np.linspace(0, 5, 24, dtype="<f4").reshape(4, 6)
    depth[1, 2] = np.inf
    rgb = io.BytesIO()
    Image.fromarray(RGB[:4, :6]).save(rgb, "jpeg")
    names = "rgb/office/DSC_0219.JPG", "depth/office/DSC_0219.JPG"
    write_tar(tmp_path / protocol.tar, {names[0]: rgb.getvalue(), names[1]: depth.tobytes()})
    write_list(tmp_path, protocol, [" ".join(names)])
    sample = DepthArchive(tmp_path, protocol)[0].load()
    assert sample.depth[1, 2] == 0
    assert sample.depth[3, 5] == 5
    np.testing.assert_array_equal(sample.valid, (depth > 1e-5) & np.isfinite(depth))
    wrong = replace(protocol, raw_shape=(4032, 6048))
    with pytest.raises(InputError, match=r"DSC_0219.JPG: holds 96 bytes; .* 4032 x 6048 has 97542144"):
        DepthArchive(tmp_path, wrong)[0].load()


@pytest.fixture
def diode(tmp_path):
    depth = RNG.uniform(0, 400, (768, 1024, 1)).astype(np.float32)
    mask = (RNG.uniform(size=(768, 1024)) < 0.5).astype(np.float64)
    stem = "indoors/scene_00021/scan_00189/00021_00189_indoors_200_010"
    files = {f"{stem}.png": png(np.zeros((768, 1024, 3), np.uint8))}
    files |= {f"{stem}_depth.npy": npy(depth), f"{stem}_depth_mask.npy": npy(mask)}
    return tmp_path, files, depth, mask


def test_diode_takes_depth_and_mask_from_npy(diode):
    root, files, depth, mask = diode
    protocol = depth_protocol("diode")
    write_tar(root / protocol.tar, files)
    write_list(root, protocol, [" ".join(files)])
    sample = DepthArchive(root, protocol)[0].load()
    np.testing.assert_array_equal(sample.depth, depth[..., 0])
    np.testing.assert_array_equal(sample.valid, mask > 0)


@pytest.mark.parametrize(
    ("suffix", "data", "message"),
    [
        ("_depth.npy", b"", "_depth.npy: is not a .npy file"),
        ("_depth.npy", npy(np.ones((768, 1024, 1)))[:-100], "_depth.npy: is not a .npy file"),
        ("_depth.npy", npy(np.array([{"a": 1}], dtype=object)), "_depth.npy: is not a .npy file"),
        ("_depth.npy", npy(np.array([["a"]])), "not a .npy file of real numbers"),
        ("_depth.npy", npy(np.ones((768, 1024, 3), np.float32)), r"shape \[768, 1024, 3\]"),
        ("_depth.npy", npy(np.ones((2, 2), np.float32)), r"the depth is \[2, 2\] but the image \[768, 1024\]"),
        ("_depth_mask.npy", npy(np.ones((768, 1023))), r"the mask is \[768, 1023\]"),
        (".png", b"this is text", "is not an image that can be read"),
        (".png", png(np.zeros((768, 1024, 3), np.uint8))[:200], "is not an image that can be read"),
    ],
)
def test_a_broken_member_is_named(diode, suffix, data, message):
    root, files, *_ = diode
    protocol = depth_protocol("diode")
    name = next(name for name in files if name.endswith(suffix))
    write_tar(root / protocol.tar, files | {name: data})
    write_list(root, protocol, [" ".join(files)])
    with pytest.raises(InputError, match=message) as caught:
        DepthArchive(root, protocol)[0].load()
    assert "diode_val.tar" in str(caught.value)


def test_scannet_refuses_an_8_bit_depth_and_grey_images_become_rgb(tmp_path):
    protocol = depth_protocol("scannet")
    names = "scene0406_02/color/000300.png", "scene0406_02/depth/000300.png"
    write_list(tmp_path, protocol, [" ".join(names)])
    depth = np.full((6, 8), 2500, np.uint16)
    write_tar(tmp_path / protocol.tar, {names[0]: png(RGB[:6, :8, 0]), names[1]: png(depth)})
    sample = DepthArchive(tmp_path, protocol)[0].load()
    assert sample.rgb.shape == (6, 8, 3)
    assert sample.valid.all()
    assert (sample.depth == 2.5).all()
    write_tar(tmp_path / protocol.tar, {names[0]: png(RGB[:6, :8]), names[1]: png(depth.astype(np.uint8))})
    with pytest.raises(InputError, match="16-bit grey PNG is expected, this one has mode L"):
        DepthArchive(tmp_path, protocol)[0].load()


def test_what_is_missing_is_named_with_a_remedy(tmp_path, nyu):
    protocol = depth_protocol("nyuv2")
    with pytest.raises(InputError, match=r"absent: no such file or folder.*nyu_labeled_extracted.tar"):
        DepthArchive(tmp_path / "absent", protocol)
    with pytest.raises(InputError, match="no such list of samples"):
        DepthArchive(nyu, protocol, list_file=nyu / "absent.txt")
    write_list(nyu, protocol, [*NYU_LINES, "test/gone/rgb_0003.png test/gone/depth_0003.png x"])
    with pytest.raises(InputError, match=r"extracted.tar: test/gone/rgb_0003.png is not in it.*complete"):
        DepthArchive(nyu, protocol)[2].load()
    (nyu / "data_split" / protocol.list_file).unlink()
    with pytest.raises(InputError, match=r"list of samples of NYUv2 is missing .*prs-eth/Marigold"):
        DepthArchive(nyu, protocol)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "names no sample"),
        (["a.png None x"], "names no sample"),
        (["a.png"], "line 1 has 1 columns"),
        ([NYU_LINES[0], "", NYU_LINES[0]], "rgb_0001.png is listed twice"),
    ],
)
def test_a_wrong_list_is_refused(nyu, lines, message):
    protocol = depth_protocol("nyuv2")
    write_list(nyu, protocol, lines)
    with pytest.raises(InputError, match=message):
        DepthArchive(nyu, protocol)


def test_a_list_that_is_no_text_is_refused(nyu):
    protocol = depth_protocol("nyuv2")
    (nyu / "data_split" / protocol.list_file).write_bytes(png(RGB[:2, :2]))
    with pytest.raises(InputError, match="not a text file"):
        DepthArchive(nyu, protocol)


def test_truncated_and_false_archives(nyu):
    protocol = depth_protocol("nyuv2")
    tar = nyu / protocol.tar
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 2])
    archive = DepthArchive(nyu, protocol)
    with pytest.raises(InputError, match=r"nyu_labeled_extracted\.tar"):
        [item.load() for item in archive]
    tar.write_bytes(b"not a tar" * 100)
    with pytest.raises(InputError, match=r"is not an uncompressed .tar or a .zip.*Download it again"):
        DepthArchive(nyu, protocol)[0].load()


def test_a_list_cannot_lead_out_of_a_folder(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret").write_text("x")
    members = Members(tmp_path / "inside")
    for name in ("../secret", str(tmp_path / "secret")):
        with pytest.raises(InputError, match="leads outside"):
            members.read(name)


def test_a_sample_in_memory_is_checked():
    depth = np.ones((4, 5), np.float32)
    sample = DepthSample("a", np.zeros((4, 5, 3), np.uint8), depth, depth > 0)
    assert sample.load() is sample
    with pytest.raises(InputError, match="must be"):
        DepthSample("a", np.zeros((5, 4, 3), np.uint8), depth, depth > 0)
    with pytest.raises(InputError, match="uint8"):
        DepthSample("a", np.zeros((4, 5, 3), np.float32), depth, depth > 0)


# ---------------------------------------------------------------------------------------------------------- normals


def unit_normals(height, width, seed=0):
    n = np.random.default_rng(seed).normal(size=(height, width, 3))
    return (n / np.linalg.norm(n, axis=2, keepdims=True)).astype(np.float32)


def normals_png(n, valid):
    return png(np.where(valid[..., None], np.round((n + 1) / 2 * 255), 0).astype(np.uint8))


def normals_exr(n, path):
    openexr = pytest.importorskip("OpenEXR")
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    with openexr.File(header, {"RGB": n.astype(np.float32)}) as file:
        file.write(str(path))
    return path.read_bytes()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", ["png", "exr"])
def test_normals_from_zip_and_folder(tmp_path, packed, kind):
    truth, valid = unit_normals(8, 12), RNG.uniform(size=(8, 12)) < 0.7
    holes = np.where(valid[..., None], truth, 0)
    stored = normals_png(truth, valid) if kind == "png" else normals_exr(holes, tmp_path / "x.exr")
    files = {
        "dsine_eval/scannet/a/000000_img.png": png(RGB[:8, :12]),
        f"dsine_eval/scannet/a/000000_normal.{kind}": stored,
        "dsine_eval/scannet/a/000001_img.png": png(RGB[:8, :12]),  # without ground truth
        "dsine_eval/nyuv2/test/000000_img.png": png(RGB[:8, :12]),
        f"dsine_eval/nyuv2/test/000000_normal.{kind}": stored,
    }
    root = tmp_path / "root"
    if packed:
        root.mkdir()
        with zipfile.ZipFile(root / "dsine_eval.zip", "w") as file:
            for name, data in files.items():
                file.writestr(name, data)
    else:
        write_folder(root, files)
    archive = NormalsArchive(root, "scannet")
    assert [item.key for item in archive] == ["dsine_eval/scannet/a/000000_img.png"]
    sample = archive[0].load()
    np.testing.assert_array_equal(sample.rgb, RGB[:8, :12])
    np.testing.assert_array_equal(sample.valid, valid)
    expected = truth.transpose(2, 0, 1)[:, valid]
    np.testing.assert_allclose(sample.normals[:, valid], expected, atol=1 / 255 if kind == "png" else 1e-6)


def oasis(tmp_path, content):
    data = content if isinstance(content, bytes) else pickle.dumps(content, protocol=2)
    write_folder(tmp_path / "oasis/val", {"a.png": png(RGB[:9, :10]), "a.pkl": data})
    return NormalsArchive(tmp_path, "oasis")[0]


def test_oasis_region_is_placed_and_its_x_and_y_negated(tmp_path):
    region = unit_normals(3, 4)
    sample = oasis(tmp_path, {"min_x": 2, "max_x": 6, "min_y": 5, "max_y": 8, "normal": region}).load()
    assert sample.valid.sum() == 12
    assert sample.valid[5:8, 2:6].all()
    np.testing.assert_allclose(sample.normals[:, 5:8, 2:6].transpose(1, 2, 0), region * [-1, -1, 1])


class Malicious:
    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/priorscope_was_here",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Malicious(), r"a.pkl: its pickle asks for (posix|nt|os).system, which is not loaded"),
        ({"min_x": 0, "min_y": 0, "normal": Malicious()}, "its pickle asks for"),
        (b"", "its pickle is cut short"),
        (b"\x80\x04not a pickle", "its pickle is cut short or broken"),
        ({"min_x": np.inf, "min_y": 0, "normal": np.ones((3, 4, 3))}, "has no min_x, min_y and normal"),
        ({"min_x": 0}, "has no min_x, min_y and normal"),
        ([1, 2], "has no min_x, min_y and normal"),
        ({"min_x": 0, "min_y": 0, "normal": np.ones((3, 4))}, r"normal is \[3, 4\]"),
        ({"min_x": 8, "min_y": 0, "normal": np.ones((3, 4, 3))}, "does not fit the image 9 x 10"),
        ({"min_x": -1, "min_y": 0, "normal": np.ones((3, 4, 3))}, "does not fit"),
    ],
)
def test_wrong_and_dangerous_pickles_are_refused(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        oasis(tmp_path, content).load()


def test_normals_refusals(tmp_path):
    with pytest.raises(InputError, match="unknown normals data set"):
        NormalsArchive(tmp_path, "vkitti")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no such file"):
        NormalsArchive(tmp_path / "absent.zip", "ibims")
    with pytest.raises(InputError, match=r"no pair of image and normals in a folder 'ibims'.*ibims/.*NAME_img.png"):
        NormalsArchive(tmp_path, "ibims")
    names = "ibims/a_img.png", "ibims/a_normal.png"
    write_folder(tmp_path, {names[0]: png(RGB[:5, :5]), names[1]: png(RGB[:5, :6])})
    with pytest.raises(InputError, match=r"the normals are \[5, 6\] but the image \[5, 5\]"):
        NormalsArchive(tmp_path, "ibims")[0].load()
    write_folder(tmp_path, {"ibims/b_img.png": png(RGB[:5, :5]), "ibims/b_normal.exr": b"no exr"})
    pytest.importorskip("OpenEXR")
    with pytest.raises(InputError, match=r"b_normal.exr: is not an OpenEXR file"):
        NormalsArchive(tmp_path, "ibims")[1].load()
    with pytest.raises(InputError, match="must be"):
        NormalsSample("a", RGB[:4, :4], np.zeros((3, 4, 5), np.float32), np.ones((4, 4), bool))


def test_padding_repeats_the_border_and_officially_is_out_of_range():
    import torch

    image = torch.rand(1, 3, 20, 40)
    padded = pad_centred(image)
    assert padded.shape == (1, 3, 32, 64)
    assert torch.equal(padded[..., 6:26, 12:52], image)
    assert torch.equal(padded[..., 0, 12:52], image[..., 0, :])
    official = pad_centred(image, official=True)
    assert torch.equal(official[..., 6:26, 12:52], image)
    corner = official[0, :, 0, 0] * 2 - 1
    assert corner.tolist() == pytest.approx([-2.1179, -2.0357, -1.8044], abs=1e-4)
    whole = torch.rand(1, 3, 32, 64)
    assert pad_centred(whole) is whole
