"""Reads COCO instances by itself, without mmdet or pycocotools, and large files in little memory."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from functools import cached_property
from itertools import repeat
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from mmcv_custom.errors import UserError

from .coco_fields import is_box, is_flag, is_id, is_number, number_or_nan
from .coco_masks import mask_faults, rle_size
from .contexts import no_garbage_collection
from .json_stream import JsonMembers, decode

BLOCK = 4096  # annotations that are looked at together
_LISTS = ('images', 'annotations', 'categories')


class Fault(NamedTuple):
    """What is wrong with an annotation.

    Attributes:
        row: Its place in the list of annotations.
        kind: ``'annotation'`` followed by what is wrong with its fields, or a kind of ``MASK_HARMS``.
        text: An explanation such as ``'bbox is [1, 2], expected [x, y, width, height]'``.
    """

    row: int
    kind: str
    text: str


class CocoFile:
    """A JSON file of COCO instances.

    Only the columns of the annotations are kept, with defaults for what is absent or malformed; ``annotations_of``
    reads the rest again. M images and N annotations:

    Attributes:
        path: The file.
        images, categories: Its lists of mappings.
        ids, image_ids, category_ids: (N,) of int64, or of objects if some are strings. Default -1.
        boxes: (N, 4) float64 x, y, width and height in pixels. Default 0.
        has_box: (N,) bool: whether the file has a readable box.
        areas: (N,) float64 in square pixels. Default width * height of the box.
        crowd, ignore: (N,) bool: the flags ``iscrowd`` and ``ignore``. Default false.
        has_area, has_crowd: (N,) bool: whether the file has them.
        rle_sizes: (N, 2) height and width that run lengths name; -1 for other masks.
        lacks: Which of the three lists the file does not have.
        faults: What is wrong with annotations.

    Raises:
        UserError: It is no such file.
    """

    ids: NDArray[Any]
    image_ids: NDArray[Any]
    category_ids: NDArray[Any]
    boxes: NDArray[np.float64]
    has_box: NDArray[np.bool_]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    ignore: NDArray[np.bool_]
    has_area: NDArray[np.bool_]
    has_crowd: NDArray[np.bool_]
    rle_sizes: NDArray[np.int64]

    def __init__(self, path: str) -> None:
        self.path = path
        self.images: list[dict[str, Any]] = []
        self.categories: list[dict[str, Any]] = []
        self.faults: list[Fault] = []
        self._positions = array('q')  # of the annotations, in characters
        with no_garbage_collection():
            found = self._read(_text(path))
        self.lacks = [name for name in _LISTS if name not in found]

    _read_before: WeakValueDictionary[tuple[str, int, int], CocoFile] = WeakValueDictionary()

    @classmethod
    def read(cls, path: str) -> CocoFile:
        """The file; the same object as before if it has not changed and is still in use."""
        try:
            state = os.stat(path)
        except OSError:
            return cls(path)  # raises the error
        key = os.path.realpath(path), state.st_size, state.st_mtime_ns
        file = cls._read_before.get(key)
        if file is None:
            file = cls._read_before[key] = cls(path)
        return file

    def __len__(self) -> int:
        """Number of annotations."""
        return len(self.ids)

    @cached_property
    def image_rows(self) -> NDArray[np.int64]:
        """(N,) place in ``images`` of each annotation's image; -1 if there is none."""
        return _rows_of(self.image_ids, self.images)

    @cached_property
    def category_rows(self) -> NDArray[np.int64]:
        """(N,) place in ``categories`` of each annotation's category; -1 if there is none."""
        return _rows_of(self.category_ids, self.categories)

    @cached_property
    def sizes(self) -> NDArray[np.float64]:
        """(M, 2) width and height of the images; NaN where the file has none."""
        numbers = [number_or_nan(image.get(key)) for image in self.images for key in ('width', 'height')]
        return np.array(numbers, np.float64).reshape(-1, 2)

    def annotations_of(self, image_ids: Collection[Hashable]) -> list[dict[str, Any]]:
        """Annotations of some images as they stand in the file, which is read again."""
        wanted = set(image_ids)
        rows = [row for row, image in enumerate(self.image_ids.tolist()) if image in wanted]
        text = _text(self.path)
        return [decode(text, self._positions[row]) for row in rows]

    def _read(self, text: str) -> set[str]:
        found: set[str] = set()
        blocks: list[dict[str, Any]] = []
        try:
            for key, items in JsonMembers(text):
                if key in _LISTS and not isinstance(items, Iterator):
                    raise UserError(f'{self.path}: {key} is {items!r:.40}, expected a list')
                if key in found and key in _LISTS:
                    raise UserError(f'{self.path} has the list {key!r} twice; keep one')
                found.add(key)
                if key == 'annotations':
                    blocks = list(self._blocks(items))
                elif key in _LISTS:
                    setattr(self, key, [self._mapping(key, i, item) for i, (item, _) in enumerate(items)])
        except (ValueError, RecursionError) as problem:
            start = text[:30]
            raise UserError(f'{self.path} is no JSON file, or cut short: {problem}. It begins with {start!r}') from None
        columns = blocks or [self._columns([], 0)]
        for name in columns[0]:
            setattr(self, name, np.concatenate([block[name] for block in columns]))
        return found

    def _mapping(self, key: str, row: int, item: Any) -> dict[str, Any]:
        if not isinstance(item, dict):
            raise UserError(f'{self.path}: {key}[{row}] is {item!r:.40}, expected a mapping')
        return item

    def _blocks(self, items: Iterator[tuple[Any, int]]) -> Iterator[dict[str, Any]]:
        block: list[dict[str, Any]] = []
        for item, position in items:
            block.append(self._mapping('annotations', len(self._positions), item))
            self._positions.append(position)
            if len(block) == BLOCK:
                yield self._columns(block, len(self._positions) - BLOCK)
                block.clear()
        yield self._columns(block, len(self._positions) - len(block))

    def _columns(self, block: list[dict[str, Any]], first: int) -> dict[str, Any]:
        """The columns of some annotations, of which the first has the row ``first``."""

        def column(key: str, good: Callable[[Any], bool], default: Any, expected: str, required: bool = True) -> list:
            values = [annotation.get(key) for annotation in block]
            for i, value in enumerate(values):
                if not good(value):
                    if required or value is not None:
                        self.faults.append(Fault(first + i, f'annotation {key}', f'{key} {_is(value)}, {expected}'))
                    values[i] = default
            return values

        masks = [annotation.get('segmentation') for annotation in block]
        self.faults.extend(Fault(first + i, kind, text) for i, kind, text in mask_faults(masks))
        boxes = np.array(column('bbox', is_box, (0, 0, 0, 0), 'expected [x, y, width, height]'), np.float64)
        boxes = boxes.reshape(-1, 4)
        areas = column('area', is_number, None, 'expected a number', required=False)
        known = np.array([area is not None for area in areas], bool)
        with np.errstate(over='ignore', invalid='ignore'):
            of_boxes = boxes[:, 2] * boxes[:, 3]
        return dict(
            ids=_ids(column('id', is_id, -1, 'expected a whole number')),
            image_ids=_ids(column('image_id', is_id, -1, 'expected the id of an image')),
            category_ids=_ids(column('category_id', is_id, -1, 'expected the id of a category')),
            boxes=boxes,
            has_box=np.array([is_box(annotation.get('bbox')) for annotation in block], bool),
            areas=np.where(known, np.array(areas, np.float64), of_boxes),
            crowd=np.array(column('iscrowd', is_flag, 0, 'expected 0 or 1', required=False), bool),
            ignore=np.array(column('ignore', is_flag, 0, 'expected 0 or 1', required=False), bool),
            has_area=np.array([annotation.get('area') is not None for annotation in block], bool),
            has_crowd=np.array([annotation.get('iscrowd') is not None for annotation in block], bool),
            rle_sizes=np.array([rle_size(mask) for mask in masks], np.int64).reshape(-1, 2),
        )


def _is(value: Any) -> str:
    return 'is absent' if value is None else f'is {value!r:.40}'


def _ids(values: list[Any]) -> NDArray[Any]:
    """Ids as int64, or as objects if some are strings or larger."""
    if all(type(value) is not str and abs(value) < 2**63 for value in values):
        return np.array(values, np.int64)
    array_ = np.empty(len(values), object)
    array_[:] = values
    return array_


def _rows_of(ids: NDArray[Any], items: Sequence[dict[str, Any]]) -> NDArray[np.int64]:
    rows = {item.get('id'): row for row, item in enumerate(items) if isinstance(item.get('id'), Hashable)}
    return np.fromiter(map(rows.get, ids.tolist(), repeat(-1)), np.int64, len(ids))


def _text(path: str) -> str:
    try:
        with open(path, 'rb') as file:
            return file.read().decode()
    except UnicodeDecodeError as problem:
        raise UserError(f'{path} is no JSON file in UTF-8: {problem}') from None
    except OSError as problem:
        raise UserError(f'cannot read {path}: {problem.strerror}') from None
