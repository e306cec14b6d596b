"""The data check of detection datasets: what a dataset and its loading transforms make of the annotations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.registry import DATASETS

from mmcv_custom.datasets import DATA_CHECKS, DatasetCheck, Harm, class_of, silence
from mmcv_custom.datasets.contexts import no_garbage_collection
from mmcv_custom.datasets.images import MASKS, sample
from mmcv_custom.datasets.loading import Loading
from mmcv_custom.texts import in_words, some

UNUSED = 'objects not used'


@DATA_CHECKS.register_module(name='BaseDetDataset')
class DetectionCheck(DatasetCheck):
    """Checks a dataset of any format by what its class makes of it.

    Attributes, after :meth:`conservation`:
        meta: The ``metainfo`` of the dataset.
        mapping: Its labels by category ids, of formats that have them.
        shapes: Height and width of the images that were loaded, by their ids.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.meta: Mapping[str, Any] = {}
        self.mapping: Mapping[Any, int] | None = None
        self.shapes: dict[Any, tuple[int, int]] = {}
        self._images: list[str] = []

    def structure(self) -> None:
        """Says that the format is not known."""
        self.report.leave_out(f'files of {self.source.key} ({self.source.cfg["type"]}: only its objects are counted)')

    def conservation(self) -> None:
        """Builds the dataset, compares it with its files, and loads a sample of its images."""
        if not self.source.is_local:
            self.report.leave_out(f'{self.source.key} as it is loaded (its files are not on this machine)')
            return
        # No pipeline: the images are loaded below. Not serialized: this takes time and memory.
        dataset = self.source.build(pipeline=[], serialize_data=False, lazy_init=True)
        try:
            with silence(), no_garbage_collection():
                dataset.full_init()
        except Exception as problem:  # what a dataset class raises on damaged data can be anything
            self._fails('dataset cannot be built', f'{self.source.key}: {in_words(problem)}')
            return
        self.meta = dataset.metainfo
        self.mapping = getattr(dataset, 'cat2label', {})
        infos = dataset.data_list
        self.report.contents[self.source.split]['images'] += len(infos)
        if not infos:
            self._lost('no image is used', f'{self.source.key}: {self.why_empty(dataset)}')
            return
        try:
            self._images = [info['img_path'] for info in infos if 'img_path' in info]
            self.compare(dataset, infos)
        except Exception as problem:  # of the entries that a dataset class makes
            self._fails('objects cannot be read', f'{self.source.key}: {in_words(problem)}')
            return
        to_load = sample(infos, len(infos) if self.full else MASKS)
        del dataset, infos  # a large part of the memory
        self.load(to_load)

    @property
    def classes(self) -> Sequence[str]:
        """Names of the labels, in their order."""
        return self.meta.get('classes') or self.named_classes() or ()

    def named_classes(self) -> Sequence[str] | None:
        """The classes that the config names, or else the dataset class."""
        named = self.source.cfg.get('metainfo') or getattr(class_of(DATASETS, self.source.cfg), 'METAINFO', {})
        return named.get('classes')

    def why_empty(self, dataset: Any) -> str:
        """The reason why a dataset has no image, in words."""
        return 'there is no image, or none that shows one of its classes; look at ann_file and metainfo.classes'

    def compare(self, dataset: Any, infos: Sequence[Mapping[str, Any]]) -> None:
        """Counts the objects of each class, and names the classes without any."""
        split = self.source.split
        labels = Counter(
            instance['bbox_label'] for info in infos for instance in info['instances'] if not instance['ignore_flag']
        )
        self.report.contents[split]['objects'] += sum(labels.values())
        without = [name for label, name in enumerate(self.classes) if not labels.get(label)]
        self.report.note(split, f'classes without objects: {some(without)}', len(without))

    def load(self, infos: Sequence[Mapping[str, Any]]) -> None:
        """Loads images with the pipeline of the config, up to its first random transform."""
        pipeline = self.source.build(lazy_init=True).pipeline.transforms
        loading = Loading(pipeline, count=_objects_in)
        refused = 0
        for info in infos:
            try:
                results = loading(info)
                if results is None:
                    refused += 1
                    continue
                if 'ori_shape' in results and 'img_id' in info:
                    self.shapes[info['img_id']] = results['ori_shape'][:2]
                self.compare_loaded(info, results, loading.counts)
            except Exception as problem:  # of any transform, on damaged data
                self._fails('image cannot be loaded', f'{info.get("img_path")}: {in_words(problem)}')
        if refused == len(infos):
            self._lost('no image is used', f'{self.source.key}.pipeline refuses all {refused} images that were loaded')
        else:
            self.report.note(self.source.split, 'images refused by the pipeline', refused)

    def compare_loaded(
        self, info: Mapping[str, Any], results: Mapping[str, Any], counts: Sequence[tuple[Any, int]]
    ) -> None:
        """Reports differences between one image's entry and what was loaded.

        Args:
            info: The entry.
            results: What was loaded.
            counts: (transform, objects behind it) for each transform that ran.
        """
        said, loaded = (info.get('height'), info.get('width')), results.get('ori_shape', ())[:2]
        if None not in said and loaded and said != tuple(loaded):
            height, width = loaded
            self.report.error(
                Harm.WRONG,
                'image of another size',
                self.source.split,
                f'{info["img_path"]} is loaded with {width}x{height} pixels, the annotations say {said[1]}x{said[0]}: '
                'boxes and masks may lie beside the objects; write the size of the image as it is loaded (turned as '
                'EXIF says) and annotations in its pixels',
            )
        before = sum(not instance['ignore_flag'] for instance in info['instances'])
        for transform, after in counts:
            self._compare_counts(info, transform, before, after)
            before = after
        masks = results.get('gt_masks')
        if masks is not None and len(masks):
            self.report.note(
                self.source.split, 'masks without a pixel', int(np.count_nonzero(np.asarray(masks.areas) == 0))
            )

    def _compare_counts(self, info: Mapping[str, Any], transform: Any, before: int, after: int) -> None:
        """Objects that a loading transform ignores are lost; what others leave out is their purpose."""
        if after >= before:
            return
        name, lost = type(transform).__name__, before - after
        if any(base.__name__.startswith('Load') for base in type(transform).__mro__):
            self._lost(
                UNUSED,
                f'{lost} of {before} objects of {info.get("img_path")} are ignored by {name}: their masks are no '
                'polygons of three or more points and no run lengths',
                lost,
            )
        else:
            self.report.note(self.source.split, f'objects that {name} leaves out of the images loaded', lost)

    def labels(self) -> dict[str, int]:
        """The label of each class by its name, after :meth:`conservation`."""
        return {name: label for label, name in enumerate(self.classes)}

    def images(self) -> list[str]:
        """Paths of the images that the dataset uses, after :meth:`conservation`."""
        return self._images

    def oracle(self, labels: Mapping[str, int]) -> None:
        """Says that no truth can be read independently of the dataset class."""
        for evaluator in self.source.evaluators:
            self.leave_out_metric(evaluator)

    def leave_out_metric(self, metric: Mapping[str, Any], reason: str = '') -> None:
        """Says that a metric does not judge the truth, and why if it is not its kind."""
        self.report.leave_out(f'{metric.get("type")} on the truth of {self.source.key}' + (reason and f' ({reason})'))

    def _fails(self, kind: str, text: str) -> None:
        self.report.error(Harm.FAILS, kind, self.source.split, text)

    def _lost(self, kind: str, text: str, count: int = 1) -> None:
        self.report.error(Harm.LOST, kind, self.source.split, text, count)


def _objects_in(results: Mapping[str, Any]) -> int | None:
    """The number of objects that are not ignored; ``None`` before they are loaded."""
    flags = results.get('gt_ignore_flags')
    return None if flags is None else int(np.count_nonzero(~np.asarray(flags, bool)))
