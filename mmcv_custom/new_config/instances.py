"""Datasets in the COCO format, for detectors."""

from __future__ import annotations

import codecs
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np

from ..cli import did_you_mean
from ..datasets.coco import CocoFile
from ..errors import UserError
from .data import Data, Split, tidy


def read_instances(paths: Mapping[str, tuple[str, str]], wanted: Sequence[str] | None = None) -> Data:
    """A dataset of COCO JSON files, as far as a config needs it. Faults are left to the data check of the config.

    mmdet numbers the classes in the order of ``categories`` in the file, whatever the order of ``metainfo.classes`` is.
    The names are therefore written in that order.

    Args:
        paths: Folder of the images and annotation file of each split.
        wanted: The categories to use; default all.

    Raises:
        UserError: A folder or file is missing, is no COCO file, or has no image, no category or not those that are
            wanted.
    """
    files = {split: _read(split, *pair) for split, pair in paths.items()}
    train, train_file = files['train'], paths['train'][1]
    names = dict.fromkeys(name for category in train.categories if isinstance(name := category.get('name'), str))
    for name in wanted or ():
        if name not in names:
            raise UserError(f'--classes {name}: {train_file} has no such category{did_you_mean(name, list(names))}')
    if not names:
        raise UserError(f'{train_file}: there is no category with a name in it')
    classes = [name for name in names if wanted is None or name in wanted]
    notes: list[str] = []
    if wanted and list(wanted) != classes:
        notes.append(f'the classes are in the order of {train_file}: mmdet numbers them in that order')
    sizes = train.sizes[(np.isfinite(train.sizes) & (train.sizes > 0)).all(axis=1)]
    without_mask = sum(fault.kind == 'no mask' for fault in train.faults)
    return Data(
        splits={
            split: Split(tidy(images), tidy(file), len(files[split].images)) for split, (images, file) in paths.items()
        },
        classes=tuple(classes),
        size=(int(np.median(sizes[:, 1])), int(np.median(sizes[:, 0]))) if len(sizes) else None,
        smallest=int(sizes.min()) if len(sizes) else None,
        has_masks=without_mask < len(train) or len(train) == 0,
        notes=notes,
    )


def _read(split: str, images: str, path: str) -> CocoFile:
    if not os.path.isdir(os.path.expanduser(images)):
        raise UserError(f'--{split} {images}: there is no such folder of images')
    file = Path(path).expanduser()
    if file.is_dir():
        raise UserError(f'--{split} {path}: a detector needs a COCO JSON file, and this is a folder')
    try:
        found = _without_mark(file) or CocoFile.read(str(file))
    except UserError as problem:
        raise UserError(f'--{split}: {problem}') from problem
    if not found.images:
        raise UserError(f'--{split} {path}: there is no image in it')
    return found


def _without_mark(file: Path) -> CocoFile | None:
    """A file that begins with a byte order mark, without it: the data check names it, and --fix takes it out."""
    if not file.is_file():
        return None
    with open(file, 'rb') as stream:
        if stream.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            return None
        with NamedTemporaryFile(suffix='.json') as copy:
            copy.write(stream.read())
            copy.flush()
            return CocoFile(copy.name)
