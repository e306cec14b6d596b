"""Datasets in the COCO format, for detectors."""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from ..cli import did_you_mean
from ..errors import UserError
from .data import Data, Split, tidy


def read_instances(paths: Mapping[str, tuple[str, str]], wanted: Sequence[str] | None = None) -> Data:
    """A dataset of COCO JSON files.

    mmdet numbers the classes in the order of ``categories`` in the file, whatever the order of ``metainfo.classes`` is.
    The names are therefore written in that order, which must be the same in all splits.

    Args:
        paths: Folder of the images and annotation file of each split.
        wanted: The categories to use; default all.

    Raises:
        UserError: A file is no COCO file, categories are ambiguous, differ between the splits or have no object, or no
            image exists.
    """
    files = {split: _read(split, *pair) for split, pair in paths.items()}
    names = {split: _category_names(paths[split][1], content) for split, content in files.items()}
    train_file = paths['train'][1]
    classes = _select(names['train'], wanted, train_file)
    for split in files:
        _compare(classes, names['train'], names[split], wanted, train_file, paths[split][1])
    notes: list[str] = []
    if wanted and list(wanted) != classes:
        notes.append(f'the classes are in the order of {train_file}: mmdet numbers them in that order')
    _check_objects(files, paths, classes, wanted, notes)
    sizes = [
        (image['height'], image['width'])
        for image in files['train']['images']
        if all(isinstance(image.get(key), int) and image[key] > 0 for key in ('height', 'width'))
    ]
    empty = len(files['train']['images']) - len({entry.get('image_id') for entry in files['train']['annotations']})
    if empty > 0:
        notes.append(
            f'{empty} training images without an object are not used; filter_cfg=dict(filter_empty_gt=False) in the '
            'training dataset keeps them'
        )
    return Data(
        splits={
            split: Split(tidy(images), tidy(file), len(files[split]['images']))
            for split, (images, file) in paths.items()
        },
        classes=tuple(classes),
        size=(int(median(h for h, _ in sizes)), int(median(w for _, w in sizes))) if sizes else None,
        smallest=min(map(min, sizes)) if sizes else None,
        has_masks=any(entry.get('segmentation') for entry in files['train']['annotations']),
        notes=notes,
    )


def _read(split: str, images: str, path: str) -> dict[str, Any]:
    if not os.path.isdir(os.path.expanduser(images)):
        raise UserError(f'--{split} {images}: there is no such folder of images')
    if os.path.isdir(os.path.expanduser(path)):
        raise UserError(f'--{split} {path}: a detector needs a COCO JSON file, and this is a folder')
    try:
        with open(os.path.expanduser(path), encoding='utf-8') as file:
            content = json.load(file)
    except OSError as problem:
        raise UserError(f'--{split} {path}: cannot read the annotation file: {problem.strerror}') from problem
    except ValueError as problem:  # no JSON, or no text
        raise UserError(f'--{split} {path}: expected a COCO JSON file: {problem}') from problem
    for key in ('images', 'annotations', 'categories'):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(f'{path}: a COCO JSON file has a list of objects under {key!r}, and this one has none')
    if not content['images']:
        raise UserError(f'{path}: there is no image in it')
    names = [str(image.get('file_name')) for image in content['images']]
    folder = os.path.expanduser(images)
    if not any(os.path.exists(os.path.join(folder, name)) for name in names):
        raise UserError(
            f'--{split} {images}: none of the {len(names)} images of {path} is there, such as '
            f'{os.path.join(images, names[0])}; name the folder that their file_name begins in'
        )
    return content


def _category_names(path: str, content: Mapping[str, Any]) -> list[str]:
    """The names of the categories, in the order of the file."""
    categories = content['categories']
    for key in ('id', 'name'):
        values = [category.get(key) for category in categories]
        strange = next((value for value in values if not isinstance(value, str if key == 'name' else int)), None)
        if strange is not None or None in values:
            raise UserError(
                f'{path}: the {key} of a category must be {"a text" if key == "name" else "an int"}, got {strange!r}'
            )
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise UserError(
                f'{path}: {len(twice)} {key}s belong to several categories, such as {twice[0]!r}; each needs its own'
            )
    if not categories:
        raise UserError(f'{path}: there is no category in it')
    return [category['name'] for category in categories]


def _select(names: list[str], wanted: Sequence[str] | None, path: str) -> list[str]:
    for name in wanted or ():
        if name not in names:
            raise UserError(f'--classes {name}: {path} has no such category{did_you_mean(name, names)}')
    return [name for name in names if wanted is None or name in wanted]


def _compare(
    classes: list[str], train: list[str], other: list[str], wanted: Sequence[str] | None, train_file: str, file: str
) -> None:
    """Two files must give a class the same label."""
    for name in classes:
        if name not in other:
            raise UserError(f'{file}: the category {name!r} of {train_file} is missing; the splits need the same')
    if wanted is None:
        for name in other:
            if name not in train:
                raise UserError(
                    f'{file}: the category {name!r} is not in {train_file}; --classes names those that both have'
                )
    label, (ours, theirs) = next(
        (
            (label, pair)
            for label, pair in enumerate(zip(classes, [name for name in other if name in classes], strict=True))
            if pair[0] != pair[1]
        ),
        (0, ('', '')),
    )
    if ours != theirs:
        raise UserError(
            f'{file}: its categories are in another order than those of {train_file}: label {label} would be {ours!r} '
            f'in training and {theirs!r} here; write them in one order'
        )


def _check_objects(
    files: Mapping[str, dict[str, Any]],
    paths: Mapping[str, tuple[str, str]],
    classes: list[str],
    wanted: Sequence[str] | None,
    notes: list[str],
) -> None:
    """Classes without an object in training are refused unless they were asked for; elsewhere they are noted."""
    for split, content in files.items():
        counts = Counter(entry.get('category_id') for entry in content['annotations'])
        names = {category['id']: category['name'] for category in content['categories']}
        with_objects = {names.get(identity) for identity in counts}
        without = [name for name in classes if name not in with_objects]
        if len(without) == len(classes):
            raise UserError(f'{paths[split][1]}: there is no object of any class in it')
        if without and split == 'train' and wanted is None:
            rest = [name for name in classes if name in with_objects]
            proposed = ' '.join(map(shlex.quote, rest)) if len(rest) <= 20 else 'FILE, with a name per line,'
            raise UserError(
                f'{paths[split][1]}: {_some(without)} no object; --classes {proposed} leaves out what has none, '
                'or names all to keep them'
            )
        if without:
            notes.append(f'{paths[split][1]}: {_some(without)} no object')


def _some(names: list[str]) -> str:
    shown = ', '.join(map(repr, names[:5])) + (' ...' if len(names) > 5 else '')
    return f'the category {shown} has' if len(names) == 1 else f'the {len(names)} categories {shown} have'
