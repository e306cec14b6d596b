"""Masks are repaired where there is one right answer, and nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from numpy.typing import NDArray
from PIL import Image

from mmcv_custom.datasets import sources
from mmcv_custom.errors import UserError
from mmseg_custom.data_check import fix_masks
from tests.mmseg.seg_data import (
    COLOURS,
    THREE,
    Data,
    by_cv2,
    coloured,
    colours,
    cut,
    lossy,
    one_pixel,
    rewrite,
    with_palette,
)


def grey_channels(labels: NDArray) -> Image.Image:
    return Image.fromarray(labels).convert('RGB')


REPAIRABLE: list[tuple[str, int, Callable[[NDArray], Any], Callable[[Data], Any]]] = [
    ('colours', 3, coloured, lambda d: d.set(metainfo=dict(classes=THREE, palette=COLOURS))),
    (
        'colours, 0 ignored',
        3,
        lambda m: coloured(np.maximum(m, 1) - 1),
        lambda d: d.set(metainfo=dict(classes=THREE, palette=COLOURS), reduce_zero_label=True),
    ),
    (
        'RGBA',
        3,
        lambda m: Image.fromarray(coloured(m)).convert('RGBA'),
        lambda d: d.train.metainfo.update(palette=COLOURS),
    ),
    ('LA', 3, lambda m: Image.fromarray(m).convert('LA'), lambda d: None),
    ('grey as RGB', 3, grey_channels, lambda d: d.train.metainfo.update(palette=COLOURS)),
    ('0 and 255', 2, lambda m: m * 255, lambda d: None),
    ('0 and 255 as RGB', 2, lambda m: grey_channels(m * 255), lambda d: None),
    ('palette by cv2', 3, with_palette, by_cv2),
    ('16 bits', 3, lambda m: m.astype(np.uint16), lambda d: None),
]


@pytest.mark.parametrize(('classes', 'spoil', 'settings'), [pytest.param(*case[1:], id=case[0]) for case in REPAIRABLE])
def test_masks_are_repaired(
    classes: int, spoil: Callable[[NDArray], Any], settings: Callable[[Data], Any], data: Data, tmp_path: Path
) -> None:
    data.classes(THREE[:classes])
    truth = {path.name: np.array(Image.open(path)) for path in data.paths(split='train')}
    data.masks(spoil, 'train')
    settings(data)
    originals = {path: path.read_bytes() for path in data.paths()}
    source = sources(data.cfg, 'train')[0]
    with DefaultScope.overwrite_default_scope('mmseg'):
        changed, line = fix_masks(source, str(tmp_path / 'fixed'))
    assert '8 masks are written' in changed
    key, _, value = line.partition('=')
    data.cfg.merge_from_dict({key: ast.literal_eval(value)})
    assert list(data.check().error_lines()) == []
    assert {path: path.read_bytes() for path in data.paths()} == originals
    shift = int(bool(data.train.get('reduce_zero_label')))
    for name, labels in truth.items():
        repaired = Image.open(Path(ast.literal_eval(value), name))
        expected = np.maximum(labels, 1) if shift else labels
        assert repaired.mode == 'L' and np.array_equal(np.array(repaired), expected)
    with DefaultScope.overwrite_default_scope('mmseg'), pytest.raises(UserError, match='exists'):
        fix_masks(source, str(tmp_path / 'fixed'))


def other_palette(data: Data) -> None:
    colours(coloured)(data)
    data.train.metainfo.palette = [[1, 2, 3], *COLOURS[1:]]


UNCLEAR: list[tuple[str, Callable[[Data], Any], str]] = [
    ('no palette', colours(coloured), 'metainfo.palette does not say'),
    (
        'other colour',
        lambda d: (colours(coloured)(d), d.set(metainfo=dict(classes=THREE, palette=[[1, 2, 3]] * 3))),
        'once',
    ),
    ('value 37', lambda d: rewrite(d.path(), one_pixel(37)), '37 stands for no class'),
    ('lossy', lossy, 'JPEG'),
    ('no folder', lambda d: d.train.data_prefix.update(img_path='imges'), 'imges'),
    ('cut', lambda d: cut(d.path()), 'masks/train/00001.png'),
]


@pytest.mark.parametrize(('spoil', 'words'), [pytest.param(*case[1:], id=case[0]) for case in UNCLEAR])
def test_what_is_unclear_is_not_repaired(spoil: Callable[[Data], Any], words: str, data: Data, tmp_path: Path) -> None:
    spoil(data)
    with DefaultScope.overwrite_default_scope('mmseg'):
        (line,) = fix_masks(sources(data.cfg, 'train')[0], str(tmp_path / 'fixed'))
    assert 'left as they are' in line and words in line
    assert not (tmp_path / 'fixed').exists()


def test_right_masks_are_not_repaired(data: Data, tmp_path: Path) -> None:
    with DefaultScope.overwrite_default_scope('mmseg'):
        assert fix_masks(sources(data.cfg, 'train')[0], str(tmp_path / 'fixed')) == []
    assert not (tmp_path / 'fixed').exists()
