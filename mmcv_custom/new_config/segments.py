"""Folders of images and masks, for segmentors."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

import mmcv
import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .data import Data, Split, tidy

EXTENSIONS = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
IGNORED = 255
SAMPLE = 500  # masks of a split that are read


def read_segments(paths: Mapping[str, tuple[str, str]], names: Sequence[str] | None = None) -> Data:
    """A dataset of images, and masks whose pixels are class numbers.

    Args:
        paths: Folder of the images and folder of the masks of each split.
        names: Names of the classes 0, 1, ...; default ``class_0`` ... up to the largest number in the masks.

    Raises:
        UserError: Images and masks do not belong together by their names, masks are no class numbers, or there are more
            of these than names.
    """
    files = {split: _list(split, *pair) for split, pair in paths.items()}
    suffixes = {split: _suffixes(paths[split], *lists) for split, lists in files.items()}
    for split, found in suffixes.items():
        if found != suffixes['train']:
            raise UserError(
                f'--{split}: names of images and masks end in {found[0]} and {found[1]}, those of --train in '
                f'{suffixes["train"][0]} and {suffixes["train"][1]}; the splits need the same endings'
            )
    notes: list[str] = []
    largest, sizes = -1, []
    for split, (_, masks) in files.items():
        chosen = masks[:: -(-len(masks) // SAMPLE)]
        top = -1
        values: set[int] = set()
        for mask in chosen:
            path = Path(paths[split][1]).expanduser() / mask
            numbers, size = _values(path, _read(path))
            if names is not None and (wrong := [value for value in numbers if len(names) <= value != IGNORED]):
                raise UserError(
                    f'{path}: class {wrong[0]} has no name: with {len(names)} names the numbers are 0 to '
                    f'{len(names) - 1}, and {IGNORED} is ignored'
                )
            values |= numbers
            top = max([top, *(value for value in numbers if value != IGNORED)])
            if split == 'train':
                sizes.append(size)
        _check_values(paths[split][1], values)
        if names is None and len(chosen) < len(masks):
            notes.append(f'the classes were counted in {len(chosen)} of the {len(masks)} masks in {paths[split][1]}')
        if split == 'train':
            known = len(names) if names is not None else top + 1
            if unseen := [number for number in range(known) if number not in values]:
                notes.append(f'no pixel of class {_some(unseen)} in the {len(chosen)} training masks that were read')
        largest = max(largest, top)
    if names is None:
        names = [f'class_{number}' for number in range(largest + 1)]
        notes.append(
            f'the masks do not name their classes: they are called {names[0]} to {names[-1]}; --classes names them'
        )
    return Data(
        splits={
            split: Split(tidy(images), tidy(masks), len(files[split][0])) for split, (images, masks) in paths.items()
        },
        classes=tuple(names),
        size=(int(median(h for h, _ in sizes)), int(median(w for _, w in sizes))),
        smallest=min(map(min, sizes)),
        suffixes=suffixes['train'],
        notes=notes,
    )


def _list(split: str, images: str, masks: str) -> tuple[list[str], list[str]]:
    """The image files in two folders and those below, as sorted relative paths."""
    found = []
    for folder, what in ((images, 'images'), (masks, 'masks')):
        root = Path(folder).expanduser()
        if root.is_file():
            raise UserError(f'--{split} {folder}: a segmentor needs a folder of {what}, and this is a file')
        if not root.is_dir():
            raise UserError(f'--{split} {folder}: there is no such folder of {what}')
        paths = (path for path in root.rglob('*') if path.suffix.lower() in EXTENSIONS and path.name[0] != '.')
        found.append(sorted(path.relative_to(root).as_posix() for path in paths))
        if not found[-1]:
            raise UserError(f'--{split} {folder}: there is no image in it; expected {", ".join(EXTENSIONS)}')
        kinds = Counter(os.path.splitext(path)[1] for path in found[-1])
        if len(kinds) > 1:
            listed = ', '.join(f'{count} {kind}' for kind, count in kinds.most_common())
            raise UserError(f'--{split} {folder}: {listed}: mmseg reads {what} of one ending; use one for all')
    return found[0], found[1]


def _suffixes(folders: tuple[str, str], images: list[str], masks: list[str]) -> tuple[str, str]:
    """What to cut from the names of images and of masks so that the same names are left.

    The shortest pair, beginning with the file extensions: ``a.jpg`` and ``a.png``, ``a_leftImg8bit.png`` and
    ``a_gtFine.png``.
    """
    known = set(masks)
    image_ends, mask_ends = _common_ends(images), _common_ends(masks)
    best, most = (image_ends[0], mask_ends[0]), -1
    for image_end in image_ends:
        for mask_end in mask_ends:
            if images[0].removesuffix(image_end) + mask_end not in known and len(images) > 1 and most >= 0:
                continue
            paired = sum(image.removesuffix(image_end) + mask_end in known for image in images)
            if paired > most:
                best, most = (image_end, mask_end), paired
            if paired == len(images) == len(masks):
                return _with_separator(best, image_ends, mask_ends)
    expected = {image.removesuffix(best[0]) + best[1] for image in images}
    for image in images:
        if (mask := image.removesuffix(best[0]) + best[1]) not in known:
            raise UserError(
                f'{len(images) - most} of {len(images)} images in {folders[0]} have no mask in {folders[1]}, such as '
                f'{image}: expected {mask}'
            )
    extra = sorted(known - expected)
    raise UserError(
        f'{len(extra)} of {len(masks)} masks in {folders[1]} have no image in {folders[0]}, such as {extra[0]}'
    )


def _with_separator(ends: tuple[str, str], image_ends: list[str], mask_ends: list[str]) -> tuple[str, str]:
    """``leftImg8bit.png`` and ``gtFine.png`` as ``_leftImg8bit.png`` and ``_gtFine.png``, where all names have it."""
    for separator in '_-. ':
        longer = (separator + ends[0], separator + ends[1])
        if longer[0] in image_ends and longer[1] in mask_ends:
            return longer
    return ends


def _common_ends(paths: list[str]) -> list[str]:
    """The endings that all paths share, from the file extension on, shortest first."""
    shared = os.path.commonprefix([path[::-1] for path in paths])[::-1].rpartition('/')[2]
    shortest = len(os.path.splitext(paths[0])[1])
    return [shared[-length:] for length in range(shortest, len(shared) + 1)] or [os.path.splitext(paths[0])[1]]


def _read(path: Path) -> NDArray:
    try:
        mask = mmcv.imread(str(path), flag='unchanged', backend='pillow')
    except (OSError, ValueError, SyntaxError) as problem:  # SyntaxError: a broken PNG in Pillow
        raise UserError(f'{path}: cannot read this mask: {problem}') from problem
    if mask is None:
        raise UserError(f'{path}: cannot read this mask')
    return mask


def _values(path: Path, mask: NDArray) -> tuple[set[int], tuple[int, int]]:
    """The numbers in a mask, and its height and width."""
    if mask.ndim != 2:
        raise UserError(
            f'{path}: a mask has one channel with class numbers, and this one has {mask.shape[-1]}: colours need to be '
            'turned into numbers first'
        )
    values = {int(value) for value in np.unique(mask)}
    if max(values) > IGNORED:
        raise UserError(f'{path}: class numbers are 0 to 254, and {IGNORED} is ignored; got {max(values)}')
    return values, (mask.shape[0], mask.shape[1])


def _check_values(folder: str, values: set[int]) -> None:
    if values <= {0, IGNORED}:
        raise UserError(
            f'{folder}: the masks hold only {" and ".join(map(str, sorted(values)))}, and {IGNORED} is ignored: there '
            'is nothing to learn; write the class as 1'
        )


def _some(numbers: Iterable[int]) -> str:
    shown = list(map(str, numbers))
    return ', '.join(shown[:10]) + (' ...' if len(shown) > 10 else '')
