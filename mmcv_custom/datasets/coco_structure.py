"""Layer 1 of the data check for COCO instances: what can be said of the file and its images alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmcv_custom.errors import UserError

from .coco import CocoFile
from .coco_boxes import check_boxes
from .coco_fields import is_id
from .coco_images import check_images
from .coco_masks import MASK_HARMS, MASK_REPAIRS
from .coco_rules import DEFAULT_RULES, CocoRules, check_categories, evaluates_file
from .report import LIMIT, Harm, Report
from .sources import Source


def check_structure(
    path: str,
    source: Source,
    report: Report,
    needs_masks: bool,
    classes: Sequence[str] | None,
    full: bool = False,
    rules: CocoRules = DEFAULT_RULES,
) -> CocoFile | None:
    """Checks an annotation file and its images.

    Args:
        path: The annotation file.
        source: The dataset that it belongs to.
        report: Takes what is found.
        needs_masks: Whether the dataset's pipeline or its metric uses masks.
        classes: ``metainfo.classes``, or the dataset class's own; ``None`` if it has none.
        full: Read the header of every image file.
        rules: How the dataset class reads the file.

    Returns:
        The file; ``None`` if it cannot be read as such.
    """
    try:
        file = CocoFile.read(path)
    except UserError as problem:
        report.error(Harm.FAILS, 'annotation file', source.split, f'{problem}; see {source.key}.ann_file')
        return None
    if not _check_lists(file, source, report):
        return file
    check_categories(file, source, report, classes, rules)
    _Annotations(file, source, report, classes, rules).check(needs_masks)
    check_images(file, source, report, needs_masks, rules, full)
    return file


def _check_lists(file: CocoFile, source: Source, report: Report) -> bool:
    """Whether the three lists are there, so that it makes sense to go on."""
    for name in ('images', 'categories'):
        if not getattr(file, name):
            is_so = 'has no list' if name in file.lacks else 'has an empty list'
            report.error(Harm.FAILS, 'annotation file', source.split, f'{file.path} {is_so} {name!r}')
    if not len(file) and source.split == 'test':
        report.note(source.split, 'files without annotations, whose metrics are -1')
    elif not len(file):
        is_so = 'has no list' if 'annotations' in file.lacks else 'has an empty list'
        text = f"{file.path} {is_so} 'annotations': there is no object to {_purpose(source)}"
        report.error(Harm.LOST, 'annotation file', source.split, text)
    return bool(file.images and file.categories)


def _purpose(source: Source) -> str:
    return 'train on' if source.split == 'train' else 'evaluate'


class _Annotations:
    """Checks the annotations of a file, by columns."""

    def __init__(
        self, file: CocoFile, source: Source, report: Report, classes: Sequence[str] | None, rules: CocoRules
    ) -> None:
        self.file, self.source, self.report = file, source, report
        ids = {category['id'] for category in rules.chosen(file, classes) if isinstance(category['id'], Hashable)}
        self.chosen = np.fromiter((i in ids for i in file.category_ids.tolist()), bool, len(file))

    def check(self, needs_masks: bool) -> None:
        """Runs all checks."""
        file, split = self.file, self.source.split
        self._check_fields()
        self._check_ids()
        self._check_references()
        used = check_boxes(file, self.source, self.report, self.chosen, self.errors)
        if needs_masks:
            self._check_masks(used if split == 'train' else self.chosen)
        left_out = (file.crowd | file.ignore)[self.chosen]
        if len(left_out) and left_out.all():
            text = f'{file.path}: all {len(left_out)} objects are marked iscrowd or ignore; there is none left to '
            self.report.error(Harm.LOST, 'only crowds', split, text + f'{_purpose(self.source)}; write "iscrowd": 0')

    def errors(self, harm: Harm, kind: str, rows: NDArray[np.int64], text: Callable[[int], str]) -> None:
        """Adds an error for each of some annotations; ``text`` explains one, from its row."""
        for i, row in enumerate(rows.tolist()):  # those beyond the limit are counted only
            line = f'{self.file.path}: annotation {self._name(row)}: {text(row)}' if i < LIMIT else ''
            self.report.error(harm, kind, self.source.split, line)

    def _name(self, row: int) -> str:
        identity = self.file.ids[row : row + 1].tolist()[0]
        return f'{identity!r}' if identity != -1 else f'at place {row}'

    def _check_fields(self) -> None:
        for kind, faults in _by_kind(self.file, lambda kind: kind not in MASK_HARMS).items():
            self.errors(Harm.FAILS, kind, np.array(list(faults), np.int64), faults.__getitem__)
        # mmdet reads it before it looks at the category.
        lacking = np.flatnonzero(~self.file.has_area & ~self.file.ignore & (self.file.image_rows >= 0))
        self.errors(Harm.FAILS, 'no area', lacking, lambda row: 'area is absent, which mmdet needs; --fix adds it')
        if evaluates_file(self.source, 'CocoMetric'):
            lacking = np.flatnonzero(~self.file.has_crowd & self.chosen)
            text = 'iscrowd is absent, which the COCO metric needs; --fix adds "iscrowd": 0'
            self.errors(Harm.FAILS, 'no iscrowd', lacking, lambda row: text)

    def _check_ids(self) -> None:
        ids = self.file.ids
        _, places, counts = np.unique(ids.astype(str) if ids.dtype == object else ids, True, return_counts=True)
        text = 'another annotation has the same id; ids must be unique, --fix numbers them anew'
        self.errors(Harm.FAILS, 'annotation id twice', np.sort(places[counts > 1]), lambda row: text)
        if ids.dtype == object:
            self.errors(
                Harm.FAILS,
                'annotation id',
                np.flatnonzero([isinstance(i, str) for i in ids.tolist()]),
                lambda row: 'its id is a string, expected a whole number; --fix numbers them anew',
            )
            return
        rows = np.flatnonzero((ids <= 0) & self.chosen)
        if not evaluates_file(self.source, 'CocoMetric', 'LVISMetric'):
            self.report.note(self.source.split, 'annotation ids below 1', len(rows))
        else:
            text = 'its id is below 1: COCO metrics take such an object for not found; --fix numbers them anew'
            self.errors(Harm.WRONG, 'annotation id below 1', rows, lambda row: text)

    def _check_references(self) -> None:
        file = self.file
        for key, ids, rows, items in (
            ('image_id', file.image_ids, file.image_rows, file.images),
            ('category_id', file.category_ids, file.category_rows, file.categories),
        ):
            texts = {str(item.get('id')): item.get('id') for item in items}

            def text(row: int, key: str = key, ids: NDArray[Any] = ids, texts: dict[str, Any] = texts) -> str:
                identity = ids[row : row + 1].tolist()[0]
                if str(identity) in texts:
                    other = type(texts[str(identity)]).__name__
                    return f'{key} is {identity!r}, a {type(identity).__name__}, and the list has it as a {other}'
                return f'no entry has the id {identity!r} that its {key} names'

            lost = (rows < 0) & np.array([i != -1 for i in ids.tolist()], bool)
            if key == 'category_id' and lost.any():
                self._check_shift()
            self.errors(Harm.LOST, f'unknown {key}', np.flatnonzero(lost), text)

    def _check_shift(self) -> None:
        """Ids of categories that all fit when 1 is added or taken away: those that are known mean other classes."""
        used = {identity for identity in self.file.category_ids.tolist() if identity != -1}
        known = {category['id'] for category in self.file.categories if is_id(category.get('id'))}
        if not all(type(identity) is int for identity in used | known):
            return
        if any({identity + step for identity in used} <= known for step in (1, -1)):
            text = f'the category_id of the objects are {min(used)} to {max(used)}, and the ids of the categories '
            text += f'{min(known)} to {max(known)}: off by one, so that objects get the class of a neighbour; '
            text += 'give the categories the ids that the objects name'
            self.report.error(Harm.WRONG, 'category_id off by one', self.source.split, f'{self.file.path}: {text}')

    def _check_masks(self, used: NDArray[np.bool_]) -> None:
        file, evaluated = self.file, self.source.split != 'train'
        for kind, faults in _by_kind(file, MASK_HARMS.__contains__).items():
            rows = np.array([row for row in faults if used[row]], np.int64)
            if (harm := MASK_HARMS[kind][evaluated]) is None:
                self.report.note(self.source.split, 'masks with a polygon of less than three points', len(rows))
            else:
                texts = {row: f'{text}; {MASK_REPAIRS[kind]}' for row, text in faults.items()}
                self.errors(harm, kind, rows, texts.__getitem__)
        sizes = np.append(file.sizes, [[np.nan, np.nan]], 0)[file.image_rows][:, ::-1]
        differs = (file.rle_sizes[:, 0] >= 0) & used & (sizes > 0).all(1) & (file.rle_sizes != sizes).any(1)
        self.errors(
            Harm.WRONG,
            'run lengths of another size',
            np.flatnonzero(differs),
            lambda row: (
                f'its run lengths are of a mask {_size(file.rle_sizes[row])} (height x width), '
                f'and its image is {_size(sizes[row])}; encode the mask again in the size of the image'
            ),
        )


def _size(size: NDArray[Any]) -> str:
    return 'x'.join(f'{length:g}' for length in size)


def _by_kind(file: CocoFile, wanted: Callable[[str], bool]) -> dict[str, dict[int, str]]:
    """The faults of a file: explanations by row, by kind."""
    found: dict[str, dict[int, str]] = {}
    for row, kind, text in file.faults:
        if wanted(kind):
            found.setdefault(kind, {})[row] = text
    return found
