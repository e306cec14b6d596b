"""The data check of detection datasets: what a dataset and its loading transforms make of the annotations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

import numpy as np
from mmengine.registry import DATASETS

from mmcv_custom.datasets import DATA_CHECKS, DatasetCheck, Harm, class_of, silence
from mmcv_custom.datasets.contexts import no_garbage_collection
from mmcv_custom.datasets.images import MASKS, sample
from mmcv_custom.datasets.loading import Loading

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
        self._images = [info['img_path'] for info in infos if 'img_path' in info]
        self.report.contents[self.source.split]['images'] += len(infos)
        if not infos:
            self._lost('no image is used', f'{self.source.key}: {self.why_empty(dataset)}')
            return
        self.compare(dataset, infos)
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
        """Counts the objects of each class."""
        labels = Counter(
            instance['bbox_label'] for info in infos for instance in info['instances'] if not instance['ignore_flag']
        )
        self.count_classes(labels)

    def count_classes(self, labels: Mapping[int, int]) -> None:
        """Reports objects by label: how many there are, and classes without any."""
        split = self.source.split
        self.report.contents[split]['objects'] += sum(labels.values())
        without = [name for label, name in enumerate(self.classes) if not labels.get(label)]
        self.report.note(split, 'classes without objects', len(without))

    def load(self, infos: Sequence[Mapping[str, Any]]) -> None:
        """Loads images with the pipeline of the config, up to its first random transform."""
        pipeline = self.source.build(lazy_init=True).pipeline.transforms
        loading = Loading(pipeline)
        for info in infos:
            name = info.get('img_path')
            try:
                results = loading(info)
            except Exception as problem:  # of any transform, on damaged data
                self._fails('image cannot be loaded', f'{name}: {in_words(problem)}')
                continue
            if results is None:
                self.report.note(self.source.split, 'images refused by the pipeline')
                continue
            if 'ori_shape' in results:
                self.shapes[info['img_id']] = results['ori_shape'][:2]
            self.compare_loaded(info, results)

    def compare_loaded(self, info: Mapping[str, Any], results: Mapping[str, Any]) -> None:
        """Reports differences between one image's entry and what was loaded."""
        height, width = results.get('ori_shape', (info['height'], info['width']))[:2]
        if (info['height'], info['width']) != (height, width):
            self.report.error(
                Harm.WRONG,
                'image of another size',
                self.source.split,
                f'{info["img_path"]} is loaded with {width}x{height} pixels, the annotations say '
                f'{info["width"]}x{info["height"]}: boxes and masks may lie beside the objects; write the size of the '
                'image as it is loaded (turned as EXIF says) and annotations in its pixels',
            )
        before = sum(not instance['ignore_flag'] for instance in info['instances'])
        flags = results.get('gt_ignore_flags')
        if flags is not None and (lost := before - int(np.count_nonzero(~np.asarray(flags, bool)))):
            self._lost(
                UNUSED,
                f'{lost} of {before} objects of {info["img_path"]} are ignored when it is loaded: their masks are no '
                'polygons of three or more points and no run lengths',
                lost,
            )
        masks = results.get('gt_masks')
        if masks is not None and len(masks):
            self.report.note(
                self.source.split, 'masks without a pixel', int(np.count_nonzero(np.asarray(masks.areas) == 0))
            )

    def labels(self) -> dict[str, int]:
        """The label of each class by its name, after :meth:`conservation`."""
        return {name: label for label, name in enumerate(self.classes)}

    def images(self) -> list[str]:
        """Paths of the images that the dataset uses, after :meth:`conservation`."""
        return self._images

    def oracle(self, train: DatasetCheck | None) -> None:
        """Says that no truth can be read independently of the dataset class."""
        for evaluator in self.source.evaluators:
            self.report.leave_out(f'{evaluator.get("type")} on the truth of {self.source.key}')

    def _fails(self, kind: str, text: str) -> None:
        self.report.error(Harm.FAILS, kind, self.source.split, text)

    def _lost(self, kind: str, text: str, count: int = 1) -> None:
        self.report.error(Harm.LOST, kind, self.source.split, text, count)


def in_words(problem: Exception) -> str:
    """Type and text of an exception, shortened."""
    return shorten(f'{type(problem).__name__}: {problem}', 300, placeholder=' ...')
