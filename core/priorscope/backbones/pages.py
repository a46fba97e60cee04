"""Memory of weights that were read once and are not needed again."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterable

import torch

#: Linux: take these pages out of memory. Unlike MADV_DONTNEED it never loses a byte, whatever kind of memory it is.
_MADV_PAGEOUT = 21


def give_back(tensors: Iterable[torch.Tensor]) -> int:
    """Let the system take back the memory of weights that a file is mapped to.

    safetensors maps a file as a whole: a page that was read counts as this process's memory until the last tensor of
    the file is gone, even if its own tensor is. The values stay what they are; who reads them again reads the file.

    Parameters
    ----------
    tensors : iterable of Tensor
        On the CPU; others are passed over. Still alive, though nobody needs their values soon.

    Returns
    -------
    int
        Bytes that the system was asked to take; 0 where it does not know how (other than Linux from 5.4 on).
    """
    if not sys.platform.startswith("linux"):
        return 0
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    given = 0
    for tensor in tensors:
        if tensor.device.type != "cpu":
            continue
        first = tensor.data_ptr()
        # whole pages only: the edges belong to neighbours as well
        top = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (first + tensor.numel() * tensor.element_size()) // mmap.PAGESIZE * mmap.PAGESIZE
        if end > top and advise(top, end - top, _MADV_PAGEOUT) == 0:
            given += end - top
    return given
