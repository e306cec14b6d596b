"""Checks the images that a COCO file names: entries, files, sizes and what a loader makes of them."""

from __future__ import annotations

import os
from typing import Any

import mmcv

from .coco import CocoFile
from .coco_fields import is_id
from .coco_rules import CocoRules
from .image_folder import ImageFolder
from .images import HEADERS, Header, read_header, sample, too_dark
from .report import Harm, Report
from .sources import Source

DECODED = {'JPEG', 'MPO', 'PNG', 'BMP', 'TIFF', 'WEBP', 'PPM'}  # formats that OpenCV reads in every build
DEEP = 'images of more than 8 bits, read as 8 bits'
NOTES = {  # by Pillow's mode
    'L': 'grey images',
    'LA': 'grey images',
    '1': 'grey images',
    'CMYK': 'CMYK images',
    'I': DEEP,
    'F': DEEP,
    'I;16': DEEP,
    'I;16B': DEEP,
}


def check_images(
    file: CocoFile, source: Source, report: Report, needs_masks: bool, rules: CocoRules, full: bool
) -> None:
    """Checks the entries of ``images`` and the files that they name.

    Args:
        file: The annotation file.
        source: The dataset.
        report: Takes what is found.
        needs_masks: Whether masks are used, for which sizes must be whole numbers.
        rules: How the dataset class reads the file.
        full: Read the header of every file, not of a sample.
    """
    images = _Images(file, source, report)
    images.check_ids()
    images.check_sizes(needs_masks)
    names = images.names(rules)
    root = source.path('data_prefix', 'img')
    if not source.is_local:
        report.leave_out('image files that are not on this machine')
    elif root is None:
        text = f'{source.key} names no folder of images; write data_prefix=dict(img=...)'
        report.error(Harm.FAILS, 'image folder', source.split, text)
    elif not os.path.isdir(root or '.'):
        text = f'there is no folder {root}; correct {source.key}.data_prefix.img or data_root'
        report.error(Harm.FAILS, 'image folder', source.split, text)
    else:
        present = images.check_presence(ImageFolder(root), names)
        rows = list(present)
        images.check_headers(
            {row: os.path.join(root, present[row]) for row in (rows if full else sample(rows, HEADERS))}
        )


def ignores_orientation(source: Source) -> bool:
    """Whether the dataset's pipeline loads images as they are stored, not as EXIF turns them."""
    for transform in source.transforms():
        if str(transform.get('type')).endswith('LoadImageFromFile'):
            flag = str(transform.get('color_type', 'color'))
            backend = transform.get('imdecode_backend')
            return flag == 'unchanged' or flag.endswith('ignore_orientation') or backend in ('turbojpeg', 'tifffile')
    return False


