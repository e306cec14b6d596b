"""The data check of datasets in the format of COCO."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmcv_custom.datasets import DATA_CHECKS, Harm, Source, silence
from mmcv_custom.datasets.coco import CocoFile
from mmcv_custom.datasets.coco_fix import fix_annotations
from mmcv_custom.datasets.coco_structure import CocoRules, check_structure
from mmcv_custom.datasets.images import MASKS, Header, read_header, sample
from mmcv_custom.errors import UserError
from mmcv_custom.texts import in_words, some

from .detection import UNUSED, DetectionCheck
from .objects import mask_box, match, median_iou, truth_of
from .oracle import Truth, Verdict, can_judge, judge

# Reasons why a dataset does not use an object.
NOT_FINITE = 'box not finite'
WRONG_SIZE = 'box outside of the size in the file, but inside of the image'
UNKNOWN = 'no known reason'
FAULTS = (NOT_FINITE, WRONG_SIZE, UNKNOWN)  # the other reasons are legitimate


@DATA_CHECKS.register_module(name='CocoDataset')
class CocoCheck(DetectionCheck):
    """Checks a dataset of a COCO JSON file, of LVIS too."""

    rules = CocoRules()

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._file: CocoFile | None = None

    def fix(self, folder: str) -> list[str]:
        """Writes a repaired annotation file. See the base class."""
        if not _is_here(self.source):
            return []
        return fix_annotations(self.source, folder, self.named_classes(), self.rules)

    @property
    def file(self) -> CocoFile:
        """The annotation file, read without the dataset class."""
        self._file = self._file or CocoFile.read(str(self.source.path('ann_file')))
        return self._file

    def structure(self) -> None:
        """Looks at all fields of the annotation file, and at the headers of the images."""
        if not _is_here(self.source):
            self.report.leave_out(f'annotation file of {self.source.key} (it is not on this machine)')
            return
        loads_masks = any(transform.get('with_mask') for transform in self.source.transforms())
        needs_masks = loads_masks or any('segm' in metric.get('metric', ()) for metric in self.source.evaluators)
        path = self.source.path('ann_file')
        if path is None:
            self._fails('annotation file', f'{self.source.key} names none; write ann_file')
            return
        self._file = check_structure(
            path, self.source, self.report, needs_masks, self.named_classes(), self.full, self.rules
        )

    def why_empty(self, dataset: Any) -> str:
        """The reason why a dataset has no image, in words."""
        names = [str(category.get('name')) for category in self.file.categories]
        return (
            f'no image of {self.file.path} is left by filter_cfg={self.source.cfg.get("filter_cfg")}; its categories '
            f'are {some(names)} and metainfo.classes {some(self.classes)}'
        )

    def conservation(self) -> None:
        """Builds the dataset and compares it with its file. See the base class."""
        if _is_here(self.source):
            super().conservation()

    def compare(self, dataset: Any, infos: Sequence[Mapping[str, Any]]) -> None:
        """Compares every object of the file with what the dataset made of it."""
        super().compare(dataset, infos)
        file = self.file
        labels, unknown = match(file, infos)
        used = labels >= 0
        self._compare_names(file, labels)
        reasons = self._reasons(file, dataset, infos)
        lost = Counter(reasons[~used].tolist())
        if unknown:
            self.report.note(self.source.split, f'objects that {self.source.cfg["type"]} changes or adds', unknown)
            lost[UNKNOWN] -= unknown
            if lost[UNKNOWN] <= 0:
                return  # which objects of the file they were, nobody can say
        causes = ', '.join(f'{count:,} {reason}' for reason, count in lost.most_common())
        total, kept = len(used), len(used) - sum(lost.values())
        if total and not kept:
            self._lost('no object is used', f'{file.path}: none of its {total} objects is used: {causes}', total)
            return
        for reason in FAULTS:
            if lost[reason]:
                row = np.flatnonzero(~used & (reasons == reason))[0]
                self._lost(
                    UNUSED,
                    f'{file.path}: {lost[reason]} of {total} objects are not used: {reason}, such as annotation '
                    f'{file.ids[row]} with bbox {file.boxes[row].tolist()}',
                    lost[reason],
                )
        self.report.note(
            self.source.split, f'{total - kept:,} of {total:,} objects are not used: {causes}', total - kept
        )

    def _compare_names(self, file: CocoFile, labels: NDArray[np.int64]) -> None:
        """Reports categories that are trained under the name of another one."""
        if isinstance(self.classes, str):
            self._wrong(
                f'metainfo.classes of {self.source.key} is the text {self.classes!r}, of which every letter is a '
                f'class; write ({self.classes!r},) with a comma'
            )
            return
        known, wrong = set(self.classes), []
        for row, category in enumerate(file.categories):
            name = category.get('name')
            for label in np.unique(labels[(file.category_rows == row) & (labels >= 0)]).tolist():
                shown = self.classes[label] if label < len(self.classes) else None
                if shown is None or (shown != name and name in known):
                    wrong.append(f'{name!r} gets label {label}, which they call {shown!r}')
        if wrong:
            self._wrong(
                f'{file.path}: {len(wrong)} categories have other names in metainfo.classes of {self.source.key}: '
                f'{wrong[0]}; name the categories of the file as metainfo.classes and sort them alike, which --fix does'
            )

    def _reasons(self, file: CocoFile, dataset: Any, infos: Sequence[Mapping[str, Any]]) -> NDArray[Any]:
        """(N,) why each object of the file may be left out; the first reason of several."""
        loaded = {info['img_id'] for info in infos}
        selected = getattr(dataset, 'cat2label', {})
        # One flag per image and category and a last one, for objects that have none.
        is_loaded = np.array([image.get('id') in loaded for image in file.images] + [False])
        is_selected = np.array([category.get('id') in selected for category in file.categories] + [False])
        sizes = np.concatenate([file.sizes, [[np.nan, np.nan]]])[file.image_rows]
        x, y, width, height = file.boxes.T
        with np.errstate(invalid='ignore'):
            outside = (x >= sizes[:, 0]) | (y >= sizes[:, 1]) | (x + width <= 0) | (y + height <= 0)
            narrow = (width < 1) | (height < 1)
        reasons = np.full(len(file), UNKNOWN, object)
        # The last one that is written is the first reason.
        reasons[~is_loaded[file.image_rows]] = 'image left out'
        reasons[file.areas <= 0] = 'area not positive'
        reasons[narrow] = 'narrower than a pixel'
        reasons[outside] = 'box outside of the image'
        reasons[self._inside_of_image(file, np.flatnonzero(outside))] = WRONG_SIZE
        reasons[~np.isfinite(file.boxes).all(1)] = NOT_FINITE
        reasons[file.crowd] = 'crowd'
        reasons[file.ignore] = 'flag "ignore"'
        reasons[~is_selected[file.category_rows]] = 'class not selected'
        return reasons

    def _inside_of_image(self, file: CocoFile, rows: NDArray[np.int64]) -> list[int]:
        """Those of some objects that lie inside of the image's file, of which the size is then wrong in the JSON."""
        folder = self.source.path('data_prefix', 'img') or str(self.source.cfg.get('data_root') or '')
        inside: list[int] = []
        headers: dict[int, Header | None] = {}
        for row in sample(rows.tolist(), MASKS):
            image_row = file.image_rows[row]
            if image_row not in headers:
                try:
                    headers[image_row] = read_header(os.path.join(folder, self.rules.file_name(file.images[image_row])))
                except (KeyError, ValueError):  # named where the image is loaded
                    headers[image_row] = None
            header = headers[image_row]
            x, y = file.boxes[row, :2] + file.boxes[row, 2:] / 2
            if header and 0 <= x < header.upright[0] and 0 <= y < header.upright[1]:
                inside.append(row)
        return inside

    def load(self, infos: Sequence[Mapping[str, Any]]) -> None:
        """Loads images, and compares the boxes of their objects with their masks."""
        super().load(infos)
        if not self.report.kinds(self.source.split):  # else they may be damaged
            self._compare_boxes_with_masks(truth_of(self.file, [info['img_id'] for info in infos], self.shapes))

    def _compare_boxes_with_masks(self, truth: Truth) -> None:
        """Reports boxes that are corners, or that lie elsewhere than the masks of the same objects."""
        found = [(box, annotation['bbox']) for annotation in truth.annotations if (box := mask_box(annotation))]
        if not found:
            return
        of_masks, boxes = np.array(found, np.float64).transpose(1, 0, 2)
        corners = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
        as_sizes, as_corners = (median_iou(of_masks, read) for read in (boxes, corners))
        if as_sizes < 0.8 < as_corners:
            self._wrong(
                f'{self.file.path}: bbox fits the masks if it is read as [x1, y1, x2, y2], median IoU {as_corners:.2f},'
                f' not as [x, y, width, height], {as_sizes:.2f}, which COCO files hold: write the latter',
                kind='boxes are corners',
            )
        elif as_sizes < 0.1:  # amodal boxes and crowds fit better than this
            self._wrong(
                f'{self.file.path}: boxes and masks of the same objects do not lie in the same place, median IoU '
                f'{as_sizes:.2f}: expected [x, y, width, height] and [x1, y1, x2, y2, ...], both in pixels of the '
                'image; are some divided by its size, or x and y exchanged?',
                kind='boxes beside masks',
            )
        elif as_sizes < 0.5:
            self.report.note(
                self.source.split, f'boxes that do not fit their masks, median IoU {as_sizes:.2f}', len(boxes)
            )

    def labels(self) -> dict[str, int]:
        """The label of each category by its name, as the built dataset gives it; none of files on other machines."""
        if not (self.source.is_local and _is_here(self.source)):
            return {}
        if self.mapping is None:  # the dataset was not built yet: its categories alone decide
            self.mapping = self._mapping_of_categories()
        categories = [category for category in self.file.categories if category['id'] in self.mapping]
        return {str(category['name']): self.mapping[category['id']] for category in categories}

    def _mapping_of_categories(self) -> Mapping[Any, int]:
        """The labels that the dataset class gives to the categories of the file, without its images."""
        categories = self.file.categories
        with TemporaryDirectory() as folder:
            file = Path(folder, 'categories.json')
            file.write_text(json.dumps({'images': [], 'annotations': [], 'categories': categories}))
            dataset = self.source.build(ann_file=str(file), pipeline=[], serialize_data=False, lazy_init=True)
            try:
                with silence():
                    dataset.full_init()
            except Exception as problem:  # what a dataset class raises on damaged data can be anything
                raise UserError(f'{self.file.path}: its categories cannot be read: {in_words(problem)}') from problem
        return dataset.cat2label

    def oracle(self, labels: Mapping[str, int]) -> None:
        """Judges the objects of the annotation file as predictions, with the metrics of the config."""
        if not (self.source.is_local and _is_here(self.source)):
            return  # said before
        for metric in self.source.evaluators:
            if not can_judge(metric):
                self.leave_out_metric(metric)
                continue
            if not _is_here(Source(self.source.split, f'{self.source.split}_evaluator', metric)):
                self.leave_out_metric(metric, 'its ann_file is not on this machine')
                continue
            try:
                self._judge(metric, labels)
            except Exception as problem:  # of any metric, on damaged data
                self._fails('truth cannot be evaluated', f'{self.source.path("ann_file")}: {in_words(problem)}')

    def _judge(self, metric: Mapping[str, Any], labels: Mapping[str, int]) -> None:
        predicted = self._truth(self.file)
        ids = [image['id'] for image in predicted.images]
        if not ids:
            self.leave_out_metric(metric, 'it has no objects')
            return
        judged_by = CocoFile.read(str(metric.get('ann_file') or self.file.path))
        truth = predicted if judged_by is self.file else truth_of(judged_by, ids, self.shapes)
        if len(truth.images) < len(ids):
            self.report.error(
                Harm.FAILS,
                'other images',
                self.source.split,
                f'{judged_by.path}, which {metric["type"]} reads, has {len(truth.images)} of the {len(ids)} images of '
                f'{self.file.path}, which {self.source.key} reads: name the same file in both',
            )
            return
        verdict = judge(metric, self.meta, truth, predicted, labels)
        for reason, count in verdict.limits.items():
            self.report.note(self.source.split, reason, count)
        if verdict.scores:
            self._report_loss(metric, verdict, truth, predicted, labels)

    def _report_loss(
        self,
        metric: Mapping[str, Any],
        verdict: Verdict,
        truth: Truth,
        predicted: Truth,
        labels: Mapping[str, int],
    ) -> None:
        scores = ', '.join(f'{name} {score:.3f}' for name, score in verdict.scores.items())
        worst = sorted(verdict.classes.items(), key=lambda item: item[1])
        classes = some([f'{name} {score:.3f}' for name, score in worst], show=str)
        images = [
            str(image.get('file_name', image['id']))
            for image in truth.images
            if judge(metric, self.meta, truth.only(image['id']), predicted.only(image['id']), labels).scores
        ]
        self._wrong(
            f'{self.file.path}: its own objects as predictions reach {scores} in {metric["type"]}, expected 1.0, so no '
            f'model can do better; classes that lose: {classes}; images: {some(images, show=str)}; compare their ids, '
            f'categories, sizes and masks with {metric.get("ann_file")}',
            kind='truth is not reached',
        )

    def _truth(self, file: CocoFile) -> Truth:
        """A sample of images with objects, those that were loaded first of all."""
        with_objects = {file.image_ids[row] for row in np.flatnonzero(~file.crowd)}
        ids = [image['id'] for image in file.images if image['id'] in with_objects]
        ids = [image_id for image_id in ids if image_id in self.shapes] or ids
        return truth_of(file, sample(ids, MASKS), self.shapes)

    def _wrong(self, text: str, kind: str = 'names of classes') -> None:
        self.report.error(Harm.WRONG, kind, self.source.split, text)


def _is_here(source: Source) -> bool:
    """Whether the annotation file is on this machine, or should be."""
    path = source.path('ann_file') or ''
    return os.path.exists(path) or (source.is_local and '://' not in path)
