"""Pickles that ask for more than data. Each is read in a child, so that one which gets through ends only the child."""

from __future__ import annotations

import collections
import contextlib
import copy
import datetime
import faulthandler
import os
import pickle
import struct
import sys
import types

import numpy as np
import pytest

from priorscope.data.safe_pickle import Stub, safe_loads
from priorscope.errors import InputError

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


class Reduced:
    """Pickles as a call of a function with arguments, and a state given to the result."""

    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


@pytest.fixture
def check_refused(fork):
    """``check_refused(pickles)``: reading any of them is an InputError, in either encoding, and nothing worse."""

    def attack(pickles, **options):
        def read():
            for number, data in enumerate(pickles, 1):
                for encoding in ("ASCII", "latin1"):
                    try:
                        loaded = safe_loads(data, encoding=encoding, **options)
                    except InputError:
                        continue
                    repr(loaded)  # whoever looks at pointers that are none goes down here
                    return number
            return 0

        assert fork(read) == 0, "minus the signal, or the number of the pickle that was read"

    return attack


SCALAR, RECONSTRUCT, FROM_BUFFER = (
    value.__reduce_ex__(protocol)[0] for value, protocol in ((np.float64(0), 2), (np.zeros(1), 2), (np.zeros(1), 5))
)
CODEC = pickle.loads(b"c_codecs\nencode\n.")
EMPTY = (np.ndarray, (0,), b"b")
POINTER = b"AAAAAAAA"
NO_OBJECTS_IT_SAYS = Reduced(np.dtype, ("V8", False, True), (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0))
BEYOND_ITS_END = Reduced(np.dtype, ("i4", False, True), (3, "<", None, ("a",), {"a": (np.dtype("f8"), 99)}, 8, 1, 0))
OBJECTS_BY_FLAG = Reduced(np.dtype, ("f8", False, True), (3, "<", (np.dtype("O"), (1,)), None, None, 8, 1, 63))


def array_state(shape, dtype, content):
    return Reduced(RECONSTRUCT, EMPTY, (1, shape, dtype, False, content))


def forms(dtype, content=POINTER):
    return {
        "call": Reduced(np.ndarray, ((1,), dtype, content)),
        "buffer": Reduced(FROM_BUFFER, (content, dtype, (1,), "C")),
        "scalar": Reduced(SCALAR, (dtype, content)),
        "state": array_state((1,), dtype, content),
    }


def test_a_plain_loader_dies_of_such_pickles(fork):
    data = pickle.dumps(forms(np.dtype("O"))["call"])

    def load():
        faulthandler.disable()
        repr(pickle.loads(data))
        return 0

    assert fork(load) < 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("way", ["call", "buffer", "scalar", "state"])
def test_bytes_never_become_pointers(check_refused, way, protocol):
    kinds = [np.dtype("O"), np.dtype("M8[D]"), np.dtype("(1,)O"), np.dtype([("a", "O")]), "O", 5, None, np.float64]
    kinds += [NO_OBJECTS_IT_SAYS, BEYOND_ITS_END, OBJECTS_BY_FLAG]
    check_refused([pickle.dumps({"label": forms(dtype)[way]}, protocol=protocol) for dtype in kinds])


def test_arrays_of_objects_are_refused():
    with pytest.raises(InputError, match=r"a\.pkl: .*array type 'O8'"):
        safe_loads(pickle.dumps(np.array([1, "a"], dtype=object)), path="a.pkl")


def opcodes(*parts):
    """A pickle (protocol 5) of raw parts and of objects, one after the other on the stack."""
    return b"\x80\x05" + b"".join(p if isinstance(p, bytes) else pickle.dumps(p, 2)[2:-1] for p in parts) + b"."


BUILD, MEMOIZE_9, GET_9, READONLY = b"b", b"q\xf9", b"h\xf9", b"\x98"
BYTE = np.dtype("u1")
LARGE = array_state((2**20,), BYTE, bytes(2**20))
SMALL = (1, (8,), BYTE, False, b"12345678")


