"""JSON files that are whole, and those that are not."""

import pytest

from priorscope.data import read_json
from priorscope.errors import InputError


def test_what_it_holds(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, 2.5, null, "é"]}', encoding="utf-8")
    assert read_json(path) == {"a": [1, 2.5, None, "é"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1,\n 2", "is not valid JSON: .* in line 2"),
        (b"", "in line 1"),
        (b"\xff\xfe", "cannot be read as text"),
        (b"[" * 100_000, "recursion"),
        (b"9" * 5000, "digits"),
    ],
)
def test_broken(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_json(path)
    assert str(path) in str(error.value)


def test_none(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path)
