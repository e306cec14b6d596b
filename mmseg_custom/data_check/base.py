"""What the layers of the segmentation check share: the dataset, its pipeline, and how they report."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from mmengine.registry import METRICS, TRANSFORMS
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.evaluation import IoUMetric
from numpy.typing import NDArray

from mmcv_custom.datasets import DatasetCheck, Harm, Report, Source, class_of
from mmcv_custom.datasets.images import MASKS, sample
from mmcv_custom.datasets.loading import Results
from mmcv_custom.datasets.masks import Mask, MaskFolders, count_values, read_mask
from mmcv_custom.texts import in_words

LIBRARIES = ('mmcv', 'mmengine', 'mmseg', 'mmcv_custom', 'mmseg_custom')
RESIZING = ('Resize', 'RandomResize', 'RandomChoiceResize')
FIX = 'tools/check_data.py CONFIG --fix DIR writes such masks'
T = TypeVar('T')


@dataclass
class OwnStep:
    """A step of a pipeline that runs code of the user's own, and what it was seen to do to masks.

    Attributes:
        name: Its class, or that of the transform inside it.
        transform: The step, built.
        loads: Whether it loaded a mask.
        changes: Whether it gave pixels other labels. Moving, cropping and resizing a mask does not.
    """

    name: str
    transform: Callable[[Results], Results | None]
    loads: bool = False
    changes: bool = False

    def __call__(self, results: Results) -> Results | None:
        """Runs the step."""
        before = loaded_labels(results)
        before = None if before is None else before.copy()  # it may be changed in place
        changed = self.transform(results)
        after = loaded_labels(changed)
        if after is None:
            return changed
        if before is None:
            self.loads = True
            before = _stored(results, after)
        self.changes |= before is None or _other_labels(before, after)
        return changed


def _stored(results: Results, loaded: NDArray) -> NDArray | None:
    """The values in the file of a mask, in the type in which it was loaded; ``None`` if Pillow cannot read it."""
    try:
        return read_mask(str(results.get('seg_map_path'))).pixels.astype(loaded.dtype)
    except ValueError:
        return None


def loaded_labels(results: Results | None) -> NDArray | None:
    """The loaded mask, also if it is packed already."""
    if results is not None and 'gt_sem_seg' in results.get('data_samples', ()):
        return results['data_samples'].gt_sem_seg.data.squeeze(0).numpy()
    return None if results is None else results.get('gt_seg_map')


def _other_labels(before: NDArray, after: NDArray) -> bool:
    if before.shape == after.shape and np.array_equal(before, after):
        return False
    old, new = count_values(before), count_values(after)
    return before.ndim != after.ndim or (old != new if before.size == after.size else not new.keys() <= old.keys())


class MaskCheck(DatasetCheck):
    """The part of the check that all layers use. The arguments are those of ``DatasetCheck``.

    Attributes:
        broken: Indices of images on which the user's own transforms failed, which is reported already.
    """

    def __init__(self, source: Source, report: Report, full: bool = False) -> None:
        super().__init__(source, report, full)
        self.broken: set[int] = set()

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

    @cached_property
    def dataset(self) -> Any:
        """The dataset; ``None``, with an error, if it cannot be built."""
        return self.build()

    def build(self, **options: Any) -> Any:
        """The dataset; ``None``, with an error, if it cannot be built."""
        try:
            return self.source.build(**options)
        except Exception as problem:  # a constructor may raise anything
            text = f'{self.source.key}: {self.source.cfg.get("type")} cannot be built: {in_words(problem)}'
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
        return mask_loader(self.source)

    def loads_masks(self) -> bool:
        """Whether masks are loaded; reports it if they are not, as an error if training or a metric asks for them."""
        if self.loader is not None:
            return True
        others = [cfg for cfg in self.source.transforms() if 'Annotation' in str(cfg.get('type'))]
        judged = any(is_iou_metric(cfg) and not cfg.get('format_only') for cfg in self.source.evaluators)
        if not others and not any(step.loads for step in self.own_steps) and (self.source.split == 'train' or judged):
            text = (
                f"{self.source.key}.pipeline loads no masks: add dict(type='LoadAnnotations') behind LoadImageFromFile"
            )
            self.error(Harm.FAILS, 'masks not loaded', text)
        else:
            self.leave_out("masks, mmseg's LoadAnnotations does not load them")
        return False

    @cached_property
    def own_steps(self) -> list[OwnStep]:
        """The steps of the user's own, which have run on the images that are looked at; their failures are reported."""
        for index in self.sample(range(len(self.dataset)), MASKS) if self._steps else ():
            info = self.dataset.get_data_info(index)
            try:
                self.run_own(info)
            except Exception as problem:  # a transform may raise anything
                self.broken.add(index)
                self.error(Harm.FAILS, 'cannot be loaded', f'{info.get("img_path")}: {in_words(problem)}')
        return [step for step in self._steps if isinstance(step, OwnStep)]

    @cached_property
    def changing(self) -> list[str]:
        """The user's own transforms that change the labels of masks: values in the files say nothing then."""
        return [step.name for step in self.own_steps if step.changes]

    def run_own(self, data_info: Mapping[str, Any]) -> Results | None:
        """Runs the pipeline up to the last transform of the user's own."""
        results: Results | None = dict(data_info)
        for step in self._steps:
            results = step(results) if results is not None else None
        return results

    @cached_property
    def _steps(self) -> list[Callable[[Results], Results | None]]:
        """The steps of the pipeline up to the last of the user's own; empty without any."""
        names = [next(_own_classes(self.source, step), '') for step in self.source.cfg.get('pipeline') or ()]
        if not any(names) or self.dataset is None:
            return []
        pairs = zip(names, self.dataset.pipeline.transforms, strict=True)
        steps = [OwnStep(name, transform) if name else transform for name, transform in pairs]
        while not isinstance(steps[-1], OwnStep):
            steps.pop()
        return steps


def mask_loader(source: Source) -> Mapping[str, Any] | None:
    """The transform of a pipeline that loads masks, as in the config."""
    kinds = ((transform, class_of(TRANSFORMS, transform)) for transform in source.transforms())
    return next((cfg for cfg, kind in kinds if issubclass(kind or object, LoadAnnotations)), None)


def _own_classes(source: Source, step: Mapping[str, Any]) -> Iterator[str]:
    """The classes of the user's own in a step of a pipeline, which may hold others."""
    kinds = (class_of(TRANSFORMS, cfg) for cfg in replace(source, cfg=dict(pipeline=[step])).transforms())
    return (kind.__name__ for kind in kinds if kind and kind.__module__.partition('.')[0] not in LIBRARIES)


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
