"""What a new config says about a user's dataset."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Split:
    """The files of one split.

    Attributes:
        images: Folder of the images.
        annotations: COCO JSON file, or folder of the masks.
        count: Number of images.
        suffixes: What the names of images and of masks end with, for segmentors.
    """

    images: str
    annotations: str
    count: int
    suffixes: tuple[str, str] = ('', '')


@dataclass(frozen=True, kw_only=True)
class Data:
    """A dataset whose files were read.

    Attributes:
        splits: ``'train'``, ``'val'`` and, if there is one, ``'test'``.
        classes: Names in the order of the labels.
        size: Median height and width of the training images, in pixels; ``None`` if the files do not say.
        smallest: Shortest side of a training image, in pixels; ``None`` likewise.
        has_masks: Whether objects have masks, for detectors.
        notes: What the user should know.
    """

    splits: Mapping[str, Split]
    classes: tuple[str, ...]
    size: tuple[int, int] | None
    smallest: int | None = None
    has_masks: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def root(self) -> str:
        """The folder that holds all splits, with a slash at the end; ``''`` if there is none but the working folder."""
        paths = [path for split in self.splits.values() for path in (split.images, os.path.dirname(split.annotations))]
        try:
            root = os.path.commonpath(paths)
        except ValueError:  # absolute and relative paths
            return ''
        return '' if root in ('', os.sep) else root + '/'

    @property
    def name(self) -> str:
        """A short name of the dataset."""
        return os.path.basename(self.root.rstrip('/')).lower().replace(' ', '-') or 'data'


def tidy(path: str) -> str:
    """A path as it is written into a config: with slashes, without ``.`` and doubled or trailing slashes."""
    return os.path.normpath(os.path.expanduser(path)).replace('\\', '/')
