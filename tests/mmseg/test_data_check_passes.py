"""The data check of segmentation passes what the field's datasets legitimately hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from numpy.typing import NDArray
from PIL import Image

from mmcv_custom.datasets import check_datasets
from tests.configs.test_segmentation_datasets import DATA, make_dataset
from tests.mmseg.seg_data import (
    SPLITS,
    THREE,
    TWO,
    Data,
    by_cv2,
    list_of_train,
    one_pixel,
    rename,
    rewrite,
    with_palette,
)
from tests.support import CONFIGS


def ignored_border(data: Data) -> None:
    data.masks(one_pixel(255))


def reduced(data: Data) -> None:
    data.classes(THREE)
    data.set(reduce_zero_label=True)


def selection(data: Data) -> None:
    data.set(type='ADE20KDataset', metainfo=dict(classes=('tree', 'wall')))


def selected_by_list(data: Data) -> None:
    list_of_train(data, '00000\r\n00003\n')


def turned(data: Data) -> None:
    for path in data.paths('images', 'train'):
        rewrite(path, lambda pixels: pixels[:48])
    for path in data.paths(split='train'):
        rewrite(path, lambda labels: np.rot90(labels[:48]))
    for path in data.paths('images', 'train'):
        image = Image.open(path)
        image.getexif()[0x0112] = 6
        image.save(path, exif=image.getexif())


def other_files(data: Data) -> None:
    (data.root / 'images/train/Thumbs.db').write_bytes(b'x')
    (data.root / 'images/train/.hidden.jpg').write_bytes(b'x')
    (data.root / 'masks/train/README.txt').write_text('masks')


def half_a_mask(data: Data) -> None:
    data.masks(lambda labels: labels[::2, ::2], 'train')
    resize = dict(type='RandomResize', scale=(64, 64), ratio_range=(0.5, 2.0), keep_ratio=True)
    data.train.pipeline = [*data.train.pipeline[:2], resize, data.train.pipeline[2]]


def wrapped(data: Data) -> None:
    loader = data.cfg.train_dataloader
    loader.dataset = dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[data.train] * 2))


def without_masks(data: Data) -> None:
    data.val.pipeline.pop(1)
    data.cfg.val_evaluator.format_only = True


def some_binary(data: Data) -> None:
    data.classes(TWO)
    for path in data.paths(split='train')[::2]:
        rewrite(path, lambda labels: labels * 255)


def deep(pixels: NDArray) -> NDArray:
    return pixels[..., 0].astype(np.uint16) * 257


LEGITIMATE: list[tuple[str, Callable[[Data], Any], tuple[str, ...]]] = [
    ('nothing changed', lambda d: None, ('train: 8 images', 'val: 3 images')),
    ('255', ignored_border, ('ignored pixels, 0.0 % of all, of value 255 (8)',)),
    (
        'reduce_zero_label',
        reduced,
        ('% of all, of value 0 by reduce_zero_label', "masks read: 'c'"),
    ),
    ('selected classes', selection, ('of classes that metainfo.classes does not name',)),
    ('selected images', selected_by_list, ('2 images', 'images that the list of images leaves out (6)')),
    ('some images', lambda d: d.train.update(indices=4), ('its indices or its filter (4)',)),
    ('palette', lambda d: (d.classes(THREE), d.masks(with_palette)), ('train: 8 images',)),
    ('1 bit', lambda d: (d.classes(TWO), d.masks(lambda m: m > 0)), ('train: 8 images',)),
    ('16 bits', lambda d: d.masks(lambda m: m.astype(np.uint16)), ('train: 8 images',)),
    ('cv2', by_cv2, ('train: 8 images',)),
    ('grey image', lambda d: rewrite(d.path('images'), lambda m: m[..., 0]), ('train: 8 images',)),
    ('turned images', turned, ('which masks must show turned too (8)',)),
    ('image without a mask', lambda d: rename([d.paths('images')[0]], '.x.jpg'), ('and without a mask, not used',)),
    ('mask without an image', lambda d: d.path('images').unlink(), ('7 images', 'masks without an image (1)')),
    ('other files', other_files, ('train: 8 images',)),
    ('masks of another size', half_a_mask, ('in the same proportions (8)',)),
    ('wrappers', wrapped, ('train: 16 images',)),
    ('nan_to_num', lambda d: d.cfg.val_evaluator.update(nan_to_num=0), ('count as 0: at best mIoU 90.91',)),
    ('format_only', lambda d: d.cfg.val_evaluator.update(format_only=True), ('metric IoUMetric, format_only',)),
    ('no masks', without_masks, ("val_dataloader.dataset: masks, mmseg's LoadAnnotations",)),
    ('list is a folder', lambda d: d.set(ann_file='annotations'), ('train: 8 images',)),
    ('listed twice', lambda d: list_of_train(d, '00000\n00000\n00001\n'), ('that the list names again (1)',)),
    ('some masks of 255', some_binary, ('masks of 0 and 255 only, which is ignored (4)',)),
    (
        'deep images',
        lambda d: rewrite(d.path('images'), deep),
        ('images of more than 8 bits, which are loaded as 8 (1)',),
    ),
    ('other metric', lambda d: d.cfg.val_evaluator.update(type='DepthMetric'), ('metric DepthMetric',)),
    ('remote', lambda d: d.set(backend_args=dict(backend='petrel')), ('files, which are not on this machine',)),
    (
        'ignored class',
        lambda d: d.cfg.model.decode_head.update(ignore_index=0),
        ("of class 'background', which is the ignore_index",),
    ),
]


@pytest.mark.parametrize(
    ('change', 'words'), [pytest.param(change, words, id=name) for name, change, words in LEGITIMATE]
)
def test_legitimate_data_pass(change: Callable[[Data], Any], words: tuple[str, ...], data: Data) -> None:
    change(data)
    report = data.check()
    assert list(report.error_lines()) == []
    assert [word for word in words if word not in report.summary()] == [], report.summary()


@pytest.mark.parametrize('config_name', DATA)
def test_the_zoos_datasets_pass(config_name: str, tmp_path: Path) -> None:
    cfg = Config.fromfile(CONFIGS / 'segmentation' / f'{config_name}.py', import_custom_modules=False)
    init_default_scope(cfg.default_scope)
    training = cfg.train_dataloader.dataset
    for part in (*training.get('datasets', [training]), cfg.val_dataloader.dataset):
        values = 19 if part.type == 'CityscapesDataset' else len(DATA[config_name])
        labels = (np.arange(64 * 128).reshape(64, 128) % values).astype(np.uint8)
        labels[0, :3] = 255
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        dataset = make_dataset(part, root, labels)
        part.data_root = dataset.data_root
        if part.type == 'CityscapesDataset':  # what else stands in its folders
            for name in ('photo_gtFine_color.png', 'photo_gtFine_labelIds.png', 'photo_gtFine_instanceIds.png'):
                Image.new('RGBA', (4, 4)).save(Path(dataset.data_prefix['seg_map_path'], name))
    report = check_datasets(cfg, SPLITS)
    assert list(report.error_lines()) == []
    assert report.contents['val'] == {'images': 1, 'masks read': 1} and report.unchecked == []


def test_random_states_stay(data: Data) -> None:
    data.train.pipeline.insert(2, dict(type='RandomFlip', prob=0.5))
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert not data.check().failed
    assert torch.equal(torch.get_rng_state(), before[0]) and np.array_equal(np.random.get_state()[1], before[1])


@pytest.mark.parametrize('full', [False, True])
def test_masks_are_sampled(full: bool, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ('structure', 'conservation', 'oracle'):
        monkeypatch.setattr(f'mmseg_custom.data_check.{module}.MASKS', 3)
    rewrite(data.path(), one_pixel(37))
    report = data.check(full=full)
    assert report.failed == full and (full or report.contents['train'] == {'images': 8, 'masks read': 3})


@pytest.mark.parametrize(('largest', 'black'), [(1020, True), (65535, False)])
def test_deep_images_that_become_black(largest: int, black: bool, data: Data) -> None:
    """cv2 divides 16 bits by 256, whatever range they use."""
    for path in data.paths('images', 'train'):
        pixels = np.array(Image.open(path).convert('L')).astype(np.uint32) * largest // 255
        pixels.flat[0] = largest
        Image.fromarray(pixels.astype(np.uint16)).save(path)
    report = data.check()
    assert report.kinds() == ({'images become black'} if black else set()), list(report.error_lines())
    assert not black or 'the values 0 to 1020 of this image and others are loaded as 0 to 3' in next(
        report.error_lines()
    )
