"""Layer 2 of the segmentation check: what becomes of every image and pixel."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmseg.datasets import BaseSegDataset
from numpy.typing import NDArray

from mmcv_custom.datasets import Harm
from mmcv_custom.datasets.images import MASKS
from mmcv_custom.datasets.loading import Loading
from mmcv_custom.datasets.masks import Mask, count_pairs, read_mask
from mmcv_custom.texts import in_words, some

from .base import FIX, MaskCheck, loaded_labels, mask_folders
from .values import MaskValues

Pair = tuple[int, int]  # a value in the file of a mask, the label that is loaded for it


@dataclass
class Pixels:
    """Pixels of many masks.

    Attributes:
        masks: Number of masks.
        counts: Pixels by value and loaded label.
        files: Number of masks by value and loaded label.
        first: The first mask of each value and loaded label.
    """

    masks: int = 0
    counts: Counter[Pair] = field(default_factory=Counter)
    files: Counter[Pair] = field(default_factory=Counter)
    first: dict[Pair, str] = field(default_factory=dict)

    def add(self, path: str, counts: Counter[Pair]) -> None:
        """Adds a mask."""
        self.masks += 1
        self.counts.update(counts)
        self.files.update(counts.keys())
        for pair in counts:
            self.first.setdefault(pair, path)


def check_conservation(check: MaskCheck, dataset: BaseSegDataset) -> None:
    """Compares images and masks with what a dataset and its loading transforms make of them."""
    if len(dataset) == 0:
        check.error(Harm.FAILS, 'no images', f'{check.source.key} finds no image in {dataset.data_prefix}')
        return
    check.report.contents[check.source.split]['images'] += len(dataset)
    _unused(check, dataset)
    pixels = _load(check, dataset)
    if check.loads_masks() and pixels.masks:
        check.report.contents[check.source.split]['masks read'] += pixels.masks
        values = MaskValues.of(dataset, check.source)
        if check.changing:
            _judge_labels(check, pixels, values)
        else:
            _judge_pairs(check, pixels, values)
        _judge_classes(check, pixels, values)


def _unused(check: MaskCheck, dataset: BaseSegDataset) -> None:
    folders = mask_folders(dataset)
    if folders is None or check.loader is None:
        return
    used = {os.path.normpath(dataset.get_data_info(index)['img_path']) for index in range(len(dataset))}
    chosen = {os.path.normpath(folders.image(name)) for name in folders.names}
    lost = [path for path, has_mask in folders.unused().items() if has_mask and path not in used]
    if folders.ann_file:
        check.note('images that the list of images leaves out', len(lost))
    else:
        for path in lost:
            text = (
                f'{path} has a mask and is not used, as {len(lost)} of {len(chosen) + len(lost)} images: '
                f'img_suffix is {folders.img_suffix!r}'
            )
            check.error(Harm.LOST, 'images left out', text)
    kept_back = len(chosen - used)
    check.note(f'images left out by {type(dataset).__name__}, its indices or its filter', kept_back)


def _load(check: MaskCheck, dataset: BaseSegDataset) -> Pixels:
    """Loads images and masks as the dataset does, and the masks a second time on their own."""
    loading = check.run_own if check.changing else Loading(dataset.pipeline.transforms, fixed='gt_seg_map')
    pixels = Pixels()
    for index in check.sample(range(len(dataset)), MASKS):
        if index in check.broken:
            continue
        info = dataset.get_data_info(index)
        names = ' or '.join(str(info[key]) for key in ('img_path', 'seg_map_path') if key in info)
        try:
            loaded = loading(info) or {}
            labels = loaded_labels(loaded)
            if check.loader is None or labels is None:
                continue
            mask = Mask(names, '', '', labels) if check.changing else read_mask(info['seg_map_path'])
        except Exception as problem:  # a transform may raise anything
            check.error(Harm.FAILS, 'cannot be loaded', f'{names}: {in_words(problem)}')
            continue
        if _shape_fits(check, mask, labels, loaded):
            pixels.add(mask.path, count_pairs(mask.pixels, labels))
    return pixels


def _shape_fits(check: MaskCheck, mask: Mask, labels: NDArray, loaded: Mapping[str, Any]) -> bool:
    if labels.ndim != 2 or labels.shape != mask.pixels.shape[:2]:
        text = f'{mask.path} is loaded in the shape {labels.shape}, expected is (height, width)'
        check.error(Harm.FAILS, 'shape of mask', f'{text}; {FIX}')
    elif mask.pixels.ndim == 3 or mask.pixels.dtype.kind == 'f':
        text = f'{mask.path} holds no whole numbers, one per pixel, and is loaded as if it did: {mask.pixels.dtype}'
        check.error(Harm.WRONG, 'mask of no whole numbers', text)
    else:
        if check.changing and labels.shape == loaded.get('img', labels).shape[:2]:  # it may be a crop of both
            return True
        height, width = loaded.get('ori_shape', labels.shape)[:2]
        return check.size_fits(mask, loaded['img_path'], (width, height))
    return False


def _judge_labels(check: MaskCheck, pixels: Pixels, values: MaskValues) -> None:
    """For masks that transforms of the user's own change: the labels must be those of classes."""
    for (value, label), count in pixels.counts.items():
        if not 0 <= label < len(values.classes) and label not in values.ignored:
            text = f'{pixels.first[value, label]}: {count} pixels get label {label}, which no class has: {values}'
            check.error(Harm.FAILS, 'label without a class', text)


