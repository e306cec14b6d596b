"""The data check of segmentation names faults before the first step, with and without layer 1."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.mmseg.seg_data import (
    THREE,
    TWO,
    Data,
    by_cv2,
    coloured,
    colours,
    cut,
    list_of_train,
    lossy,
    one_pixel,
    rename,
    rewrite,
    with_alpha,
    with_palette,
)


def own_classes(data: Data) -> None:
    data.classes(THREE)
    data.set(type='ADE20KDataset')


def both_reduce(data: Data) -> None:
    data.set(pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True)])


def palette_by_cv2(data: Data) -> None:
    data.classes(THREE)
    data.masks(with_palette)
    by_cv2(data)


def one_bit_by_cv2(data: Data) -> None:
    data.set(metainfo=dict(classes=TWO))
    data.masks(lambda labels: labels > 0)
    by_cv2(data)


def binary(split: str = '*') -> Callable[[Data], None]:
    def mutate(data: Data) -> None:
        data.classes(TWO)
        data.masks(lambda labels: labels * 255, split)

    return mutate


def classes_reversed(data: Data) -> None:
    data.val.metainfo = dict(classes=tuple(reversed(data.val.metainfo.classes)))


def other_class(data: Data) -> None:
    data.val.metainfo = dict(classes=(*data.val.metainfo.classes[:-1], 'nine'))


def resized_masks(data: Data) -> None:
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    data.val.pipeline = [*load, dict(type='Resize', scale=(96, 96)), dict(type='PackSegInputs')]


def binary_list(data: Data) -> None:
    list_of_train(data, '')
    (data.root / 'train.txt').write_bytes(b'\xff\xfe\x00')


def flipped(data: Data) -> None:
    data.val.pipeline.insert(2, dict(type='RandomFlip', prob=1.0))


def reduced(data: Data) -> None:
    data.masks(lambda labels: labels + 1)
    data.set(reduce_zero_label=True)
    data.masks(one_pixel(0))
    for head in ('decode_head', 'auxiliary_head'):
        data.cfg.model[head].ignore_index = 0


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 30] = bytes(30)
    path.write_bytes(bytes(content))


def fractions(data: Data) -> None:
    for path in data.paths():
        labels = np.array(Image.open(path)).astype(np.float32)
        Image.fromarray(labels + np.float32(0.5)).save(path.with_suffix('.tif'))
    data.set(seg_map_suffix='.tif')


def swapped(data: Data) -> None:
    for dataset in data.datasets:
        prefix = dataset.data_prefix
        dataset.data_prefix = dict(img_path=prefix.seg_map_path, seg_map_path=prefix.img_path)


Fault = tuple[str, Callable[[Data], Any], str, tuple[str, ...]]
# A name, what is done to the data, the split that has the error, and words of its line.
FAULTS: list[Fault] = [
    ('binary', binary(), 'train', ('0 and 255', "'digit'", '--fix')),
    ('binary val', binary('val'), 'val', ('0 and 255', "'digit'")),
    ('value 37', lambda d: rewrite(d.path(), one_pixel(37)), 'train', ('train/00001.png', '37', '0 to 10')),
    ('value 37 val', lambda d: rewrite(d.path(split='val'), one_pixel(37)), 'val', ('val/00001.png', '37')),
    (
        'value 300',
        lambda d: rewrite(d.path(), lambda m: one_pixel(300)(m.astype(np.uint16))),
        'train',
        ('300', '8 bit'),
    ),
    ('one class too few', lambda d: d.set(metainfo=dict(classes=TWO)), 'train', ('stands for no class', '0, 1')),
    ('rgb', colours(coloured), 'train', ('RGB', '3 channels', '--fix', 'palette')),
    ('rgb val', colours(coloured, 'val'), 'val', ('RGB', '3 channels')),
    ('rgba', colours(with_alpha), 'train', ('RGBA', '4 channels')),
    ('la', colours(lambda m: Image.fromarray(m).convert('LA')), 'train', ('LA', '2 channels')),
    ('palette by cv2', palette_by_cv2, 'train', ('palette', "imdecode_backend='pillow'")),
    ('1 bit by cv2', one_bit_by_cv2, 'train', ('1 bit', "imdecode_backend='pillow'")),
    ('lossy', lossy, 'train', ('JPEG', 'PNG')),
    ('half jpg', lambda d: rename(d.paths('images', 'train')[::2], '.jpg'), 'train', ('4 of 8', "'.png'", '00000.jpg')),
    ('half PNG', lambda d: rename(d.paths('images', 'train')[::2], '.PNG'), 'train', ('4 of 8', '00000.PNG')),
    ('both PNG', lambda d: rename(d.paths('*', 'val')[::2], '.PNG'), 'val', ('not used', '00000.PNG')),
    ('all jpg', lambda d: rename(d.paths('images', 'train'), '.jpg'), 'train', ("8 end in '.jpg'", 'img_suffix')),
    ('default suffix', lambda d: d.train.pop('img_suffix'), 'train', ("'.jpg'", "8 end in '.png'", 'img_suffix')),
    ('mask missing', lambda d: d.path().unlink(), 'train', ('images/train/00001.png', 'masks/train/00001.png')),
    ('masks PNG', lambda d: rename(d.paths(split='val'), '.PNG'), 'val', ('there is 00000.PNG', 'seg_map_suffix')),
    ('no mask folder', lambda d: shutil.rmtree(d.root / 'masks/val'), 'val', ('masks/val', 'seg_map_path')),
    ('no image folder', lambda d: d.val.data_prefix.update(img_path='imges'), 'val', ('imges', 'img_path')),
    ('no key of masks', lambda d: d.val.data_prefix.pop('seg_map_path'), 'val', ('seg_map_path', "'img_path'")),
    ('no list', lambda d: d.train.update(ann_file='train.txt'), 'train', ('train.txt', 'ann_file')),
    (
        'suffix in list',
        lambda d: list_of_train(d, '00000.png\n'),
        'train',
        ('line 1', 'without img_suffix'),
    ),
    ('line empty', lambda d: list_of_train(d, '00000\n\n00001\n'), 'train', ('line 2', "''")),
    ('list empty', lambda d: list_of_train(d, ''), 'train', ('train.txt', 'empty')),
    ('image empty', lambda d: cut(d.path('images'), 0), 'train', ('images/train/00001.png', 'empty')),
    ('image cut', lambda d: cut(d.path('images', 'val')), 'val', ('images/val/00001.png',)),
    ('mask empty', lambda d: cut(d.path(), 0), 'train', ('masks/train/00001.png', 'empty')),
    ('mask cut', lambda d: cut(d.path(split='val')), 'val', ('masks/val/00001.png',)),
    ('html', lambda d: d.path('images').write_text('<html>'), 'train', ('images/train/00001.png', 'no image')),
    ('size', lambda d: rewrite(d.path(), lambda m: m[:48]), 'train', ('64x48', '64x64', 'masks/train/00001.png')),
    ('size val', lambda d: rewrite(d.path(split='val'), lambda m: m[::2, ::2]), 'val', ('32x32', '64x64')),
    ('reduce twice', both_reduce, 'train', ('False', 'True', 'LoadAnnotations')),
    ('own classes', own_classes, 'train', ("'a', 'b', 'c'", 'ADE20KDataset', "type='BaseSegDataset'")),
    ('no comma', lambda d: d.set(metainfo=dict(classes=('digit'))), 'train', ("'digit'", "('digit',)")),
    ('no classes', lambda d: d.train.pop('metainfo'), 'train', ('metainfo.classes', 'missing')),
    (
        'class twice',
        lambda d: d.train.update(metainfo=dict(classes=('a', 'a', *'0123456789'))),
        'train',
        ("'a'", 'once'),
    ),
    ('two suffixes', lambda d: d.train.update(img_suffix=('.png', '.jpg')), 'train', ('img_suffix', "'.png'")),
    ('palette short', lambda d: d.train.metainfo.update(palette=[[0, 0, 0]]), 'train', ('palette', 'match')),
    ('classes reversed', classes_reversed, 'val', ("'background'",)),
    ('class renamed', other_class, 'val', ("'nine'", 'training')),
    ('image damaged', lambda d: damage(d.path('images')), 'train', ('images/train/00001.png',)),
    ('mask damaged', lambda d: damage(d.path(split='val')), 'val', ('masks/val/00001.png',)),
    ('fractions', fractions, 'train', ('00000.tif', 'whole numbers')),
    ('folders swapped', swapped, 'train', ('images/train/00000.png', 'RGB')),
    ('from 1', lambda d: d.masks(lambda m: m + 1), 'train', ('11', 'numbered from 1', 'reduce_zero_label=True')),
    ('masks not loaded', lambda d: d.train.pipeline.pop(1), 'train', ('LoadAnnotations', 'pipeline')),
    ('masks not loaded val', lambda d: d.val.pipeline.pop(1), 'val', ('LoadAnnotations', 'pipeline')),
    ('ignore_index', lambda d: d.train.update(ignore_index=0), 'train', ('ignore_index is 0', 'decode_head')),
    ('all ignored', lambda d: d.masks(lambda m: m * 0 + 255), 'train', ('every pixel', 'ignored')),
    ('list not text', binary_list, 'train', ('train.txt', 'UTF-8')),
    ('prefix None', lambda d: d.val.update(data_prefix=None), 'val', ('data_prefix.img_path', 'nothing')),
    ('flipped in evaluation', flipped, 'val', ('IoU of', "'background'", 'predicted as it is', 'masks/val/00000.png')),
    ('reduced and not ignored', reduced, 'train', ('the value 0', 'which is ignored', 'label 255')),
    ('masks resized', resized_masks, 'val', ('before LoadAnnotations', '(64, 64)')),
]
# What layer 1 alone can see: a setting that nothing reads, and a name of two classes.
ONLY_STRUCTURE = {'ignore_index', 'class twice'}


def named(faults: list[Fault]) -> list[Any]:
    return [pytest.param(*fault[1:], id=fault[0]) for fault in faults]


@pytest.mark.parametrize(('mutate', 'split', 'words'), named(FAULTS))
def test_faults_are_named(mutate: Callable[[Data], Any], split: str, words: tuple[str, ...], data: Data) -> None:
    mutate(data)
    report = data.check()
    lines = [line for line in report.error_lines() if line.startswith(f'{split}: ')]
    assert any(all(word in line for word in words) for line in lines), list(report.error_lines())


@pytest.mark.parametrize(
    ('mutate', 'split', 'words'), named([fault for fault in FAULTS if fault[0] not in ONLY_STRUCTURE])
)
def test_faults_are_found_without_layer_1(
    mutate: Callable[[Data], Any], split: str, words: tuple[str, ...], data: Data
) -> None:
    mutate(data)
    report = data.check('conservation', 'oracle')
    assert report.kinds(split), report.summary()
