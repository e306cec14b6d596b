"""A copy of the demo's segmentation data that a test may change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from numpy.typing import NDArray
from PIL import Image

import mmseg_custom  # noqa: F401
from mmcv_custom.datasets import Report, check_datasets
from mmcv_custom.datasets.check import LAYERS

SPLITS = ('train', 'val')
TWO = ('background', 'digit')
THREE = ('a', 'b', 'c')
COLOURS = [[0, 0, 0], [200, 0, 0], [0, 200, 0]]


class Data:
    """The demo's config and a copy of its dataset that a test may damage."""

    def __init__(self, root: Path, cfg: Config) -> None:
        self.root, self.cfg = root, cfg
        self.datasets = [self.cfg[f'{split}_dataloader'].dataset for split in SPLITS]
        self.train, self.val = self.datasets
        self.set(data_root=str(root))

    def set(self, **options: Any) -> None:
        """Sets keys of both datasets."""
        for dataset in self.datasets:
            dataset.update(options)

    def classes(self, classes: tuple[str, ...], **metainfo: Any) -> None:
        """Folds the masks into this many classes."""
        self.set(metainfo=dict(classes=classes, **metainfo))
        self.masks(lambda labels: np.minimum(labels, len(classes) - 1))

    def paths(self, kind: str = 'masks', split: str = '*') -> list[Path]:
        return sorted(self.root.glob(f'{kind}/{split}/*'))

    def path(self, kind: str = 'masks', split: str = 'train') -> Path:
        """One image or mask, the second one."""
        return self.paths(kind, split)[1]

    def masks(self, change: Callable[[NDArray], Any], split: str = '*') -> None:
        """Writes changed masks: arrays, or images of Pillow."""
        for path in self.paths(split=split):
            rewrite(path, change)

    def check(self, *layers: str, full: bool = False) -> Report:
        return check_datasets(self.cfg, SPLITS, full, layers or LAYERS)


def rewrite(path: Path, change: Callable[[NDArray], Any], **options: Any) -> None:
    changed = change(np.array(Image.open(path)))
    (changed if isinstance(changed, Image.Image) else Image.fromarray(changed)).save(path, **options)


def coloured(labels: NDArray) -> NDArray:
    return np.array(COLOURS, np.uint8)[labels]


def with_alpha(labels: NDArray) -> Image.Image:
    return Image.fromarray(coloured(labels)).convert('RGBA')


def with_palette(labels: NDArray) -> Image.Image:
    image = Image.fromarray(labels)
    image.putpalette(sum(COLOURS, []))
    return image


def one_pixel(value: int) -> Callable[[NDArray], NDArray]:
    def change(labels: NDArray) -> NDArray:
        labels[0, 0] = value
        return labels

    return change


def sixteen_bits(labels: NDArray) -> NDArray:
    return one_pixel(300)(labels.astype(np.uint16))


def cut(path: Path, size: int | None = None) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 if size is None else size])


def rename(paths: list[Path], suffix: str) -> None:
    for path in paths:
        path.rename(path.with_suffix(suffix))


def list_of_train(data: Data, text: str) -> None:
    (data.root / 'train.txt').write_text(text)
    data.train.ann_file = 'train.txt'


def by_cv2(data: Data) -> None:
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', imdecode_backend='cv2')]
    data.set(pipeline=[*pipeline, dict(type='PackSegInputs')])


def colours(change: Callable[[NDArray], Any], split: str = '*') -> Callable[[Data], None]:
    def mutate(data: Data) -> None:
        data.classes(THREE)
        data.masks(change, split)

    return mutate


def lossy(data: Data) -> None:
    for path in data.paths():
        Image.open(path).save(path.with_suffix('.jpg'))
    data.set(seg_map_suffix='.jpg')
