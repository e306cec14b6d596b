"""Repairs masks where there is one right answer."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from mmseg.datasets import BaseSegDataset
from numpy.typing import NDArray

from mmcv_custom.datasets import Source
from mmcv_custom.datasets.masks import (
    Mask,
    Values,
    colours_to_labels,
    count_values,
    read_colours,
    read_mask,
    write_mask,
)
from mmcv_custom.errors import UserError
from mmcv_custom.texts import in_words, some

from .base import mask_folders, mask_loader
from .values import MaskValues


def fix_masks(source: Source, out_dir: str) -> list[str]:
    """Writes masks that a dataset can use, if there is one right answer for all of its masks.

    Colours of ``metainfo.palette`` become numbers, equal channels one channel, palettes their indices, 16 bits 8, and
    0 and 255 become 0 and 1 if there are two classes. Masks that are right are copied. The originals stay as they are.

    Args:
        source: The dataset.
        out_dir: The new masks go into a folder of it that is named after the dataset's place in the config.

    Returns:
        What was changed and the line of the config that uses it, or why nothing was written; nothing if no mask needs
        a change. One line each.

    Raises:
        UserError: The folder for the masks exists.
    """
    if not source.is_local:
        return []
    try:
        dataset = source.build(lazy_init=True, pipeline=[])
    except Exception as problem:  # a constructor may raise anything
        return [f'{source.key}: masks are left as they are: it cannot be built: {in_words(problem)}']
    folders = mask_folders(dataset)
    if folders is None or not os.path.isdir(folders.seg_map_path or ''):
        return []
    target = Path(out_dir, source.key).absolute()
    if target.exists():
        raise UserError(f'{target} exists: name a new folder for the repaired masks')
    try:
        names = folders.names
    except (OSError, UnicodeDecodeError) as problem:
        return [f'{source.key}: masks are left as they are: {problem}']
    masks = {name: path for name in names if os.path.isfile(path := folders.mask(name))}
    repair = _Repair(dataset, source)
    try:
        found = repair.values_of(masks.values())
        binary = found.keys() == {0, 255} and len(repair.values.classes) == 2
        if not binary and (unknown := repair.values.unknown(found)):
            raise _Unclear(f'the value {some(unknown)} stands for no class: {repair.values}')
    except _Unclear as problem:
        return [f'{source.key}: masks are left as they are: {problem}']
    if binary:
        repair.changes['masks with 255 for 1'] = len(masks)
    if not repair.changes:
        return []
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix='.masks.') as draft:  # gets its name when all masks are written
        for name, path in masks.items():
            copy = Path(draft, 'masks', name + folders.seg_map_suffix)
            copy.parent.mkdir(parents=True, exist_ok=True)
            mask = read_mask(path)
            pixels = repair.pixels_of(mask)
            pixels = np.minimum(pixels, 1) if binary else pixels
            if pixels is mask.pixels:
                shutil.copyfile(path, copy)
            else:
                write_mask(pixels.astype(np.uint8), str(copy))
        Path(draft, 'masks').rename(target)
    changed = ', '.join(f'{count} {change}' for change, count in repair.changes.items())
    return [
        f'{source.key}: {len(masks)} masks are written to {target}; repaired: {changed}',
        f'{source.key}.data_prefix.seg_map_path={str(target)!r}',
    ]


class _Unclear(Exception):
    """There is not one right answer."""


class _Repair:
    def __init__(self, dataset: BaseSegDataset, source: Source) -> None:
        self.values = MaskValues.of(dataset, source)
        self.changes: Counter[str] = Counter()
        given = {**dataset.METAINFO, **(source.cfg.get('metainfo') or {})}
        self._palette = dataset.metainfo['palette'] if given.get('palette') else None  # mmseg makes up one otherwise
        self._by_cv2 = (mask_loader(source) or {}).get('imdecode_backend') == 'cv2'

    def values_of(self, paths: Iterable[str]) -> Values:
        """The values in all repaired masks; counts the changes."""
        found: Values = Counter()
        for path in paths:
            try:
                mask = read_mask(path)
            except ValueError as problem:
                raise _Unclear(f'{path}: {problem}') from None
            pixels = self.pixels_of(mask, self.changes)
            found.update(count_values(pixels))
        return found

    def pixels_of(self, mask: Mask, changes: Counter[str] | None = None) -> NDArray:
        """The repaired pixels (H, W) of a mask; ``mask.pixels`` itself where nothing is to be done."""
        changes = Counter() if changes is None else changes
        if mask.is_lossy:
            raise _Unclear(f'{mask.path} is a {mask.format} file, which has lost its numbers')
        pixels = mask.pixels
        if pixels.ndim == 3:
            changes[f'colour masks ({mask.mode})'] += 1
            return self._without_channels(mask)
        if mask.mode == 'P' and self.values.unknown(mask.values) and self._palette is not None:
            changes['masks whose palette has another order'] += 1
            return self._translate(mask.path, read_colours(mask.path))
        if mask.mode in ('P', '1') and self._by_cv2:
            changes['masks with a palette or 1 bit, which cv2 does not read as numbers'] += 1
            return pixels.copy()
        if pixels.dtype != np.uint8 and pixels.dtype.kind in 'iu' and pixels.min() >= 0 and pixels.max() <= 255:
            changes['masks of more than 8 bits'] += 1
            return pixels.astype(np.uint8)
        return pixels

    def _without_channels(self, mask: Mask) -> NDArray:
        pixels = mask.pixels
        if pixels.shape[2] in (2, 4):
            if (pixels[..., -1] != pixels[0, 0, -1]).any():
                raise _Unclear(f'{mask.path} is transparent in parts')
            pixels = pixels[..., :-1]
        grey = bool((pixels == pixels[..., :1]).all())
        if self._palette is not None and pixels.shape[2] == 3:
            try:
                return self._translate(mask.path, pixels)
            except _Unclear:
                if not grey:
                    raise
        if not grey:
            raise _Unclear(f'{mask.path} has colours, and metainfo.palette does not say which class each stands for')
        return pixels[..., 0]

    def _translate(self, path: str, pixels: NDArray) -> NDArray:
        assert self._palette is not None
        try:
            labels = colours_to_labels(pixels, self._palette)
        except ValueError as problem:
            raise _Unclear(f'{path}: {problem}') from None
        value_of = {label: value for value, label in self.values.labels.items() if label is not None}
        return np.array([value_of[label] for label in range(len(self._palette))], np.uint8)[labels]
