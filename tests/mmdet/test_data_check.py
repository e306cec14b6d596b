"""Layers 2 and 3 of the data check for detection: they find faults by themselves, with layer 1 switched off."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from PIL import Image

from mmcv_custom.datasets import check_datasets
from tests.mmcv import coco_files
from tests.mmdet.digit_files import LATER, Json, change, check, use_polygons
from tests.support import CONFIGS

CLASSES = tuple('0123456789')
CHOSEN = ('bird', 'cat', 'dog')  # of the categories of coco_files


def test_the_demo_passes_all_layers(folder: Path) -> None:
    report = check(layers=('structure', *LATER))
    assert not report.failed, list(report.error_lines())
    assert report.contents == {'train': {'images': 8, 'objects': 54}, 'val': {'images': 3, 'objects': 20}}
    assert not report.unchecked


def of_all(key: str, value: Any) -> Callable[[Json], None]:
    def edit(content: Json) -> None:
        for annotation in content['annotations']:
            annotation[key] = value(annotation) if callable(value) else value

    return edit


def of_first(key: str, value: Any) -> Callable[[Json], None]:
    def edit(content: Json) -> None:
        use_polygons(content)
        content['annotations'][0][key] = value

    return edit


def corners(annotation: Json) -> list[float]:
    x, y, w, h = annotation['bbox']
    return [x, y, x + w, y + h]


def polygons(content: Json, change_number: Callable[[float], float]) -> None:
    use_polygons(content)
    for annotation in content['annotations']:
        annotation['segmentation'] = [list(map(change_number, part)) for part in annotation['segmentation']]


def normalised(annotation: Json) -> list[float]:
    return [number / 64 for number in annotation['bbox']]


FAULTS: dict[str, tuple[str, Callable[[Json], Any], str, str]] = {
    'categories of val reversed': (
        'val', lambda d: d['categories'].reverse(), 'names of classes', "'9' gets label 0"
    ),
    'categories of train reversed': (
        'train', lambda d: d['categories'].reverse(), 'names of classes', "'9' gets label 0"
    ),
    'annotation id 0': (
        'val', lambda d: d['annotations'][0].update(id=0), 'truth is not reached', 'bbox_mAP 0.889'
    ),
    'normalised boxes': ('train', of_all('bbox', normalised), 'no object is used', '54 narrower than a pixel'),
    'corners': ('train', of_all('bbox', corners), 'boxes are corners', '[x, y, width, height]'),
    'polygons divided by the size': ('train', lambda d: polygons(d, lambda v: v / 64), 'boxes beside masks', '0.00'),
    'box not finite': (
        'train', lambda d: d['annotations'][0].update(bbox=[math.nan, 1, 9, 9]), 'objects not used', '1 of 54'
    ),
    'size -1': ('train', lambda d: d['images'][0].update(width=-1, height=-1), 'objects not used', '9 of 54'),
    'other size': ('val', lambda d: d['images'][0].update(width=640), 'image of another size', 'says'),
    'polygon of four numbers': ('train', of_first('segmentation', [[1, 2, 3, 4]]), 'objects not used', '1 of 9'),
    'polygon of seven numbers': ('train', of_first('segmentation', [[1.0] * 7]), 'objects not used', '1 of 9'),
    'polygon without numbers': ('train', of_first('segmentation', [[]]), 'objects not used', '1 of 9'),
    'no polygon': ('train', of_first('segmentation', []), 'image cannot be loaded', '00000.png'),
    'no mask': ('val', of_first('segmentation', None), 'image cannot be loaded', '00000.png'),
    'short part of a mask': (
        'val', of_first('segmentation', [[1, 2], [1, 2, 9, 2, 9, 9]]), 'truth cannot be evaluated', 'val.json'
    ),
    'all crowd': ('train', of_all('iscrowd', 1), 'no object is used', '54 crowd'),
    'texts as image ids': ('train', of_all('image_id', lambda a: str(a['image_id'])), 'no object is used', '54'),
    'no iscrowd': (
        'val', lambda d: [a.pop('iscrowd') for a in d['annotations']], 'truth cannot be evaluated', 'iscrowd'
    ),
    'no area': ('train', lambda d: [a.pop('area') for a in d['annotations']], 'dataset cannot be built', 'area'),
    'no width': ('train', lambda d: d['images'][0].pop('width'), 'dataset cannot be built', 'width'),
    'images moved': (
        'train', lambda d: d['images'][0].update(file_name='gone.png'), 'image cannot be loaded', 'gone.png'
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', FAULTS)
def test_faults_of_annotation_files(folder: Path, name: str) -> None:
    split, edit, kind, words = FAULTS[name]
    change(folder, split, edit)
    report = check()
    assert kind in report.kinds(split), list(report.error_lines())
    assert any(words in line for line in report.error_lines()), list(report.error_lines())
    assert {key[2] for key in report._lines} == {split}


def test_a_short_part_does_no_harm_to_training(folder: Path) -> None:
    change(folder, 'train', of_first('segmentation', [[1, 2], [1, 2, 9, 2, 9, 9]]))
    assert not check().failed


@pytest.mark.parametrize(
    ('classes', 'kind', 'words'),
    [
        (tuple('abcdefghij'), 'no object is used', '54 class not selected'),
        (('0', '1', 'Two', *CLASSES[3:]), 'names of classes', "'3' gets label 2, which"),
        (CLASSES[::-1], 'names of classes', "'0' gets label 0"),
        ('1', 'names of classes', 'with a comma'),
        (CLASSES, None, ''),
        (CLASSES[2:5], None, ''),  # a selection
    ],
)
def test_classes(folder: Path, classes: Any, kind: str | None, words: str) -> None:
    report = check({f'{split}_dataloader.dataset.metainfo.classes': classes for split in ('train', 'val', 'test')})
    assert report.kinds('train') == ({kind} if kind else set())
    assert any(words in line for line in report.error_lines()) or kind is None


def test_other_order_in_both_the_classes_and_the_file_of_val(folder: Path) -> None:
    change(folder, 'val', lambda d: d['categories'].reverse())
    report = check({f'{split}_dataloader.dataset.metainfo.classes': CLASSES[::-1] for split in ('val', 'test')})
    assert report.kinds() == {'labels of classes'}
    assert "'0' has 9 and there 0" in next(report.error_lines())


@pytest.mark.parametrize('orientation', [1, 6])
def test_images_that_exif_turns(folder: Path, orientation: int) -> None:
    """The file holds 64x96 pixels, and so says the JSON; loaded with orientation 6 they are 96x64."""

    def edit(content: Json) -> None:
        use_polygons(content)
        content['images'][0].update(file_name='turned.jpg', width=64, height=96)

    change(folder, 'val', edit)
    image = Image.new('RGB', (64, 96))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(folder / 'images/val/turned.jpg', exif=exif)
    assert check().kinds() == ({'image of another size'} if orientation == 6 else set())


def test_other_images_in_the_evaluator(folder: Path) -> None:
    def edit(content: Json) -> None:
        for image in content['images']:
            image['id'] += 100
        for annotation in content['annotations']:
            annotation['image_id'] += 100

    shutil.copy(folder / 'annotations/val.json', folder / 'annotations/other.json')
    change(folder, 'other', edit)
    assert check({'val_evaluator.ann_file': 'data/digits/annotations/other.json'}).kinds('val') == {'other images'}


@pytest.mark.parametrize('name', ['', '<html></html>'])
def test_images_that_are_none(folder: Path, name: str) -> None:
    (folder / 'images/train/00003.png').write_text(name)
    report = check()
    assert report.kinds('train') == {'image cannot be loaded'}
    assert 'images/train/00003.png' in next(report.error_lines())


def test_limits_of_the_metric_are_notes(folder: Path) -> None:
    """Boxes without area, and more objects of a class than the metric judges."""

    def edit(content: Json) -> None:
        use_polygons(content)
        first = content['annotations'][0]
        content['annotations'] += [{**first, 'id': 1000 + i} for i in range(120)]
        content['annotations'].append({**first, 'id': 2000, 'bbox': [1, 1, 0, 5]})

    change(folder, 'val', edit)
    report = check({'val_evaluator.metric': ['bbox'], 'test_evaluator.metric': ['bbox']})
    assert not report.failed, list(report.error_lines())
    reasons = {name: count for name, count in report.notes['val'].items() if 'metric' in name}
    assert reasons == {
        'boxes without area, which the metric cannot match': 1,
        'objects beyond the 100 per class and image that the metric judges': 21,
    }


def test_images_of_train_and_val(folder: Path) -> None:
    """The same file, and a copy of it under another name."""
    shared = 'images that are in the training data too'
    assert shared not in check().notes['val']
    for i, name in enumerate(('00000.png', '00001.png')):
        shutil.copy(folder / 'images/train' / name, folder / f'images/val/{i}.png')
    change(folder, 'val', lambda d: [d['images'][i].update(file_name=f'{i}.png') for i in range(2)])
    assert check().notes['val'][shared] == 2
    prefix = {f'{split}_dataloader.dataset.data_prefix.img': 'images/train/' for split in ('val', 'test')}
    same = {f'{split}_dataloader.dataset.ann_file': 'annotations/train.json' for split in ('val', 'test')}
    evaluator = {f'{split}_evaluator.ann_file': 'data/digits/annotations/train.json' for split in ('val', 'test')}
    assert check({**prefix, **same, **evaluator}).notes['val'][shared] == 8


def test_wrappers_are_looked_through(folder: Path) -> None:
    change(folder, 'train', lambda d: d['categories'].reverse())
    cfg = Config.fromfile(CONFIGS / 'demo/mask-rcnn_digits.py')
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[inner, inner])
    )
    report = check_datasets(cfg, ('train',), layers=LATER)
    assert report.kinds() == {'names of classes'}
    assert 'train_dataloader.dataset.dataset.datasets.1' in ' '.join(report.error_lines())


def test_random_states_stay(folder: Path) -> None:
    import random

    import numpy as np
    import torch

    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    check()
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


@pytest.mark.parametrize('config', ['mask-rcnn', 'dino'])
def test_what_the_datasets_of_the_field_hold_passes(config: str, tmp_path: Path) -> None:
    """Crowds, boxes without size, ids with gaps, images without objects, a selection of classes in the file's order."""
    files = {split: coco_files.write(tmp_path, coco_files.peculiar(), split) for split in ('train', 'val')}
    options: Json = {}
    for split, file in (('train', files['train']), ('val', files['val']), ('test', files['val'])):
        options[f'{split}_dataloader.dataset'] = dict(
            data_root='', ann_file=file, data_prefix=dict(img=f'{tmp_path}/images/'), metainfo=dict(classes=CHOSEN)
        )
    options |= {f'{split}_evaluator.ann_file': files['val'] for split in ('val', 'test')}
    report = check(options, layers=('structure', *LATER), config=config)
    assert not report.failed, list(report.error_lines())
    text = '5 of 17 objects are not used: 2 narrower than a pixel, 1 flag "ignore", 1 class not selected, 1 crowd'
    assert report.notes['train'][text] == 5
    assert report.notes['val']['boxes without area, which the metric cannot match'] == 1
    assert report.notes['val']['images that are in the training data too'] == 4


