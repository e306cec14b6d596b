"""What the values of masks mean to a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from mmseg.datasets import BaseSegDataset
from numpy.typing import NDArray

from mmcv_custom.datasets import Source
from mmcv_custom.datasets.masks import IGNORED

from .base import FIX, is_iou_metric


@dataclass(frozen=True)
class MaskValues:
    """The meaning of each value of a mask.

    Attributes:
        classes: Names of the classes; a label is a place in it.
        labels: The label of each value, ``None`` if it is ignored. Other values mean nothing.
        ignored: Labels that the losses (of training data) or the metrics (of the others) leave out.
        reduces: Whether value 0 is ignored by ``reduce_zero_label``.
    """

    classes: tuple[str, ...]
    labels: Mapping[int, int | None]
    ignored: frozenset[int]
    reduces: bool = False

    @classmethod
    def of(cls, dataset: BaseSegDataset, source: Source) -> MaskValues:
        """The meaning that a dataset of mmseg gives to values."""
        classes = tuple(dataset.metainfo.get('classes') or ())
        shift = int(dataset.reduce_zero_label)
        selection = dataset.label_map or {label: label for label in range(len(classes))}
        labels = {old + shift: new if new < len(classes) else None for old, new in selection.items()}
        if shift:
            labels[0] = None
        ignored = ignored_labels(source)
        return cls(classes, {**dict.fromkeys(ignored, None), **labels}, ignored, bool(shift))

    def unknown(self, values: Iterable[int]) -> list[int]:
        """The values that mean nothing."""
        return sorted(set(values) - set(self.labels))

    def way_out(self, found: set[int]) -> str:
        """What to do about values that mean nothing, for the values found in all masks."""
        last = max((value for value, label in self.labels.items() if label is not None), default=0)
        if max(found) > IGNORED:
            return 'masks are read as 8 bits, larger values become others'
        if found <= {0, IGNORED}:
            return f'write 1 instead of {IGNORED}; {FIX}'
        if self.unknown(found) == [last + 1] and not self.reduces:
            return 'if classes are numbered from 1, set reduce_zero_label=True in the dataset, which also ignores 0'
        return 'correct the masks, or name the class in metainfo.classes'

    def reason(self, value: int) -> str:
        """Why a value is ignored."""
        if value == 0 and self.reduces:
            return 'of value 0 by reduce_zero_label'
        return f'of value {value}' if value in self.ignored else 'of classes that metainfo.classes does not name'

    def as_predicted(self, labels: Mapping[str, int]) -> MaskValues:
        """The same with other labels of the classes, by name."""
        new = {value: None if label is None else labels[self.classes[label]] for value, label in self.labels.items()}
        return replace(self, labels=new)

    def label_map(self, pixels: NDArray, ignored: int) -> NDArray[np.int64]:
        """The labels of a mask's pixels, both (H, W). Values that are ignored or mean nothing become ``ignored``."""
        known = {value: label for value, label in self.labels.items() if label is not None and value <= pixels.max()}
        table = np.full(int(pixels.max()) + 1, ignored)
        table[list(known)] = list(known.values())
        return table[pixels]

    def __str__(self) -> str:
        values = sorted(value for value, label in self.labels.items() if label is not None)
        ignored = sorted(value for value, label in self.labels.items() if label is None)
        text = f'the {len(self.classes)} classes have the values {_ranges(values)}'
        return f'{text}, ignored are {_ranges(ignored)}' if ignored else text


def ignored_labels(source: Source) -> frozenset[int]:
    """Labels that the losses of the model, for training data, or the metrics leave out; 255 where none says another."""
    if source.split == 'train':
        heads = [source.model.get(name) for name in ('decode_head', 'auxiliary_head')]
        parts = [part for head in heads for part in (head if isinstance(head, list | tuple) else [head]) if part]
    else:
        parts = [part for part in source.evaluators if is_iou_metric(part)]
    found = {part.get('ignore_index', IGNORED) for part in parts} or {IGNORED}
    return frozenset(label for label in found if label is not None)


def _ranges(values: list[int]) -> str:
    if len(values) > 2 and values[-1] - values[0] == len(values) - 1:
        return f'{values[0]} to {values[-1]}'
    return ', '.join(map(str, values))
