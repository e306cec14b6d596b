"""Folders of images and masks, for segmentors."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..datasets.images import HEADERS, MASKS, read_header, sample
from ..datasets.masks import IGNORED, MaskFolders, read_mask
from ..errors import UserError
from .data import Data, Split, tidy

SEPARATORS = '_-. '  # what an ending may begin with


def read_segments(
    paths: Mapping[str, tuple[str, str]],
    names: Sequence[str] | None = None,
    suffixes: tuple[str, str] | None = None,
) -> Data:
    """A dataset of images and masks, as far as a config needs it. Faults are left to the data check of the config.

    Args:
        paths: Folder of the images and folder of the masks of each split.
        names: Names of the classes 0, 1, ...; default ``class_0`` ... up to the largest number in the masks. Masks of 0
            and 255 have two classes.
        suffixes: What the names of images and of masks end with; default what most of them end with, in each split.

    Raises:
        UserError: A folder is missing or has no image in it, images have several masks each, the masks hold no numbers
            that tell the classes, or there are too many classes.
    """
    folders = {split: _folders(split, *pair, suffixes) for split, pair in paths.items()}
    train = folders['train']
    notes: list[str] = []
    if names is not None and len(names) > IGNORED:
        raise UserError(
            f'--classes: {len(names)} names, expected at most {IGNORED}: masks have 8 bits, and {IGNORED} is ignored'
        )
    if names is None:
        values, looked_at = _values(folder for folder in folders.values())
        if not values:
            raise UserError(f'{paths["train"][1]}: the masks hold no numbers of classes; name these with --classes')
        largest = 1 if values == {0, IGNORED} else max(values - {IGNORED}, default=0)
        names = [f'class_{number}' for number in range(largest + 1)]
        notes.append(
            f'the masks do not name their classes: they are called {names[0]} to {names[-1]}; --classes names them'
        )
        if looked_at < (number := sum(len(_masks(folder)) for folder in folders.values())):
            notes.append(f'the classes were counted in {looked_at} of the {number} masks')
    sizes = np.array(list(_sizes(train)))
    return Data(
        splits={
            split: Split(
                tidy(images),
                tidy(masks),
                sum(image.endswith(folders[split].img_suffix) for image in folders[split].images),
                (folders[split].img_suffix, folders[split].seg_map_suffix),
            )
            for split, (images, masks) in paths.items()
        },
        classes=tuple(names),
        size=(int(np.median(sizes[:, 1])), int(np.median(sizes[:, 0]))) if len(sizes) else None,
        smallest=int(sizes.min()) if len(sizes) else None,
        notes=notes,
    )


def _folders(split: str, images: str, masks: str, suffixes: tuple[str, str] | None) -> MaskFolders:
    paths = [str(Path(folder).expanduser()) for folder in (images, masks)]
    folders = MaskFolders(*paths)
    for folder, path, what, found in zip(
        (images, masks), paths, ('images', 'masks'), (folders.images, folders.masks), strict=True
    ):
        if os.path.isfile(path):
            raise UserError(f'--{split} {folder}: a segmentor needs a folder of {what}, and this is a file')
        if not os.path.isdir(path):
            text = f'--{split} {folder}: there is no such folder of {what}'
            if split == 'test' and what == 'masks':
                text += (
                    ', without which a segmentor cannot be tested; leave out --test, and predict with MMSegInferencer'
                )
            raise UserError(text)
        if not found:
            raise UserError(f'--{split} {folder}: there is no image in it')
    if suffixes is None:
        try:
            suffixes = _suffixes(folders.images, folders.masks)
        except ValueError as problem:
            raise UserError(f'--{split} {masks}: {problem}') from problem
    else:
        for folder, suffix, found in zip((images, masks), suffixes, (folders.images, folders.masks), strict=True):
            if not any(file.endswith(suffix) for file in found):
                raise UserError(f'--suffix {suffix}: no file in {folder} ends so; there is {found[0]}')
    return replace(folders, img_suffix=suffixes[0], seg_map_suffix=suffixes[1])


def _masks(folders: MaskFolders) -> list[str]:
    return [mask for mask in folders.masks if mask.endswith(folders.seg_map_suffix)]


def _values(splits: Iterable[MaskFolders]) -> tuple[set[int], int]:
    """The numbers of 8 bits in the masks that are looked at, and how many masks these are."""
    values, count = set(), 0
    for folders in splits:
        for file in sample(_masks(folders), MASKS):
            count += 1
            try:
                mask = read_mask(os.path.join(folders.seg_map_path or '', file))
            except ValueError:  # named by the data check, with its reason
                continue
            if mask.pixels.ndim == 2:
                values |= {int(value) for value in mask.values if 0 <= value <= IGNORED}
            elif (mask.pixels[..., :3] == mask.pixels[..., :1]).all():  # grey as RGB, which --fix repairs
                values |= set(np.unique(mask.pixels[..., 0]).tolist())
    return values, count


def _sizes(folders: MaskFolders) -> Iterable[tuple[int, int]]:
    """Width and height of the images, of many at most 5000."""
    for file in sample(folders.images, HEADERS):
        try:
            yield read_header(os.path.join(folders.img_path, file)).upright
        except ValueError:  # named by the data check, with its reason
            continue


def _suffixes(images: Sequence[str], masks: Sequence[str]) -> tuple[str, str]:
    """What to cut from the names of images and of masks so that the same names are left.

    The shortest pair with which most images have a mask, beginning with the file extensions: ``a.jpg`` and ``a.png``,
    ``a_leftImg8bit.png`` and ``a_gtFine.png``. Of several extensions the one that most files have.

    Raises:
        ValueError: Images have several masks each, such as ``a_labelIds.png`` and ``a_color.png``. The text names them.
    """
    known = set(masks)
    image_ends, mask_ends = _common_ends(images), _common_ends(masks)
    probes = sample([image for image in images if image.endswith(image_ends[0])], 100)
    pairs = [(image_end, mask_end) for image_end in image_ends for mask_end in mask_ends]

    def matches(ends: tuple[str, str]) -> int:
        return sum(probe.removesuffix(ends[0]) + ends[1] in known for probe in probes)

    best = max(pairs, key=matches)
    if not matches(best) and (pairs := _several_endings(probes[:10], image_ends, masks)):
        if len(pairs) > 1:
            endings = ', '.join(mask_end for _, mask_end in pairs)
            raise ValueError(f'each image has several masks: {endings}; choose with --suffix {pairs[0][0]} ENDING')
        best = pairs[0]
    for separator in SEPARATORS:  # "_leftImg8bit.png" rather than "leftImg8bit.png"
        longer = (separator + best[0], separator + best[1])
        if longer in pairs:
            return longer
    return best


def _several_endings(images: Sequence[str], image_ends: Sequence[str], masks: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of endings with which most images have a mask, where masks do not share one ending."""
    for image_end in image_ends:
        if image_end[0] in SEPARATORS:
            stems = [image.removesuffix(image_end) for image in images]
            endings = Counter(mask[len(stem) :] for stem in stems for mask in masks if mask.startswith(stem))
            most = [end for end in sorted(endings) if endings[end] > len(images) / 2 and end[:1] in SEPARATORS]
            if most:
                return [(image_end, end) for end in most]
    return []


def _common_ends(paths: Sequence[str]) -> list[str]:
    """The endings that all paths of the most frequent file extension share, from the extension on, shortest first."""
    extension = Counter(os.path.splitext(path)[1] for path in paths).most_common(1)[0][0]
    chosen = [path for path in paths if path.endswith(extension)]
    shared = os.path.commonprefix([path[::-1] for path in chosen])[::-1].rpartition('/')[2]
    return [shared[-length:] for length in range(len(extension), len(shared) + 1)]
