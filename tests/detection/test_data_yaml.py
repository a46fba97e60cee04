"""YAML that is what it says, and YAML that wants to be more."""

import pytest

from priorscope.errors import InputError
from priorscope_detection.data.safe_yaml import MAX_DEPTH, read_yaml


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "a.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_values_and_shared_lists(written):
    found = read_yaml(written("pose: &id001 [1.0, 2, -3.0e-1]\ntrue_pose: *id001\nvehicles:\n  641: {speed: 0.0}\n"))
    assert found["pose"] == found["true_pose"] == [1.0, 2, -0.3]
    assert found["vehicles"] == {641: {"speed": 0.0}}
    assert read_yaml(written("")) is None


def bomb(levels, wide, merge=False):
    lines = ["a0: &a0 {x: 1}" if merge else "a0: &a0 [x, x]"]
    for level in range(1, levels):
        names = ", ".join([f"*a{level - 1}"] * wide)
        lines.append(f"a{level}: &a{level} {{<<: [{names}]}}" if merge else f"a{level}: &a{level} [{names}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(9, 10), "unfold to more than"),
        (bomb(12, 8, merge=True), "unfold to more than"),
        ("a: &a [1, *a]", r"alias \*a stands within"),
        ("[" * 100 + "]" * 100, f"deeper than {MAX_DEPTH}"),
        ("[" * 100_000, "nesting depth"),
        ("a: !!python/object/apply:os.system [echo]", "could not determine a constructor"),
        ("a: [1, 2", "expected"),
        ("a: *nothing", "undefined alias"),
        ("a: " + "9" * 5000, "no YAML of plain values"),
        ("day: 2021-99-99", "no YAML of plain values"),
        (b"\xff\xfe\x00", "cannot be read as text"),
    ],
)
def test_refused(written, text, message):
    with pytest.raises(InputError, match=message):
        read_yaml(written(text))


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_yaml(tmp_path / "a.yaml")
