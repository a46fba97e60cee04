"""Files of archives and folders by relative path."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile

import pytest

from priorscope.data.members import Members
from priorscope.errors import InputError

FILES = {"a.txt": b"one", "images/b.jpg": bytes(range(256)) * 40}


@pytest.fixture(params=["folder", "zip", "tar"])
def packed(request, tmp_path):
    path = tmp_path / f"packed.{request.param}"
    if request.param == "folder":
        for name, data in FILES.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    elif request.param == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("images/", b"")
            for name, data in FILES.items():
                archive.writestr(f"./{name}", data)
    else:
        with tarfile.open(path, "w") as archive:
            for name, data in FILES.items():
                info = tarfile.TarInfo(f"./{name}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def test_names_and_bytes(packed):
    members = Members(packed)
    assert members.names() == sorted(FILES)
    for name, data in FILES.items():
        assert members.read(name) == members.read(f"./{name}") == data
    assert pickle.loads(pickle.dumps(members)).read("a.txt") == b"one"
    with pytest.raises(InputError, match=r"c\.txt is not in it"):
        members.read("c.txt")


def test_in_a_forked_process_too(packed, fork):
    members = Members(packed)
    members.read("a.txt")
    assert fork(lambda: int(members.read("images/b.jpg") != FILES["images/b.jpg"])) == 0


def test_a_folder_is_not_left(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret").write_text("no")
    with pytest.raises(InputError, match="leads outside"):
        Members(tmp_path / "inside").read("../secret")


def test_what_is_no_archive(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Members(tmp_path / "none.zip")
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(InputError, match="Download it again"):
        Members(broken).names()
