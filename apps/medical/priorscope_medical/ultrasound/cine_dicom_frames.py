"""What a DICOM object says of single frames, cut as the frames were. For research use only."""

from __future__ import annotations

import math
from typing import Any

#: Of a functional group: what maps stored values to grey, which is void once these are made 8 bits.
_GREY_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence", "RealWorldValueMappingSequence")
#: Not a value a frame: steps, which whoever knows the first frame cuts, and moments.
_OF_TIME = ("FrameTimeVector", "RWaveTimeVector")
_OVERLAYS = range(0x6000, 0x6020, 2)
_DATA, _POSITION, _ORIGIN, _FRAMES = 0x3000, 0x0102, 0x0051, 0x0015


def cut_frames(dataset: Any, first: int, count: int, *, changed: bool = False) -> None:
    """Leave in ``dataset`` what it says of the frames ``first`` to before ``first + count``.

    Functional groups and vectors with a value a frame are cut; overlays keep the planes of these frames and are counted
    anew, and those without any are dropped, as are overlays that lay in unused bits of the pixels.

    Parameters
    ----------
    dataset : pydicom Dataset
        The source's, before NumberOfFrames is set; changed in place.
    first, count : int
    changed : bool
        Values were mapped to grey of 8 bits: what maps the source's goes.
    """
    before = int(dataset.get("NumberOfFrames") or 1)
    for element in list(dataset):
        if element.keyword.endswith("Vector") and element.keyword not in _OF_TIME and element.VM == before > 1:
            dataset[element.tag].value = list(element.value)[first : first + count]
    if first and "RWaveTimeVector" in dataset:  # counted from the first frame
        del dataset.RWaveTimeVector
    if "PerFrameFunctionalGroupsSequence" in dataset:
        groups = list(dataset.PerFrameFunctionalGroupsSequence)
        dataset.PerFrameFunctionalGroupsSequence = groups[first : first + count]
    if changed:
        for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
            for group in dataset.get(name) or []:
                for void in _GREY_GROUPS:
                    if void in group:
                        delattr(group, void)
    for group in _OVERLAYS:
        _cut_overlay(dataset, group, first, count)


def _cut_overlay(dataset: Any, group: int, first: int, count: int) -> None:
    """One plane of bits for each of some frames, packed without gaps; the first belongs to frame ``origin``, from 1."""
    elements = [element.tag for element in dataset.group_dataset(group)]
    if not elements:
        return

    def value(number: int, default: int) -> int:
        found = dataset.get((group, number))
        return default if found is None or found.value in (None, "") else int(found.value)

    rows, columns, planes = value(0x0010, 0), value(0x0011, 0), value(_FRAMES, 1)
    data = dataset.get((group, _DATA))
    each = rows * columns
    if data is None or value(_POSITION, 0) or not each or 8 * len(data.value) < each * planes:
        kept = range(0)
    elif (group, _FRAMES) not in dataset:  # one plane for the whole image
        return
    else:
        origin = value(_ORIGIN, 1) - 1
        kept = range(max(0, first - origin), min(planes, first + count - origin))
    if not len(kept):
        for tag in elements:
            del dataset[tag]
        return
    bits = int.from_bytes(data.value, "little") >> (each * kept.start)
    length = math.ceil(each * len(kept) / 8)
    packed = (bits & ((1 << (each * len(kept))) - 1)).to_bytes(length, "little")
    dataset[(group, _DATA)].value = packed + b"\0" * (length % 2)
    dataset[(group, _FRAMES)].value = len(kept)
    begin = max(0, origin - first) + 1
    if (group, _ORIGIN) in dataset:
        dataset[(group, _ORIGIN)].value = begin
    else:
        dataset.add_new((group, _ORIGIN), "US", begin)