def test_test_data_alone_are_compared_with_the_labels_of_training(folder: Path) -> None:
    change(folder, 'val', lambda d: d['categories'].reverse())
    cfg = Config.fromfile(CONFIGS / 'demo/mask-rcnn_digits.py')
    cfg.test_dataloader.dataset.metainfo = dict(classes=CLASSES[::-1])
    assert check_datasets(cfg, ('test',)).kinds() == {'labels of classes'}
    (folder / 'annotations/train.json').unlink()
    report = check_datasets(cfg, ('test',))
    assert not report.failed and 'labels of training (cannot read' in report.summary()


def test_items_of_metrics_are_known_before_the_first_evaluation(folder: Path) -> None:
    def items(*names: str) -> dict:
        return {f'{split}_evaluator.metric_items': list(names) for split in ('val', 'test')}

    assert not check(items('mAP_50', 'AR@100')).failed
    report = check(items('mAP', 'AR@10'))
    assert report.kinds() == {'truth cannot be evaluated'} and 'AR@10' in next(report.error_lines())


def test_a_training_file_may_hold_some_of_the_classes(folder: Path) -> None:
    """Labels of all training data count."""
    half = json.loads((folder / 'annotations/train.json').read_text())
    half['categories'] = half['categories'][:5]
    half['annotations'] = [item for item in half['annotations'] if item['category_id'] <= 5]
    (folder / 'annotations/half.json').write_text(json.dumps(half))
    cfg = Config.fromfile(CONFIGS / 'demo/mask-rcnn_digits.py')
    whole = cfg.train_dataloader.dataset
    for datasets in ([dict(whole, ann_file='annotations/half.json'), whole], [whole, whole]):
        cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=datasets)
        report = check_datasets(cfg, ('train', 'val'), layers=LATER)
        assert not report.failed, list(report.error_lines())


@pytest.mark.parametrize('edit', [lambda d: d['categories'][0].pop('id'), lambda d: d.update(categories=None)])
def test_damaged_training_data_do_not_stop_a_test(edit: Callable[[Json], Any], folder: Path) -> None:
    """Only their labels are asked, and the report says that it could not read them."""
    change(folder, 'train', edit)
    report = check_datasets(Config.fromfile(CONFIGS / 'demo/mask-rcnn_digits.py'), ('test',))
    assert not report.failed and 'labels of training (data/digits/annotations/train.json' in report.summary()
