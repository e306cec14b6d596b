"""What the layers of the segmentation check share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from mmengine.registry import METRICS, TRANSFORMS
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.evaluation import IoUMetric

from mmcv_custom.datasets import Harm, Report, Source, class_of
from mmcv_custom.datasets.images import sample
from mmcv_custom.datasets.masks import Mask, MaskFolders

LIBRARIES = ('mmcv', 'mmengine', 'mmseg', 'mmcv_custom', 'mmseg_custom')
RESIZING = ('Resize', 'RandomResize', 'RandomChoiceResize')
FIX = 'tools/check_data.py CONFIG --fix DIR writes such masks'
T = TypeVar('T')


class Layer:
    """A layer of the check of one dataset.

    Args:
        source: The dataset.
        report: Takes what is found.
        full: Look at every image and mask, not at a sample.
    """

    def __init__(self, source: Source, report: Report, full: bool) -> None:
        self.source, self.report, self.full = source, report, full

    def error(self, harm: Harm, kind: str, text: str, count: int = 1) -> None:
        """Reports an error of this dataset."""
        self.report.error(harm, kind, self.source.split, text, count)

    def note(self, description: str, count: int = 1) -> None:
        """Notes something about this dataset."""
        self.report.note(self.source.split, description, count)

    def leave_out(self, what: str) -> None:
        """Says what of this dataset is not checked."""
        self.report.leave_out(f'{self.source.key}: {what}')

    def sample(self, items: Sequence[T], size: int) -> list[T]:
        """The items to look at, at most ``size`` of them unless all are wanted."""
        return list(items) if self.full else sample(items, size)

    def build(self, **options: Any) -> Any:
        """The dataset; ``None``, with an error, if it cannot be built."""
        try:
            return self.source.build(**options)
        except Exception as problem:  # a constructor may raise anything
            text = f'{self.source.key}: {self.source.cfg.get("type")} cannot be built: {said(problem)}'
            self.error(Harm.FAILS, 'dataset cannot be built', text)
            return None

    def size_fits(self, mask: Mask, image: str, size: tuple[int, int], remark: str = '') -> bool:
        """Reports a mask of another size than its image.

        Training may resize both to one size, if the proportions are the same; an evaluation does not.

        Args:
            mask: The mask.
            image: Path of the image.
            size: Width and height of the image as it is loaded.
            remark: What to say about the image's size.
        """
        height, width = mask.pixels.shape[:2]
        if (width, height) == size:
            return True
        resized = any(str(transform.get('type')) in RESIZING for transform in self.source.transforms())
        if self.source.split == 'train' and resized and abs(width * size[1] - height * size[0]) <= max(width, height):
            return True
        text = f'{mask.path} has {width}x{height} pixels, its image {image} {size[0]}x{size[1]}{remark}'
        self.error(Harm.FAILS, 'size of mask', f'{text}: both must have the same size')
        return False

    @cached_property
    def loader(self) -> Mapping[str, Any] | None:
        """The transform that loads masks, as in the config."""
        kinds = ((transform, class_of(TRANSFORMS, transform)) for transform in self.source.transforms())
        return next((cfg for cfg, kind in kinds if issubclass(kind or object, LoadAnnotations)), None)

    def loads_masks(self) -> bool:
        """Whether masks are loaded; reports it if they are not, as an error if training or a metric asks for them."""
        if self.loader is not None:
            return True
        others = [cfg for cfg in self.source.transforms() if 'Annotation' in str(cfg.get('type'))]
        judged = any(is_iou_metric(cfg) and not cfg.get('format_only') for cfg in self.source.evaluators)
        if not others and not self.own_transforms and (self.source.split == 'train' or judged):
            text = (
                f"{self.source.key}.pipeline loads no masks: add dict(type='LoadAnnotations') behind LoadImageFromFile"
            )
            self.error(Harm.FAILS, 'masks not loaded', text)
        else:
            self.leave_out("masks, mmseg's LoadAnnotations does not load them")
        return False

    @cached_property
    def own_transforms(self) -> list[str]:
        """Transforms that are the user's own: they may change the values of masks."""
        kinds = [class_of(TRANSFORMS, transform) for transform in self.source.transforms()]
        return [kind.__name__ for kind in kinds if kind and kind.__module__.partition('.')[0] not in LIBRARIES]


def mask_folders(dataset: BaseSegDataset) -> MaskFolders | None:
    """Where a dataset finds its files; ``None`` if it does not match names as ``BaseSegDataset`` does."""
    suffixes = dataset.img_suffix, dataset.seg_map_suffix
    prefix = dataset.data_prefix
    by_name = 'img_path' in prefix and type(dataset).load_data_list is BaseSegDataset.load_data_list
    if not by_name or not all(isinstance(suffix, str) for suffix in suffixes):
        return None
    return MaskFolders(
        img_path=prefix['img_path'],
        seg_map_path=prefix.get('seg_map_path'),
        img_suffix=suffixes[0],
        seg_map_suffix=suffixes[1],
        ann_file='' if os.path.isdir(dataset.ann_file) else dataset.ann_file,
    )


def is_iou_metric(cfg: Mapping[str, Any]) -> bool:
    """Whether a metric of a config is mmseg's IoUMetric or derived from it."""
    return issubclass(class_of(METRICS, cfg) or object, IoUMetric)


def some(items: Iterable[Any]) -> str:
    """The first five of some names or values, and how many more there are."""
    items = list(items)
    text = ', '.join(str(item) if isinstance(item, int) else repr(item) for item in items[:5])
    return f'{text} and {len(items) - 5} more' if len(items) > 5 else text


def said(problem: Exception) -> str:
    """An exception in one line."""
    lines = str(problem).strip().splitlines()
    return f'{type(problem).__name__}: {lines[0][:300]}' if lines else type(problem).__name__