@pytest.mark.parametrize(
    "data",
    [
        # a view of an array, which is then given other memory
        opcodes(b"(", LARGE, MEMOIZE_9, Reduced(FROM_BUFFER, (LARGE, BYTE, (2**20,), "C")), b"t"),
        opcodes(b"(", LARGE, MEMOIZE_9, READONLY, GET_9, SMALL, BUILD, b"t"),
        opcodes(LARGE, SMALL, BUILD),
        opcodes(Reduced(FROM_BUFFER, (bytearray(8), BYTE, (8,), "C")), SMALL, BUILD),
        # sizes
        opcodes(array_state((2**61,), np.dtype("i8"), b"")),
        opcodes(array_state((-1, -8), BYTE, bytes(8))),
        opcodes(array_state((2**40,), np.dtype("S0"), b"")),
        opcodes(Reduced(FROM_BUFFER, (b"", np.dtype("U0"), (2**40,), "C"))),
        opcodes(Reduced(FROM_BUFFER, (bytes(8), BYTE, (9,), "C"))),
        opcodes(Reduced(FROM_BUFFER, (bytes(8), BYTE, (2, 4), "K", (0, 5)))),
        opcodes(array_state((9,), BYTE, bytes(8))),
        # values that are none
        opcodes(array_state((4,), np.dtype("?"), b"\0\1\2\xff")),
        opcodes(Reduced(FROM_BUFFER, (struct.pack("<2I", 65, 0x110000), np.dtype("<U2"), (1,), "C"))),
        opcodes(Reduced(SCALAR, (np.dtype(">U1"), struct.pack(">I", 2**32 - 1)))),
        # bytes that are none, or too many
        opcodes(array_state((2,), BYTE, [1, 2])),
        opcodes(array_state((1,), BYTE, "\u20ac")),
        opcodes(Reduced(CODEC, ("text", "utf-8"))),
        opcodes(Reduced(CODEC, ("text", "rot13"))),
        opcodes(Reduced(CODEC, (b"bytes", "latin1"))),
        opcodes(Reduced(CODEC, ("text",))),
        opcodes(Reduced(CODEC, ("\u20ac", "latin1"))),
        b"c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R.",
        # other functions
        pickle.dumps(eval),
        pickle.dumps(getattr),
        pickle.dumps(np.load),
        pickle.dumps(np.ma.array([1.0])),
        b"cnumpy\ndtype.__class__\n.",
        b"c_codecs\ndecode\n.",
        b"cnumpy.core.multiarray\nfrombuffer\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x08f2py.run\x93.",
        b"cgeobenchx.evil\nrun\n.",  # a module whose name only begins like an allowed one
        b"cdatetime\nsys\n.",
        b"\x80\x02\x82\x01.",  # by number
        b"Pthe way to an object\n.",
        b"\x80\x05\x97.",  # a buffer that is not in the file
        # the stack
        b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s.",
        b"\x80\x02}(" + b"(" * 200_000 + b"t" * 200_000 + b"K\x01u.",
        # broken
        pickle.dumps([1, 2, 3])[:-3],
        b"",
        b"no pickle at all",
    ],
    ids=lambda data: ascii(data[-24:]),
)
def test_other_pickles_that_are_refused(check_refused, data):
    check_refused([data], stubs=("geobench",))


def test_many_tuples_in_numbers_are_no_tuples():
    array = np.full(100_000, 0x85, np.uint8)
    np.testing.assert_array_equal(safe_loads(pickle.dumps(array)), array)


def test_two_arrays_of_the_same_bytes_share_nothing():
    content = bytes(2000)
    loaded = safe_loads(pickle.dumps([array_state((2000,), BYTE, content), array_state((2000,), BYTE, content)]))
    loaded[0][:] = 1
    assert not loaded[1].any()


NAMES = [
    *("numpy.dtype", "numpy.ndarray", "_codecs.encode", "builtins.set", "builtins.frozenset", "__builtin__.bytes"),
    *("collections.OrderedDict", "datetime.date", "datetime.datetime", "datetime.timedelta", "datetime.timezone"),
    *(f"{f.__module__}.{f.__name__}" for f in (SCALAR, RECONSTRUCT, FROM_BUFFER)),
]
STATES = (b"(N(S'__doc__'\nS'changed'\ndt", b"(S'mark'\nI5\nd", b"(N(S'__defaults__'\nNdt", b"(N(S'__module__'\nI1\ndt")


@pytest.mark.parametrize("name", NAMES)
def test_a_pickle_changes_nothing_of_the_process(name):
    module, _, attribute = name.rpartition(".")
    true = getattr(sys.modules.get(module, np) if module != "__builtin__" else __import__("builtins"), attribute)

    def look():
        return {key: getattr(true, key, None) for key in ("__doc__", "__defaults__", "__module__", "mark")}

    before = look()
    for state in STATES:
        with contextlib.suppress(InputError):
            safe_loads(f"c{module}\n{attribute}\n".encode() + state + b"b.")
        assert look() == before


def test_a_dtype_of_a_pickle_is_not_the_one_of_the_process():
    big = pickle.dumps(Reduced(np.dtype, ("i4", False, False), (3, ">", None, None, None, -1, -1, 0)))
    safe_loads(big)
    assert np.dtype("i4").newbyteorder("=") == np.arange(2, dtype="i4").dtype


