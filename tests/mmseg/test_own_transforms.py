"""The data check of segmentation with transforms of the user's own: only those that change labels limit it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mmcv.transforms import LoadAnnotations as BaseLoader
from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs
from PIL import Image

from tests.mmseg.seg_data import THREE, TWO, Data, coloured, one_pixel, rewrite


class Nothing:
    """Changes no mask."""

    def __call__(self, results: dict) -> dict | None:
        return results


class Mirror(Nothing):
    """Moves pixels, in place and at random."""

    def __call__(self, results: dict) -> dict:
        if random.random() < 0.5:
            for key in ('img', 'gt_seg_map'):
                results[key][:] = results[key][:, ::-1].copy()
        return results


class Crop(Nothing):
    """Keeps a part of image and mask."""

    def __call__(self, results: dict) -> dict:
        return results | {key: results[key][:32] for key in ('img', 'gt_seg_map')}


class Fold(Nothing):
    """Makes the digits one class."""

    def __call__(self, results: dict) -> dict:
        return results | dict(gt_seg_map=np.minimum(results['gt_seg_map'], 1))


class FoldInPlace(Nothing):
    """The same without a new array."""

    def __call__(self, results: dict) -> dict:
        np.minimum(results['gt_seg_map'], 1, out=results['gt_seg_map'])
        return results


class Translate(Nothing):
    """Makes colours labels."""

    def __call__(self, results: dict) -> dict:
        return results | dict(gt_seg_map=results['gt_seg_map'].argmax(2).astype(np.uint8))


class OwnLoader(LoadAnnotations):
    """Loads what mmseg's loads."""


class FoldingLoader(LoadAnnotations):
    """Makes the digits one class at once."""

    def transform(self, results: dict) -> dict:
        return Fold()(super().transform(results))


class FoldingPack(PackSegInputs):
    """Makes the digits one class at the end."""

    def transform(self, results: dict) -> dict:
        return super().transform(Fold()(results))


class Broken(Nothing):
    """Fails on every image."""

    def __call__(self, results: dict) -> dict:
        return results | dict(img=results['nothing'])


class Loads(BaseLoader):
    """A loader of masks that mmseg does not know, under a name that does not say so."""

    def transform(self, results: dict) -> dict:
        return LoadAnnotations().transform(results)


class LoadArray(LoadAnnotations):
    """Loads masks that Pillow cannot read."""

    def transform(self, results: dict) -> dict:
        return results | dict(gt_seg_map=np.load(results['seg_map_path']), seg_fields=['gt_seg_map'])


def insert(data: Data, kind: type, place: int = 2) -> None:
    for dataset in data.datasets:
        dataset.pipeline.insert(place, dict(type=kind))


def replace(data: Data, kind: type, place: int) -> None:
    for dataset in data.datasets:
        dataset.pipeline[place] = dict(type=kind)


# What limits nothing: labels stay.
HARMLESS: dict[str, Callable[[Data], Any]] = {
    'nothing': lambda d: insert(d, Nothing),
    'mirror': lambda d: d.train.pipeline.insert(2, dict(type=Mirror)),
    'inside': lambda d: d.train.pipeline.insert(2, dict(type='RandomApply', transforms=[dict(type=Nothing)])),
    'loader': lambda d: replace(d, OwnLoader, 1),
    'before the mask': lambda d: insert(d, Nothing, 1),
}
# What folds the digits into two classes.
FOLDING: dict[str, Callable[[Data], Any]] = {
    'fold': lambda d: insert(d, Fold),
    'in place': lambda d: insert(d, FoldInPlace),
    'inside': lambda d: [
        dataset.pipeline.insert(2, dict(type='RandomApply', transforms=[dict(type=Fold)], prob=1.0))
        for dataset in d.datasets
    ],
    'loader': lambda d: replace(d, FoldingLoader, 1),
    'pack': lambda d: replace(d, FoldingPack, -1),
    'after chance': lambda d: (
        insert(d, Fold),
        d.train.pipeline.insert(2, dict(type='RandomCrop', crop_size=(48, 48))),
    ),
}


@pytest.mark.parametrize('name', HARMLESS)
@pytest.mark.parametrize('layers', [(), ('conservation', 'oracle')], ids=['all layers', 'without layer 1'])
def test_what_changes_no_label_limits_nothing(name: str, layers: tuple[str, ...], data: Data) -> None:
    HARMLESS[name](data)
    report = data.check(*layers)
    assert list(report.error_lines()) == [] and 'changes' not in report.summary()
    data.masks(lambda labels: one_pixel(258)(labels.astype(np.uint16)))  # wraps to 2
    assert 'value without a class' in data.check(*layers).kinds('train')


def test_a_crop_limits_nothing(data: Data) -> None:
    data.train.pipeline.insert(2, dict(type=Crop))
    report = data.check()
    assert list(report.error_lines()) == [] and 'changes' not in report.summary()


@pytest.mark.parametrize('name', FOLDING)
def test_what_changes_labels_is_judged_by_them(name: str, data: Data) -> None:
    data.set(metainfo=dict(classes=TWO))
    assert 'value without a class' in data.check().kinds('train')
    FOLDING[name](data)
    report = data.check()
    assert list(report.error_lines()) == [] and 'changes' in report.summary()
    data.set(metainfo=dict(classes=('digit',)))
    assert 'label without a class' in data.check().kinds('val')


def test_colours_may_be_translated(data: Data) -> None:
    data.classes(THREE)
    data.masks(coloured)
    assert data.check().kinds('train') == {'colour mask'}
    insert(data, Translate)
    assert list(data.check().error_lines()) == []


def test_a_transform_that_fails_is_named_once_per_image(data: Data) -> None:
    insert(data, Broken)
    for layers in ((), ('conservation', 'oracle')):
        lines = [line for line in data.check(*layers).error_lines() if line.startswith('train')]
        assert len(lines) == 8 and all('cannot be loaded: ' in line and 'KeyError: nothing' in line for line in lines)


def test_masks_that_nothing_loads(data: Data) -> None:
    """A transform of the user's own may load them, and one that does not is no excuse."""
    replace(data, Nothing, 1)
    assert data.check().kinds() == {'masks not loaded'}
    replace(data, Loads, 1)
    assert list(data.check().error_lines()) == []


def test_masks_of_another_format(data: Data) -> None:
    for path in data.paths():
        np.save(path.with_suffix('.npy'), np.array(Image.open(path)))
    data.set(seg_map_suffix='.npy')
    assert data.check().kinds() == {'mask unreadable'}
    replace(data, LoadArray, 1)
    assert list(data.check().error_lines()) == []


def test_one_damaged_mask_is_found_behind_an_own_transform(data: Data) -> None:
    insert(data, Nothing)
    rewrite(data.path(split='val'), one_pixel(37))
    assert data.check().kinds() == {'value without a class'}