def _judge_pairs(check: MaskCheck, pixels: Pixels, values: MaskValues) -> None:
    total = pixels.counts.total()
    ignored: Counter[str] = Counter()
    for (value, label), count in sorted(pixels.counts.items()):
        of = f'{count} pixels in {pixels.files[value, label]} masks, such as {pixels.first[value, label]},'
        expected = values.labels.get(value)
        if value not in values.labels:
            text = f'{of} have the value {value}, which stands for no class, and become label {label}: {values}'
            check.error(Harm.FAILS if check.source.split == 'train' else Harm.WRONG, 'value without a class', text)
        elif expected is None and label in values.ignored:
            ignored[values.reason(value)] += count
        elif expected is None:
            text = f'{of} have the value {value}, which is ignored, and become label {label}'
            check.error(Harm.WRONG, 'label of an ignored value', text)
        elif label != expected:
            harm = Harm.LOST if label in values.ignored else Harm.WRONG
            meaning = f'{values.classes[expected]!r} (label {expected})'
            check.error(harm, 'label of a value', f'{of} have the value {value}, {meaning}, and become label {label}')
        elif label in values.ignored:
            ignored[f'of class {values.classes[label]!r}, which is the ignore_index'] += count
    for reason, count in ignored.items():
        check.note(f'ignored pixels, {100 * count / total:.1f} % of all, {reason}', count)


def _judge_classes(check: MaskCheck, pixels: Pixels, values: MaskValues) -> None:
    of_class: dict[int, int] = defaultdict(int)
    for (_, label), count in pixels.counts.items():
        if label not in values.ignored:
            of_class[label] += count
    absent = [name for label, name in enumerate(values.classes) if label not in of_class]
    everything = sum(of_class.values()) == pixels.counts.total()
    if not of_class:
        text = f'every pixel of {check.source.key} is ignored: {values}'
        check.error(Harm.LOST, 'nothing to learn', text, pixels.masks)
    elif len(of_class) == 1 and not everything and (len(values.classes) == 2 or check.source.split == 'train'):
        (label,) = of_class
        text = (
            f'all pixels in {pixels.masks} masks, such as {next(iter(pixels.first.values()))}, are '
            f'{values.classes[label]!r} or ignored, none is {some(absent)}: {values}; {FIX}'
        )
        check.error(Harm.WRONG, 'only one class', text, pixels.masks)
    check.note(f'classes without a pixel in the masks read: {some(absent)}', len(absent))
