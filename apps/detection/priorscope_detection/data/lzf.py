"""LZF as the Point Cloud Library uses it (``DATA binary_compressed``): Marc Lehmann's liblzf format, decompression."""

from __future__ import annotations


def lzf_decompress(data: bytes, size: int) -> bytes:
    """Decompress one LZF block.

    A control byte below 32 announces that many literals and one more. Another holds in its upper three bits the
    length of a copy less 2 (7: add the next byte) and in the other five the high bits of how far back it lies.

    Parameters
    ----------
    data : bytes
    size : int
        Bytes that the block has to give; more is never made, so a lying block costs no memory.

    Raises
    ------
    ValueError
        The block is cut short, copies from before its start, or gives another number of bytes.
    """
    out = bytearray()
    at, end = 0, len(data)
    while at < end:
        control = data[at]
        at += 1
        if control < 32:
            stop = at + control + 1
            if stop > end:
                raise ValueError("it ends within literals")
            out += data[at:stop]
            at = stop
        else:
            length = control >> 5
            if at + (length == 7) >= end:
                raise ValueError("it ends within a reference")
            if length == 7:
                length += data[at]
                at += 1
            start = len(out) - (((control & 31) << 8) | data[at]) - 1
            at += 1
            length += 2
            if start < 0:
                raise ValueError("a reference points before the start")
            distance = len(out) - start
            piece = bytes(out[start : start + length])
            # a copy may overlap what it writes: it then repeats the last `distance` bytes
            out += piece if len(piece) == length else (piece * (length // distance + 1))[:length]
        if len(out) > size:
            raise ValueError(f"it gives more than the {size} bytes announced")
    if len(out) != size:
        raise ValueError(f"it gives {len(out)} bytes, {size} were announced")
    return bytes(out)