# ---- what is read ------------------------------------------------------------------------------------------------

HONEST = {
    "numbers": [1, 2.5, None, True, (1, "a"), {3}, frozenset([4]), 2**80, 1e300],
    "bytes": [b"", b"x", bytes(range(256))],
    "dates": (datetime.date(2018, 6, 1), datetime.datetime(2020, 1, 2, 3, tzinfo=datetime.UTC)),
    "ordered": collections.OrderedDict(b=1, a=2),
    "array": np.arange(6.0).reshape(2, 3),
    "long": np.arange(5000, dtype=np.float32),
    "scalars": [np.int16(4), np.float64(0.1), np.bool_(True), np.str_("day"), np.str_(""), np.bytes_(b"")],
    "foreign bytes": np.arange(3, dtype=">i4"),
    "by columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "by another axis": np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
    "every other": np.arange(10)[::2],
    "text": np.array(["a", "bcd", "\U0001f600"]),
    "foreign text": np.array(["a", "\xe9"], dtype=">U1"),
    "letters": np.array([b"a", b"\xff"]),
    "truth": np.array([True, False]),
    "complex": np.array([1 + 2j]),
    "none": np.zeros((2, 0)),
    "one": np.array(3, np.uint8),
    "twice": [np.ones(3)] * 2,
}


@pytest.mark.parametrize("encoding", ["ASCII", "latin1"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_honest_pickles_come_back_equal(protocol, encoding):
    for key, value in HONEST.items():
        data = pickle.dumps(value, protocol=protocol)
        for names in (data, data.replace(b"numpy._core.", b"numpy.core.") if protocol < 4 else data):
            loaded = safe_loads(names, encoding=encoding)
            np.testing.assert_equal(loaded, value, err_msg=key)
            np.testing.assert_equal(pickle.loads(pickle.dumps(loaded, protocol)), value, err_msg=key)
            np.testing.assert_equal(copy.deepcopy(loaded), value, err_msg=key)
        if isinstance(value, np.ndarray):
            assert loaded.dtype == pickle.loads(data).dtype
            loaded[...] = value  # to be written to


CONTENT = np.array([1.5, -2.25], "<f8").tobytes()
PYTHON_2 = {
    0: b"cnumpy.core.multiarray\n_reconstruct\np0\n(cnumpy\nndarray\np1\n(I0\ntp2\nS'b'\np3\ntRp4\n(I1\n(I2\ntp5\n"
    b"cnumpy\ndtype\np6\n(S'f8'\np7\nI0\nI1\ntRp8\n(I3\nS'<'\np9\nNNNI-1\nI-1\nI0\ntp10\nbI00\nS"
    + repr(CONTENT)[1:].encode()
    + b"\np11\ntp12\nb.",
    2: b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85U\x01b\x87R(K\x01K\x02\x85"
    b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x10"
    + CONTENT
    + b"tb.",
}


@pytest.mark.parametrize("protocol", PYTHON_2)
def test_arrays_that_python_2_wrote(protocol):
    np.testing.assert_array_equal(pickle.loads(PYTHON_2[protocol], encoding="latin1"), [1.5, -2.25])
    np.testing.assert_array_equal(safe_loads(PYTHON_2[protocol], encoding="latin1"), [1.5, -2.25])
    with pytest.raises(InputError, match=r"broken.*ascii"):
        safe_loads(PYTHON_2[protocol])


def test_stubs_keep_what_their_classes_would_hold(monkeypatch):
    module = types.ModuleType("geobench.dataset")
    monkeypatch.setitem(sys.modules, "geobench", types.ModuleType("geobench"))
    monkeypatch.setitem(sys.modules, "geobench.dataset", module)
    for name, base in (("Band", object), ("Bands", list), ("Table", dict)):
        setattr(module, name, type(name, (base,), {"__module__": module.__name__}))
    band = module.Band()
    band.name = "Red"
    data = pickle.dumps([band, module.Bands([band, 1]), module.Table(a=2)])
    red, bands, table = safe_loads(data, stubs=("geobench",))
    assert isinstance(red, Stub)
    assert (red.stub_class, red.name, repr(red)) == ("geobench.dataset.Band", "Red", "<geobench.dataset.Band>")
    assert bands.stub_items == [red, 1]
    assert table.stub_items == [("a", 2)]
    with pytest.raises(InputError, match=r"geobench\.dataset\.Band"):
        safe_loads(data)
    with pytest.raises(InputError, match=r"posix\.system|nt\.system"):
        safe_loads(pickle.dumps(Reduced(os.system, ("true",))), stubs=("geobench",))
