"""What is wrong with masks of a COCO file: polygons and run lengths (RLE)."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..texts import some
from .coco_fields import FARTHEST, is_number
from .report import Harm
from .rle import compressed_sums

# What a mask does to a training with masks, and to an evaluation of masks; None: nothing.
MASK_HARMS: dict[str, tuple[Harm | None, Harm | None]] = {
    'no mask': (Harm.FAILS, Harm.FAILS),  # KeyError: 'mask' in mmdet's LoadAnnotations
    'mask not finite': (Harm.FAILS, Harm.FAILS),  # pycocotools takes all memory
    'mask far outside': (Harm.FAILS, Harm.FAILS),  # the same: its memory grows with the length of a polygon
    'mask is a flat list': (Harm.FAILS, Harm.FAILS),
    'malformed mask': (Harm.FAILS, Harm.FAILS),
    'run lengths do not fit': (Harm.WRONG, Harm.WRONG),
    'polygon of an odd number': (Harm.LOST, Harm.WRONG),  # mmdet leaves the part out
    'polygon too short': (Harm.LOST, Harm.FAILS),  # mmdet ignores the object, pycocotools raises an error
    'short polygon first': (None, Harm.FAILS),  # pycocotools takes it for a box
    'short polygon': (None, None),
}

MASK_REPAIRS = {
    'no mask': 'draw one, take the object out, or train without masks',
    'mask not finite': 'correct the polygon or take it out',
    'mask far outside': 'correct the polygon or take it out',
    'mask is a flat list': '--fix makes a list of it',
    'malformed mask': 'draw or encode the mask again',
    'run lengths do not fit': 'encode the mask again',
    'polygon of an odd number': 'take the polygon out or complete it',
    'polygon too short': 'draw the mask again or take the object out',
    'short polygon first': '--fix takes it out',
}


def mask_faults(segmentations: Sequence[Any]) -> Iterator[tuple[int, str, str]]:
    """Yields (index, kind of ``MASK_HARMS``, explanation) for masks that are not as they should be.

    Args:
        segmentations: ``segmentation`` of some annotations, ``None`` where there is none.
    """
    polygons = [(i, mask) for i, mask in enumerate(segmentations) if type(mask) is list]
    if not _are_good([mask for _, mask in polygons]):
        for i, mask in polygons:
            if fault := _fault_of_polygons(mask):
                yield i, *fault
    compressed: list[tuple[int, int]] = []
    strings: list[str] = []
    for i, mask in enumerate(segmentations):
        if type(mask) is list:
            continue
        if not mask and not isinstance(mask, bool | int | float):
            yield i, 'no mask', 'it has no segmentation'
        elif not isinstance(mask, dict):
            yield i, 'malformed mask', f'segmentation is {mask!r:.40}, expected a list of polygons or a mapping'
        elif (size := rle_size(mask)) == (-1, -1):
            yield i, 'malformed mask', f'size of its run lengths is {mask.get("size")!r:.40}, expected [height, width]'
        elif isinstance(counts := mask.get('counts'), str):
            compressed.append((i, size[0] * size[1]))
            strings.append(counts)
        elif not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
            yield i, 'malformed mask', f'its counts are {counts!r:.40}, expected a string or whole numbers'
        elif sum(counts) != size[0] * size[1]:
            yield i, 'run lengths do not fit', _misfit(sum(counts), size[0] * size[1])
    for (i, area), (total, _) in zip(compressed, compressed_sums(strings).tolist(), strict=True):
        if total < 0:
            yield i, 'malformed mask', 'its counts are no compressed run lengths'
        elif total != area:
            yield i, 'run lengths do not fit', _misfit(total, area)


def rle_size(mask: Any) -> tuple[int, int]:
    """(height, width) that run lengths name; (-1, -1) for polygons and where it is malformed."""
    match mask:
        case {'size': [int(height), int(width)]} if height >= 0 and width >= 0:
            return height, width
    return -1, -1


def is_good_part(part: Any) -> bool:
    """Whether a polygon has at least three points."""
    return isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0


def mask_area(mask: Any) -> float:
    """Area of a mask without faults, in square pixels: of polygons by the shoelace formula, overlaps counted twice."""
    if isinstance(mask, dict):
        counts = mask['counts']
        return float(sum(counts[1::2]) if isinstance(counts, list) else compressed_sums([counts])[0, 1])
    parts = [np.array(part, np.float64).reshape(-1, 2) for part in mask]
    return sum(abs(float(np.sum(x * np.roll(y, 1) - y * np.roll(x, 1)))) / 2 for x, y in (part.T for part in parts))


def _misfit(total: int, area: int) -> str:
    return f'its run lengths cover {total} pixels, expected height * width = {area}'


def _are_good(masks: Sequence[list[Any]]) -> bool:
    """Whether nothing is wrong with any of some lists of polygons; much faster than to look at each."""
    parts = [part for mask in masks for part in mask]
    numbers = array('d')
    try:
        for part in parts:
            numbers.fromlist(part)
    except (TypeError, OverflowError):  # no list, or no numbers
        return False
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    values = np.frombuffer(numbers) if numbers else np.zeros(0)
    return bool(
        all(masks) and np.all(lengths >= 6) and np.all(lengths % 2 == 0) and np.all(np.abs(values) < FARTHEST)
    )  # NaN compares as false


def _fault_of_polygons(mask: list[Any]) -> tuple[str, str] | None:
    if not mask:
        return 'no mask', 'its segmentation is []'
    if all(map(is_number, mask)):
        return 'mask is a flat list', f'segmentation is {mask!r:.40}, expected a list of polygons: [[x1, y1, x2, ...]]'
    for part in mask:
        if not isinstance(part, list) or not all(map(is_number, part)):
            return 'malformed mask', f'a polygon is {part!r:.40}, expected [x1, y1, x2, y2, ...]'
        if not np.isfinite(part).all():
            return 'mask not finite', 'a coordinate of its polygons is NaN or infinite'
        if part and max(map(abs, part)) >= FARTHEST:
            return 'mask far outside', f'a polygon reaches to {max(part, key=abs):g}, which no image does'
    if not any(map(is_good_part, mask)):
        return (
            'polygon too short',
            f'its polygons have {some(map(len, mask))} numbers, expected 6 or more: three points',
        )
    if any(len(part) % 2 for part in mask):
        return 'polygon of an odd number', f'its polygons have {some(map(len, mask))} numbers, expected pairs'
    if all(map(is_good_part, mask)):
        return None
    kind = 'short polygon' if is_good_part(mask[0]) else 'short polygon first'
    return kind, f'its polygons have {some(map(len, mask))} numbers, expected 6 or more in each: three points'
