"""Checks the boxes of a COCO file, each by itself and all together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .coco import CocoFile
from .coco_fields import FARTHEST
from .report import Harm, Report
from .sources import Source

ROUNDING = 1  # pixel by which a box may stick out of its image without a word
OUT = 0.1  # share of the image's side by which a box must stick out to look like corners
STICKING_OUT = 1 / 3  # share of boxes that must do so
CORNERS = 0.95  # share of boxes that must lie inside when they are read as two corners
DISTINCT = 10  # objects from which on a repetition of all is an error
FEWEST = 3  # boxes from which on corners are recognised
SHARES, TWO_CORNERS = 'shares of the image from 0 to 1', 'two corners [x1, y1, x2, y2]'
MEANINGS = {SHARES: 'normalised boxes', TWO_CORNERS: 'boxes are corners'}  # kinds of errors


def check_boxes(
    file: CocoFile,
    source: Source,
    report: Report,
    chosen: NDArray[np.bool_],
    errors: Callable[[Harm, str, NDArray[np.int64], Callable[[int], str]], None],
) -> NDArray[np.bool_]:
    """Checks the boxes of the chosen annotations.

    Args:
        file: N annotations.
        source: The dataset.
        report: Takes what is found.
        chosen: (N,) whether the annotation's category is used.
        errors: Adds an error for each row that it is given.

    Returns:
        (N,) whether mmdet loads the annotation, as an object or as a crowd.
    """
    boxes = file.boxes
    finite = np.isfinite(boxes).all(1)
    errors(
        Harm.LOST,
        'box not finite',
        np.flatnonzero(~finite & chosen),
        lambda row: f'bbox is {_numbers(boxes[row])}, and such an object is left out without a word; correct it',
    )
    far = finite & (np.abs(boxes) >= FARTHEST).any(1)
    errors(
        Harm.WRONG,
        'box far outside',
        np.flatnonzero(far & chosen),
        lambda row: f'bbox is {_numbers(boxes[row])}, which no image reaches; correct it or take the object out',
    )
    finite &= ~far
    areas_not_finite = np.flatnonzero(~np.isfinite(file.areas) & finite & chosen)
    errors(Harm.WRONG, 'area not finite', areas_not_finite, lambda row: f'area is {file.areas[row]}; correct it')
    negative = finite & (boxes[:, 2:] < 0).any(1) & chosen
    errors(
        Harm.LOST,
        'box of negative size',
        np.flatnonzero(negative),
        lambda row: f'bbox is {_numbers(boxes[row])}, expected [x, y, width, height] with a size above 0',
    )
    sizes = np.append(file.sizes, [[np.nan, np.nan]], 0)[file.image_rows]
    placed = finite & ~negative & chosen & file.has_box & (sizes > 0).all(1)
    with np.errstate(invalid='ignore'):
        inside = np.minimum(boxes[:, :2] + boxes[:, 2:], sizes) - np.maximum(boxes[:, :2], 0)
        overlaps = placed & (inside > 0).all(1)
    large = (boxes[:, 2:] >= 1).all(1)
    used = overlaps & large & (file.areas > 0) & ~file.ignore
    if _check_all(file, source, report, placed, overlaps, sizes):
        return used
    over = (boxes[:, :2] < -ROUNDING).any(1) | (boxes[:, :2] + boxes[:, 2:] > sizes + ROUNDING).any(1)
    report.note(source.split, 'boxes over the border', int(np.sum(used & ~file.crowd & over)))
    _check_repeated(file, source, report, used & ~file.crowd)
    return used


def _check_all(
    file: CocoFile,
    source: Source,
    report: Report,
    placed: NDArray[np.bool_],
    overlaps: NDArray[np.bool_],
    sizes: NDArray[np.float64],
) -> bool:
    """Whether all boxes together mean something else than pixels x, y, width, height."""
    boxes, sizes = file.boxes[placed], sizes[placed]
    if not len(boxes):
        return False
    example = f'such as {_numbers(boxes[0])} in an image of {sizes[0, 0]:g}x{sizes[0, 1]:g}'
    expected = 'expected [x, y, width, height] in pixels'
    if meaning := meaning_of(boxes, sizes):
        text = f'the {len(boxes)} boxes look like {meaning}, {example}; {expected}, which --fix writes'
        report.error(Harm.WRONG, MEANINGS[meaning], source.split, f'{file.path}: {text}')
        return True
    if not overlaps.any():
        text = f'none of {len(boxes)} boxes lies in its image, {example}; {expected} of the image as it is stored'
        report.error(Harm.LOST, 'boxes outside', source.split, f'{file.path}: {text}')
        return True
    usable = overlaps & (file.boxes[:, 2:] >= 1).all(1)
    if not usable.any():
        text = f'all {len(boxes)} boxes are narrower than a pixel, {example}; {expected}'
        report.error(Harm.LOST, 'boxes too small', source.split, f'{file.path}: {text}')
        return True
    if (file.areas[usable] <= 0).all():
        text = f'the area of all {usable.sum()} objects is 0 or less, and mmdet leaves such out; expected square pixels'
        report.error(Harm.LOST, 'no area', source.split, f'{file.path}: {text}')
        return True
    return False


def _check_repeated(file: CocoFile, source: Source, report: Report, used: NDArray[np.bool_]) -> None:
    """Objects of the same image and class with the same box: some are notes, all come from files that were joined."""
    keys = np.column_stack([file.image_rows, file.category_rows, file.boxes])[used]
    _, counts = np.unique(keys, axis=0, return_counts=True)
    if len(counts) >= DISTINCT and counts.min() > 1:
        text = f'each of its {len(counts)} objects is there {counts.min()} times or more; keep one of each'
        report.error(Harm.WRONG, 'objects repeated', source.split, f'{file.path}: {text}')
    else:
        report.note(source.split, 'objects with the box and class of another', int(np.sum(counts - 1)))


def meaning_of(boxes: NDArray[np.float64], sizes: NDArray[np.float64]) -> str | None:
    """What all boxes of a file together are, if they are not pixels x, y, width, height: a key of ``MEANINGS``.

    Args:
        boxes: (N, 4) finite.
        sizes: (N, 2) width and height of their images, above 0.
    """
    if not len(boxes):
        return None
    corner, size = boxes[:, :2], boxes[:, 2:]
    if boxes.min() >= 0 and (corner + size).max() <= 1 + 1e-3 and (boxes % 1).any():
        return SHARES
    out = (corner + size > sizes * (1 + OUT)).any(1)
    as_corners = ((corner >= -ROUNDING) & (size >= corner) & (size <= sizes + ROUNDING)).all(1)
    if len(boxes) >= FEWEST and out.mean() > STICKING_OUT and as_corners.mean() > CORNERS:
        return TWO_CORNERS
    return None


def _numbers(box: NDArray[np.float64]) -> str:
    return '[' + ', '.join(f'{number:g}' for number in box) + ']'
