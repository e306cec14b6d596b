"""Repairs COCO files where there is one right answer."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np

from mmcv_custom.errors import UserError

from .coco_boxes import SHARES, meaning_of
from .coco_fields import is_box, is_id, is_number
from .coco_images import ignores_orientation
from .coco_masks import is_good_part, mask_area, mask_faults, rle_size
from .coco_rules import DEFAULT_RULES, CocoRules, evaluates_file, same_letters
from .image_folder import ImageFolder
from .images import Header, read_header
from .sources import Source

Item = dict[str, Any]


def fix_annotations(
    source: Source, out_dir: str, classes: Sequence[str] | None, rules: CocoRules = DEFAULT_RULES
) -> list[str]:
    """Writes a repaired copy of a dataset's annotation file. The original stays as it is.

    Args:
        source: The dataset.
        out_dir: The copy goes there, named after the dataset's place in the config.
        classes: ``metainfo.classes``, or the dataset class's own; ``None`` if it has none.
        rules: How the dataset class reads the file.

    Returns:
        What was changed and the lines of the config that use the copy, or why nothing was written; nothing if there is
        nothing to repair. One line each.

    Raises:
        UserError: The copy exists.
    """
    path = str(source.path('ann_file'))
    try:
        repair = _Repair(path, source, rules)
    except (OSError, ValueError) as problem:
        return [f'{source.key}: {path} is left as it is: {problem}']
    repair.run(classes)
    if not repair.changes:
        return []
    target = Path(out_dir, f'{source.key}.json').absolute()
    if target.exists():
        raise UserError(f'{target} exists: name a new folder for the repaired annotations')
    target.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile('w', dir=target.parent, prefix='.', suffix='.json', delete=False) as draft:
        json.dump(repair.data, draft)
    os.replace(draft.name, target)  # it gets its name when it is whole
    changed = ', '.join(f'{count:,} {change}' for change, count in repair.changes.items())
    return [f'{source.key}: {target} is written; repaired: {changed}', *_config_lines(source, path, str(target))]


def _config_lines(source: Source, path: str, target: str) -> Iterator[str]:
    yield f'{source.key}.ann_file={target!r}'
    for i, metric in enumerate(source.evaluators):
        if (judged_by := metric.get('ann_file')) and os.path.realpath(judged_by) == os.path.realpath(path):
            place = f'.{i}' if len(source.evaluators) > 1 else ''
            yield f'{source.split}_evaluator{place}.ann_file={target!r}'


class _Repair:
    """Repairs the content of an annotation file and counts what it changes.

    Raises:
        ValueError: It is not a JSON mapping with the three lists.
    """

    def __init__(self, path: str, source: Source, rules: CocoRules) -> None:
        content = Path(path).read_bytes()
        self.changes: Counter[str] = Counter()
        self.changes['byte order mark'] += content.startswith(b'\xef\xbb\xbf')
        self.data = json.loads(content.decode('utf-8-sig'))
        self.images, self.annotations, self.categories = map(self._list, ('images', 'annotations', 'categories'))
        self.source, self.rules = source, rules
        self.evaluated = source.split != 'train'
        self.stored = ignores_orientation(source)

    def _list(self, name: str) -> list[Item]:
        items = self.data.get(name) if isinstance(self.data, dict) else None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise ValueError(f'it has no list {name!r} of mappings')
        for key in ('id', 'image_id', 'category_id'):
            for i, item in enumerate(items):
                if isinstance(item.get(key), list | dict):
                    raise ValueError(f'{name}[{i}] has the {key} {item[key]!r:.40}')
        return items

    def run(self, classes: Sequence[str] | None) -> None:
        """Makes all repairs. Later ones build on earlier ones."""
        self._references('image_id', self.images)
        self._references('category_id', self.categories)
        root = self.source.path('data_prefix', 'img')
        if self.source.is_local and root is not None:
            self._image_files(ImageFolder(root))
        self._masks()
        self._boxes()
        self._flags_and_areas()
        self._ids()
        if not self.rules.sorted_ids:  # else labels follow the ids of the categories
            if classes is not None and not isinstance(classes, str) and self.rules.by_name:
                self._categories(classes)
            self._category_ids()
        self.changes = +self.changes  # without zeros

    def _references(self, key: str, items: list[Item]) -> None:
        """Writes ids of images and categories as their lists have them: 7 for '7' and the reverse."""
        ids = {item['id'] for item in items if is_id(item.get('id'))}
        of_text = {str(identity): identity for identity in ids}
        for annotation in self.annotations:
            identity = annotation.get(key)
            if is_id(identity) and identity not in ids and str(identity) in of_text:
                annotation[key] = of_text[str(identity)]
                self.changes[f'{key} of another type'] += 1

    def _image_files(self, folder: ImageFolder) -> None:
        turned: list[tuple[Item, tuple[int, int]]] = []
        exchanged: list[tuple[Item, tuple[int, int]]] = []
        as_said = 0  # images of which the size in the file is right, but for squares
        for image in self.images:
            try:
                name = self.rules.file_name(image)
            except KeyError:
                continue
            if not isinstance(name, str):
                continue
            if not folder.has(name) and name == image.get('file_name') and (found := folder.find(name)):
                image['file_name'] = name = found[0]
                self.changes['names of images'] += 1
            try:
                header = read_header(os.path.join(folder.root, name))
            except ValueError:
                continue
            size = self._loaded(header)
            said = image.get('width'), image.get('height')
            if not all(type(length) is int and length > 0 for length in said):
                image['width'], image['height'] = size
                self.changes['sizes of images'] += 1
            elif said == size:
                as_said += size[0] != size[1]
            elif said == size[::-1]:
                (turned if header.orientation >= 5 else exchanged).append((image, size))
        if exchanged and not as_said and self._fits(exchanged)[1] == 0:
            for image, size in exchanged:
                image['width'], image['height'] = size
                self.changes['exchanged widths and heights of images'] += 1
        if turned and self._are_upright(turned):
            for image, size in turned:
                image['width'], image['height'] = size
                self.changes['sizes of images that EXIF turns'] += 1

    def _loaded(self, header: Header) -> tuple[int, int]:
        return (header.width, header.height) if self.stored else header.upright

    def _are_upright(self, turned: list[tuple[Item, tuple[int, int]]]) -> bool:
        """Whether boxes and masks fit only the sizes with which images are loaded, not those in the file."""
        loaded, said = self._fits(turned)
        return loaded > 0 and said == 0

    def _fits(self, turned: list[tuple[Item, tuple[int, int]]]) -> tuple[int, int]:
        """Number of objects that fit only the size of the loaded image, and only the size with the sides exchanged."""
        of_image = defaultdict(list)
        for annotation in self.annotations:
            if is_box(annotation.get('bbox')):
                of_image[annotation.get('image_id')].append(annotation)
        loaded = said = 0
        for image, (width, height) in turned:
            for annotation in of_image[image.get('id')]:
                x, y, w, h = annotation['bbox']
                fits = [
                    x + w <= right + 1 and y + h <= bottom + 1 for right, bottom in ((width, height), (height, width))
                ]
                if (size := rle_size(annotation.get('segmentation'))) != (-1, -1):
                    fits = [size == (height, width), size == (width, height)]
                loaded += fits == [True, False]
                said += fits == [False, True]
        return loaded, said

    def _masks(self) -> None:
        for annotation in self.annotations:
            mask: Any = annotation.get('segmentation')
            kinds = {kind for _, kind, _ in mask_faults([mask])} if isinstance(mask, list) else set()
            if 'mask is a flat list' in kinds and is_good_part(mask):
                annotation['segmentation'] = [mask]
                self.changes['masks that are a flat list'] += 1
            elif 'short polygon first' in kinds and self.evaluated:
                annotation['segmentation'] = [part for part in mask if is_good_part(part)]
                self.changes['polygons of less than three points'] += len(mask) - len(annotation['segmentation'])

    def _boxes(self) -> None:
        """Corners and shares of the image become x, y, width and height in pixels."""
        sizes = {image.get('id'): (image.get('width'), image.get('height')) for image in self.images}
        placed: list[tuple[Item, Any]] = []
        for annotation in self.annotations:
            box, size = annotation.get('bbox'), sizes.get(annotation.get('image_id'), (None, None))
            if is_box(box) and np.isfinite(box).all() and all(is_number(length) and length > 0 for length in size):
                placed.append((annotation, size))
        if not placed:
            return
        boxes = np.array([annotation['bbox'] for annotation, _ in placed], np.float64)
        lengths = np.array([size for _, size in placed], np.float64)
        meaning = meaning_of(boxes, lengths)
        if meaning is None:
            return
        if meaning == SHARES:
            boxes *= np.hstack([lengths, lengths])
        else:
            boxes[:, 2:] -= boxes[:, :2]
        for (annotation, _), box in zip(placed, boxes.tolist(), strict=True):
            annotation['bbox'] = box
        self.changes[f'boxes that were {meaning}'] += len(placed)

    def _flags_and_areas(self) -> None:
        areas = [annotation.get('area') for annotation in self.annotations]
        all_empty = all(not is_number(area) or not area > 0 for area in areas)
        needs_crowd = evaluates_file(self.source, 'CocoMetric')
        for annotation, area in zip(self.annotations, areas, strict=True):
            if needs_crowd and annotation.get('iscrowd') is None:
                annotation['iscrowd'] = 0
                self.changes['iscrowd'] += 1
            mask, box = annotation.get('segmentation'), annotation.get('bbox')
            if is_number(area) and np.isfinite(area) and not all_empty:
                continue
            if mask and not any(mask_faults([mask])):
                annotation['area'] = mask_area(mask)
            elif is_box(box):
                annotation['area'] = box[2] * box[3]
            self.changes['areas'] += annotation.get('area') != area

    def _ids(self) -> None:
        """Numbers the annotations from 1 on if one of their ids is wrong."""
        ids = [annotation.get('id') for annotation in self.annotations]
        lowest = 1 if evaluates_file(self.source, 'CocoMetric', 'LVISMetric') else -np.inf
        if all(type(identity) is int and identity >= lowest for identity in ids) and len(set(ids)) == len(ids):
            return
        for number, annotation in enumerate(self.annotations, 1):
            annotation['id'] = number
        self.changes['ids of annotations'] += len(ids)

    def _categories(self, classes: Sequence[str]) -> None:
        """Spells and orders the categories as the classes of the config."""
        names = [str(category.get('name')) for category in self.categories]
        for missing in [name for name in dict.fromkeys(classes) if name not in names]:
            same = [
                c
                for c in self.categories
                if str(c.get('name')) not in classes and same_letters(missing, str(c.get('name')))
            ]
            if len(same) == 1:
                same[0]['name'] = missing
                self.changes['names of categories'] += 1
            elif self._can_add(classes, names):
                numbers = [category['id'] for category in self.categories]
                self.categories.append(dict(id=max(numbers) + 1, name=missing))
                self.changes['categories without objects added'] += 1
        place = {name: i for i, name in enumerate(classes)}
        order = sorted(self.categories, key=lambda category: place.get(str(category.get('name')), len(place)))
        chosen = [category for category in self.categories if str(category.get('name')) in place]
        if chosen != order[: len(chosen)]:
            self.categories[:] = order
            self.changes['categories in another order'] += len(order)

    def _can_add(self, classes: Sequence[str], names: Sequence[str]) -> bool:
        """Whether a class that is missing in a file to evaluate has no objects there, and not another name or id."""
        ids = {category.get('id') for category in self.categories}
        return (
            self.evaluated
            and set(names) < set(classes)
            and all(type(identity) is int for identity in ids)
            and all(annotation.get('category_id') in ids for annotation in self.annotations)
        )

    def _category_ids(self) -> None:
        """Numbers the categories if the metric fails on ids that are strings: as these say, else sorted by name.

        Splits with the same categories get the same numbers, and labels stay: they follow the order in the file.
        """
        ids = [category.get('id') for category in self.categories]
        names = [str(category.get('name')) for category in self.categories]
        if not evaluates_file(self.source, 'CocoMetric', classwise=True) or not any(isinstance(i, str) for i in ids):
            return
        if not all(map(is_id, ids)) or len(set(ids)) < len(ids) or len(set(names)) < len(names):
            return  # there is no one right answer
        numbers = [int(text) if (text := str(identity)).isdecimal() else None for identity in ids]
        if None in numbers or len(set(numbers)) < len(numbers):
            place = {name: number for number, name in enumerate(sorted(names), 1)}
            numbers = [place[name] for name in names]
        new = dict(zip(ids, numbers, strict=True))
        for category in self.categories:
            category['id'] = new[category['id']]
        for annotation in self.annotations:
            if is_id(annotation.get('category_id')):
                annotation['category_id'] = new.get(annotation['category_id'], annotation['category_id'])
        self.changes['ids of categories'] += len(ids)
