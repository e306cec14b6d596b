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

from .layer import FIX, Layer, mask_folders, said, some
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


class Conservation(Layer):
    """The arguments are those of ``Layer``."""

    def run(self, dataset: BaseSegDataset) -> None:
        """Compares images and masks with what a dataset and its loading transforms make of them."""
        if len(dataset) == 0:
            self.error(Harm.FAILS, 'no images', f'{self.source.key} finds no image in {dataset.data_prefix}')
            return
        self.report.contents[self.source.split]['images'] += len(dataset)
        self._unused(dataset)
        pixels = self._load(dataset)
        if self.loads_masks() and pixels.masks:
            self.report.contents[self.source.split]['masks read'] += pixels.masks
            values = MaskValues.of(dataset, self.source)
            if self.own_transforms:
                self._judge_labels(pixels, values)
            else:
                self._judge_pairs(pixels, values)
            self._judge_classes(pixels, values)

    def _unused(self, dataset: BaseSegDataset) -> None:
        folders = mask_folders(dataset)
        if folders is None or self.loader is None:
            return
        used = {os.path.normpath(dataset.get_data_info(index)['img_path']) for index in range(len(dataset))}
        chosen = {os.path.normpath(folders.image(name)) for name in folders.names}
        lost = [path for path, has_mask in folders.unused().items() if has_mask and path not in used]
        if folders.ann_file:
            self.note('images that the list of images leaves out', len(lost))
        else:
            for path in lost:
                text = (
                    f'{path} has a mask and is not used, as {len(lost)} of {len(chosen) + len(lost)} images: '
                    f'img_suffix is {folders.img_suffix!r}'
                )
                self.error(Harm.LOST, 'images left out', text)
        kept_back = len(chosen - used)
        self.note(f'images left out by {type(dataset).__name__}, its indices or its filter', kept_back)

    def _load(self, dataset: BaseSegDataset) -> Pixels:
        """Loads images and masks as the dataset does, and the masks a second time on their own."""
        loading = Loading(dataset.pipeline.transforms, fixed='gt_seg_map')
        pixels = Pixels()
        for index in self.sample(range(len(dataset)), MASKS):
            info = dataset.get_data_info(index)
            names = ' or '.join(str(info[key]) for key in ('img_path', 'seg_map_path') if key in info)
            try:
                loaded = loading(info) or {}
                if self.loader is None or 'gt_seg_map' not in loaded:
                    continue
                labels = loaded['gt_seg_map']
                mask = Mask(names, '', '', labels) if self.own_transforms else read_mask(info['seg_map_path'])
            except Exception as problem:  # a transform may raise anything
                self.error(Harm.FAILS, 'cannot be loaded', f'{names}: {said(problem)}')
                continue
            if self._shape_fits(mask, labels, loaded):
                pixels.add(mask.path, count_pairs(mask.pixels, labels))
        return pixels

    def _shape_fits(self, mask: Mask, labels: NDArray, loaded: Mapping[str, Any]) -> bool:
        if labels.ndim != 2 or labels.shape != mask.pixels.shape[:2]:
            text = f'{mask.path} is loaded in the shape {labels.shape}, expected is (height, width)'
            self.error(Harm.FAILS, 'shape of mask', f'{text}; {FIX}')
        elif mask.pixels.ndim == 3 or mask.pixels.dtype.kind == 'f':
            text = f'{mask.path} holds no whole numbers, one per pixel, and is loaded as if it did: {mask.pixels.dtype}'
            self.error(Harm.WRONG, 'mask of no whole numbers', text)
        else:
            height, width = loaded.get('ori_shape', labels.shape)[:2]
            return self.size_fits(mask, loaded['img_path'], (width, height))
        return False

    def _judge_labels(self, pixels: Pixels, values: MaskValues) -> None:
        """For masks that transforms of the user's own change: the labels must be those of classes."""
        for (value, label), count in pixels.counts.items():
            if not 0 <= label < len(values.classes) and label not in values.ignored:
                text = f'{pixels.first[value, label]}: {count} pixels get label {label}, which no class has: {values}'
                self.error(Harm.FAILS, 'label without a class', text)

    def _judge_pairs(self, pixels: Pixels, values: MaskValues) -> None:
        total = pixels.counts.total()
        ignored: Counter[str] = Counter()
        for (value, label), count in sorted(pixels.counts.items()):
            of = f'{count} pixels in {pixels.files[value, label]} masks, such as {pixels.first[value, label]},'
            expected = values.labels.get(value)
            if value not in values.labels:
                text = f'{of} have the value {value}, which stands for no class, and become label {label}: {values}'
                self.error(Harm.FAILS if self.source.split == 'train' else Harm.WRONG, 'value without a class', text)
            elif expected is None and label in values.ignored:
                ignored[values.reason(value)] += count
            elif expected is None:
                text = f'{of} have the value {value}, which is ignored, and become label {label}'
                self.error(Harm.WRONG, 'label of an ignored value', text)
            elif label != expected:
                harm = Harm.LOST if label in values.ignored else Harm.WRONG
                meaning = f'{values.classes[expected]!r} (label {expected})'
                self.error(
                    harm, 'label of a value', f'{of} have the value {value}, {meaning}, and become label {label}'
                )
            elif label in values.ignored:
                ignored[f'of class {values.classes[label]!r}, which is the ignore_index'] += count
        for reason, count in ignored.items():
            self.note(f'ignored pixels, {100 * count / total:.1f} % of all, {reason}', count)

    def _judge_classes(self, pixels: Pixels, values: MaskValues) -> None:
        of_class: dict[int, int] = defaultdict(int)
        for (_, label), count in pixels.counts.items():
            if label not in values.ignored:
                of_class[label] += count
        absent = [name for label, name in enumerate(values.classes) if label not in of_class]
        everything = sum(of_class.values()) == pixels.counts.total()
        if not of_class:
            text = f'every pixel of {self.source.key} is ignored: {values}'
            self.error(Harm.LOST, 'nothing to learn', text, pixels.masks)
        elif len(of_class) == 1 and not everything and (len(values.classes) == 2 or self.source.split == 'train'):
            (label,) = of_class
            text = (
                f'all pixels in {pixels.masks} masks, such as {next(iter(pixels.first.values()))}, are '
                f'{values.classes[label]!r} or ignored, none is {some(absent)}: {values}; {FIX}'
            )
            self.error(Harm.WRONG, 'only one class', text, pixels.masks)
        self.note(f'classes without a pixel in the masks read: {some(absent)}', len(absent))