class _Images:
    """Checks the images of a file."""

    def __init__(self, file: CocoFile, source: Source, report: Report) -> None:
        self.file, self.source, self.report = file, source, report

    def error(self, harm: Harm, kind: str, row: int, text: str) -> None:
        """Adds an error about one image."""
        image = self.file.images[row]
        name = f' ({image["file_name"]})' if 'file_name' in image else ''
        identity = f'{image["id"]!r}' if 'id' in image else f'at place {row}'
        self.report.error(harm, kind, self.source.split, f'{self.file.path}: image {identity}{name}: {text}')

    def check_ids(self) -> None:
        """Ids are there and unique."""
        seen: set[Any] = set()
        for row, image in enumerate(self.file.images):
            identity = image.get('id')
            if not is_id(identity):
                text = f'id is {identity!r:.40}, expected a whole number' if 'id' in image else 'id is absent'
                self.error(Harm.FAILS, 'image id', row, text)
            elif identity in seen:
                self.error(Harm.LOST, 'image id twice', row, 'another image has the same id, and only one is used')
            else:
                seen.add(identity)

    def check_sizes(self, needs_masks: bool) -> None:
        """Width and height are there and above 0."""
        for row, image in enumerate(self.file.images):
            for key in ('width', 'height'):
                length = image.get(key)
                if type(length) is int and length > 0:
                    continue
                is_so = 'is absent' if length is None else f'is {length!r:.40}'
                way_out = 'expected a whole number of pixels; --fix reads it from the image'
                if type(length) is not int and type(length) is not float:
                    self.error(Harm.FAILS, 'image size', row, f'{key} {is_so}, {way_out}')
                elif not length > 0:
                    self.error(Harm.LOST, 'image size', row, f'{key} {is_so}, and its objects are left out, {way_out}')
                elif needs_masks:
                    self.error(Harm.FAILS, 'image size', row, f'{key} {is_so}, {way_out}')

    def names(self, rules: CocoRules) -> dict[int, str]:
        """Paths of the image files from their folder, by the image's row."""
        names: dict[int, str] = {}
        for row, image in enumerate(self.file.images):
            try:
                name = rules.file_name(image)
            except KeyError as problem:
                self.error(Harm.FAILS, 'file name', row, f'{problem.args[0]} is absent, which names the image file')
                continue
            except (AttributeError, TypeError):  # of a value that is no string
                name = None
            if isinstance(name, str) and name:
                names[row] = name
            else:
                self.error(
                    Harm.FAILS, 'file name', row, f'it is {name!r:.40}, expected the path of the image below the folder'
                )
        first = {name: row for row, name in reversed(names.items())}
        for row, name in names.items():
            if first[name] != row:
                text = f'image {self.file.images[first[name]].get("id")!r} has the same file, so that each is trained '
                self.error(Harm.WRONG, 'file twice', row, text + 'with a part of its objects; join the two')
        return names

    def check_presence(self, folder: ImageFolder, names: dict[int, str]) -> dict[int, str]:
        """Returns the images that are there."""
        present = {row: name for row, name in names.items() if folder.has(name)}
        for row, name in names.items():
            if row in present:
                continue
            text = f'there is no file {os.path.join(folder.root, name)}'
            if found := folder.find(name):
                other, difference = found
                text += f', but {os.path.join(folder.root, other)}: {difference}; correct file_name, or use --fix'
            self.error(Harm.FAILS, 'image file', row, text)
        surplus = folder.surplus(names.values())
        self.report.note(self.source.split, 'images in the folder that the file does not name', surplus)
        return present

    def check_headers(self, paths: dict[int, str]) -> None:
        """Files can be read and are of the size that the annotation file says."""
        stored = ignores_orientation(self.source)
        deep: list[int] = []
        for row, path in paths.items():
            try:
                header = read_header(path)
            except ValueError as problem:
                self.error(Harm.FAILS, 'image file', row, f'{path}: {problem}; repair it or take it out')
                continue
            if header.format not in DECODED and not _can_load(path):
                text = f'{path} is a {header.format} file, which OpenCV cannot read; save it as PNG or JPEG'
                self.error(Harm.FAILS, 'image file', row, text)
            self._check_size(row, header, stored)
            if note := NOTES.get(header.mode):
                self.report.note(self.source.split, note)
            if note == DEEP:
                deep.append(row)
        if deep and (reason := too_dark([paths[row] for row in deep], self.source.transforms())):
            self.error(Harm.WRONG, 'images become black', deep[0], reason)

    def _check_size(self, row: int, header: Header, stored: bool) -> None:
        image = self.file.images[row]
        said = image.get('width'), image.get('height')
        as_stored = header.width, header.height
        loaded = as_stored if stored else header.upright
        if said == loaded:
            if header.orientation != 1 and (header.orientation < 5 or header.width == header.height):
                self.report.note(self.source.split, 'images that EXIF turns without a change of their size')
        elif not all(type(length) is int and length > 0 for length in said):
            return  # an error already
        elif header.orientation == 1 and said == loaded[::-1]:
            text = f'width and height are exchanged: the image is {_size(loaded)} (width x height), and the file says '
            self.error(Harm.WRONG, 'width and height exchanged', row, f'{text}{_size(said)}; --fix exchanges them back')
        elif said in (as_stored, header.upright):
            verb = 'stays as it is stored' if stored else f'is turned by its EXIF orientation {header.orientation}'
            text = f'it {verb} when it is loaded: {_size(loaded)} (width x height), and the file says {_size(said)}. '
            text += 'If boxes and masks fit the image as it is turned, correct the size (--fix does), else '
            text += (
                "load the image as it is stored: dict(type='LoadImageFromFile', color_type='color_ignore_orientation')"
            )
            self.error(Harm.WRONG, 'EXIF orientation', row, text)
        else:
            text = (
                f'the image is {_size(loaded)} (width x height), and the file says {_size(said)}; its boxes may be of '
            )
            self.error(Harm.WRONG, 'image of another size', row, text + 'an image that was scaled or replaced')


def _can_load(path: str) -> bool:
    try:
        return mmcv.imread(path) is not None
    except Exception:  # OpenCV raises its own errors on what it cannot read
        return False


def _size(size: tuple[Any, Any]) -> str:
    return f'{size[0]}x{size[1]}'
