"""Folders of images and label masks: which files belong together, and what the masks hold."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from mmengine.fileio import list_dir_or_file, list_from_file
from numpy.typing import NDArray
from PIL import Image

from .images import open_image, read_header

LOSSY = ('JPEG', 'MPO')
IGNORED = 255  # the label that mmseg's losses and metrics leave out by default
Values = Counter[int]  # pixels by value


@dataclass(frozen=True)
class MaskFolders:
    """Folders of images and masks that are matched by name, or by a list of names.

    A name is a path below both folders, without the suffixes.

    Attributes:
        img_path: Folder of the images.
        seg_map_path: Folder of the masks; ``None`` without masks.
        img_suffix, seg_map_suffix: What follows the name, such as ``'_leftImg8bit.png'``.
        ann_file: File with a name in each line; empty if all images are used.
    """

    img_path: str
    seg_map_path: str | None
    img_suffix: str = '.jpg'
    seg_map_suffix: str = '.png'
    ann_file: str = ''

    @cached_property
    def images(self) -> list[str]:
        """All files of images below their folder."""
        return _images_in(self.img_path)

    @cached_property
    def masks(self) -> list[str]:
        """All files of images below the masks' folder."""
        return _images_in(self.seg_map_path) if self.seg_map_path is not None else []

    @cached_property
    def names(self) -> list[str]:
        """The names that are used."""
        if self.ann_file:
            return [line.strip() for line in list_from_file(self.ann_file)]
        files = list_dir_or_file(self.img_path, list_dir=False, suffix=self.img_suffix, recursive=True)
        return sorted(file.removesuffix(self.img_suffix) for file in files)

    def image(self, name: str) -> str:
        """Path of an image."""
        return os.path.join(self.img_path, name + self.img_suffix)

    def mask(self, name: str) -> str:
        """Path of a mask."""
        assert self.seg_map_path is not None
        return os.path.join(self.seg_map_path, name + self.seg_map_suffix)

    def unused(self) -> dict[str, bool]:
        """Images below the folder that are not used, and whether each has a mask, of whatever suffix."""
        used = {os.path.normpath(self.image(name)) for name in self.names}
        stems = {_stem(name, self.img_suffix) for name in used}
        masks = {_stem(mask, self.seg_map_suffix) for mask in self.masks}
        together = self.img_path == self.seg_map_path
        found = {}
        for image in self.images:
            path = os.path.normpath(os.path.join(self.img_path, image))
            is_mask = together and image.endswith(self.seg_map_suffix)
            if path not in used and _stem(path, self.img_suffix) not in stems and not is_mask:
                found[path] = _stem(image, self.img_suffix) in masks
        return found

    def masks_without_image(self) -> list[str]:
        """Masks that belong to no image of whatever suffix."""
        images = {_stem(image, self.img_suffix) for image in self.images} | set(self.names)
        masks = [mask for mask in self.masks if mask.endswith(self.seg_map_suffix)]
        return [mask for mask in masks if mask.removesuffix(self.seg_map_suffix) not in images]


def suffix_of_all(names: Iterable[str], files: Collection[str]) -> str | None:
    """The one suffix with which every name is a file; ``None`` if there is none, or more than one."""
    names, existing = list(names), set(files)
    if not names:
        return None
    suffixes = {file[len(names[0]) :] for file in existing if file.startswith(names[0])}
    fitting = [suffix for suffix in suffixes if all(name + suffix in existing for name in names)]
    return fitting[0] if len(fitting) == 1 else None


@dataclass(frozen=True)
class Mask:
    """A decoded mask.

    Attributes:
        path: Its file.
        mode, format: Pillow's names of the channels and of the file's format.
        pixels: (H, W), or (H, W, channels) of a colour mask; a palette's indices, not its colours.
    """

    path: str
    mode: str
    format: str
    pixels: NDArray

    @property
    def is_lossy(self) -> bool:
        """Whether the format changes pixel values."""
        return self.format in LOSSY

    @cached_property
    def values(self) -> Values:
        """Pixels by value, of a mask (H, W)."""
        return count_values(self.pixels)


def read_mask(path: str) -> Mask:
    """Decodes a mask with Pillow, values as they are stored.

    Raises:
        ValueError: The file cannot be read. The text says why.
    """
    header = read_header(path)
    try:
        with open_image(path) as image:
            pixels = np.array(image)
    except Exception as problem:  # Pillow's decoders raise errors of many types on damaged files
        raise ValueError(f'it cannot be read ({problem})') from problem
    return Mask(path, header.mode, header.format, pixels.astype(np.uint8) if pixels.dtype == bool else pixels)


def read_colours(path: str) -> NDArray[np.uint8]:
    """The colours (H, W, 3) of a mask: red, green and blue, those of its palette if it has one."""
    with open_image(path) as image:
        return np.array(image.convert('RGB'))


def write_mask(labels: NDArray[np.uint8], path: str) -> None:
    """Writes labels (H, W) in the format that the path's suffix names."""
    Image.fromarray(labels).save(path)


def count_values(pixels: NDArray) -> Values:
    """Pixels by value."""
    if pixels.dtype.kind == 'u' and pixels.dtype.itemsize <= 2:  # many times faster than sorting
        counts = np.bincount(pixels.ravel())
        values = counts.nonzero()[0]
        counts = counts[values]
    else:
        values, counts = np.unique(pixels, return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))


def count_pairs(first: NDArray, second: NDArray) -> Counter[tuple[int, int]]:
    """How often each pair of values, none of them negative, stands at the same place of two arrays of one shape."""
    base = int(second.max(initial=0)) + 1
    largest = int(first.max(initial=0)) * base + base
    codes = first.astype(np.uint16 if largest < 2**16 else np.int64) * base + second
    return Counter({divmod(code, base): count for code, count in count_values(codes).items()})


def colours_to_labels(pixels: NDArray, palette: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    """Translates colours.

    Args:
        pixels: (H, W, 3), red, green and blue of 8 bits.
        palette: The colour of each label.

    Returns:
        (H, W) labels.

    Raises:
        ValueError: A pixel has a colour that is not in the palette, or two labels have the same. The text says which.
    """
    weights = np.array([1 << 16, 1 << 8, 1])
    label_of = {int(np.dot(colour, weights)): label for label, colour in enumerate(palette)}
    if len(label_of) < len(palette):
        raise ValueError('metainfo.palette has a colour more than once')
    codes, places = np.unique(pixels.astype(np.int64) @ weights, return_inverse=True)
    for code in codes.tolist():
        if code not in label_of:
            raise ValueError(f'the colour {(code >> 16, code >> 8 & 255, code & 255)} is not in metainfo.palette')
    return np.array([label_of[code] for code in codes.tolist()], np.uint8)[places.reshape(pixels.shape[:2])]


def _images_in(folder: str) -> list[str]:
    if not os.path.isdir(folder):
        return []
    files, extensions = list_dir_or_file(folder, list_dir=False, recursive=True), Image.registered_extensions()
    return sorted(file for file in files if os.path.splitext(file)[1].lower() in extensions)


def _stem(file: str, suffix: str) -> str:
    """The name of a file whose suffix may have another extension, such as 'a' of 'a_leftImg8bit.jpg'."""
    return os.path.splitext(file)[0].removesuffix(suffix.rpartition('.')[0])
