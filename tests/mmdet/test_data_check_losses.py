"""What the data check for detection says is lost on the way: once and with its reason, and never of good data."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.config import Config

from mmcv_custom.datasets import Report, Source, check_datasets
from mmdet_custom.data_check import CocoCheck
from mmdet_custom.data_check.objects import mask_box
from mmdet_custom.data_check.oracle import Truth, judge
from tests.mmdet.digit_files import LATER, Json, change, check, use_polygons
from tests.support import CONFIGS

ALL = ('structure', *LATER)


@DATASETS.register_module()
class ShiftingDataset(CocoDataset):
    """Moves all boxes, and leaves out the objects of odd ids on request."""

    def __init__(self, *args: Any, drops: bool = False, **kwargs: Any) -> None:
        self.drops = drops
        super().__init__(*args, **kwargs)

    def parse_data_info(self, raw_data_info: dict) -> dict:
        info = super().parse_data_info(raw_data_info)
        for instance in info['instances']:
            instance['bbox'][0] -= 0.25
        if self.drops:
            info['instances'] = info['instances'][::2]
        return info


@TRANSFORMS.register_module()
class DropsHalf:
    """Drops objects by a generator of its own, which leaves the random states as they are."""

    def __call__(self, results: dict) -> dict:
        keep = np.flatnonzero(np.random.default_rng(0).random(len(results['gt_ignore_flags'])) < 0.5)
        for key in ('gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags', 'gt_masks'):
            results[key] = results[key][keep]
        return results


def pipeline_with(*transforms: Json) -> Json:
    """An option that adds transforms behind the two that load."""
    pipeline = Config.fromfile(CONFIGS / 'demo/mask-rcnn_digits.py').train_dataloader.dataset.pipeline
    return {'train_dataloader.dataset.pipeline': [*pipeline[:2], *transforms, *pipeline[2:]]}


@pytest.mark.parametrize(
    ('transform', 'name'),
    [(dict(type='FilterAnnotations', min_gt_bbox_wh=(12, 12)), 'FilterAnnotations'), (dict(type='DropsHalf'),) * 2],
)
def test_what_a_transform_leaves_out_is_a_note(folder: Path, transform: Json, name: Any) -> None:
    report = check(pipeline_with(transform))
    assert not report.failed, list(report.error_lines())
    name = name if isinstance(name, str) else transform['type']
    assert report.notes['train'][f'objects that {name} leaves out of the images loaded'] > 0


def test_what_loading_ignores_is_an_error_behind_any_transform(folder: Path) -> None:
    def edit(content: Json) -> None:
        use_polygons(content)
        content['annotations'][0]['segmentation'] = [[1, 2, 3, 4]]

    change(folder, 'train', edit)
    (line,) = check(pipeline_with(dict(type='DropsHalf'))).error_lines()
    assert 'objects not used' in line and '1 of 9 objects' in line and 'ignored by LoadAnnotations' in line


def test_a_pipeline_that_refuses_all_images(folder: Path) -> None:
    report = check(pipeline_with(dict(type='FilterAnnotations', min_gt_bbox_wh=(60, 60))))
    assert report.kinds() == {'no image is used'}
    assert 'train_dataloader.dataset.pipeline refuses all 8 images' in next(report.error_lines())


def test_losses_are_told_once(folder: Path) -> None:
    def edit(content: Json) -> None:
        use_polygons(content)
        for annotation in content['annotations'][:9]:
            annotation['iscrowd'] = 1
        for annotation in content['annotations'][9:12]:
            annotation['bbox'][2] = 0.5

    change(folder, 'train', edit)
    report = check(layers=ALL)
    assert not report.failed, list(report.error_lines())
    text = '12 of 54 objects are not used: 9 crowd, 3 narrower than a pixel'
    assert report.notes['train'][text] == 12
    assert f'{text};' in report.summary() and report.summary().count('crowd') == 1


def test_classes_without_objects_are_named(folder: Path) -> None:
    change(folder, 'val', lambda d: d.update(annotations=[a for a in d['annotations'] if a['category_id'] < 4]))
    (text,) = [note for note in check().notes['val'] if note.startswith('classes without')]
    assert text == "classes without objects: '3', '4', '5', '6', '7' and 2 more"
    assert not any(note.startswith('classes') for note in check().notes['train'])


@pytest.mark.parametrize('split', ['val', 'test'])
@pytest.mark.parametrize('edit', [lambda d: d['annotations'].clear(), lambda d: d.pop('annotations')])
def test_a_file_without_objects_cannot_be_judged(folder: Path, split: str, edit: Any) -> None:
    change(folder, 'val', edit)
    report = check_datasets(Config.fromfile(CONFIGS / 'demo/mask-rcnn_digits.py'), ('train', split), layers=LATER)
    assert not report.failed, list(report.error_lines())
    assert report.unchecked == [f'CocoMetric on the truth of {split}_dataloader.dataset (it has no objects)']


@pytest.mark.parametrize('drops', [False, True])
def test_a_dataset_class_may_change_boxes(folder: Path, drops: bool) -> None:
    """Then nobody can say which of the file's objects are missing, unless more are missing than were changed."""
    options = {'train_dataloader.dataset.type': 'ShiftingDataset', 'train_dataloader.dataset.drops': drops}
    report = check(options)
    assert report.contents['train']['objects'] == (30 if drops else 54)
    assert report.kinds() == ({'objects not used'} if drops else set())
    assert report.notes['train']['objects that ShiftingDataset changes or adds'] == (30 if drops else 54)


@pytest.mark.parametrize(
    ('instance', 'error'),
    [
        (dict(bbox=[1, 1, 20, 20], bbox_label=0, ignore_flag=0), ''),
        (dict(bbox=[1, 1, 20, 20], ignore_flag=0), 'objects cannot be read: train_dataloader.dataset: KeyError: bbox_'),
    ],
)
def test_a_file_of_mmdet_without_sizes(folder: Path, instance: Json, error: str) -> None:
    images = [dict(img_path='00000.png', img_id=0, instances=[instance])]
    Path('base.json').write_text(json.dumps(dict(metainfo=dict(classes=('a', 'b')), data_list=images)))
    cfg = Config.fromfile(CONFIGS / 'demo/mask-rcnn_digits.py')
    cfg.train_dataloader.dataset = dict(
        type='BaseDetDataset',
        ann_file='base.json',
        data_prefix=dict(img_path='data/digits/images/train'),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)],
    )
    lines = list(check_datasets(cfg, ('train',)).error_lines())
    assert len(lines) == bool(error) and error in ''.join(lines)


@pytest.mark.parametrize('ann_file', [None, 's3://bucket/annotations.json'])
def test_files_on_other_machines_are_left_out(folder: Path, ann_file: str | None) -> None:
    options: Json = {}
    for split in ('train', 'val', 'test'):
        options[f'{split}_dataloader.dataset.backend_args'] = dict(backend='petrel')
        if ann_file:
            options[f'{split}_dataloader.dataset.ann_file'] = ann_file
    report = check(options, layers=ALL)
    assert not report.failed, list(report.error_lines())
    what = 'annotation file of train_dataloader.dataset' if ann_file else 'train_dataloader.dataset as it is loaded'
    assert any(what in reason for reason in report.unchecked)


def test_a_truth_on_another_machine_is_left_out(folder: Path) -> None:
    report = check({f'{split}_evaluator.ann_file': 's3://bucket/val.json' for split in ('val', 'test')})
    what = 'CocoMetric on the truth of val_dataloader.dataset (its ann_file is not on this machine)'
    assert (report.failed, report.unchecked) == (False, [what])
    report = check({f'{split}_evaluator.ann_file': 'gone.json' for split in ('val', 'test')})
    assert report.kinds() == {'truth cannot be evaluated'}


def test_an_annotation_file_that_should_be_here(folder: Path) -> None:
    assert check({'train_dataloader.dataset.ann_file': 'gone.json'}, layers=ALL).kinds('train') == {'annotation file'}


def test_panoptic_files_are_not_said_to_be_counted(folder: Path) -> None:
    report = check({'train_dataloader.dataset.type': 'CocoPanopticDataset'}, layers=ALL)
    assert 'train_dataloader.dataset (CocoPanopticDataset: segments of panoptic files)' in report.unchecked


def test_the_way_out_is_the_same_in_all_splits(folder: Path) -> None:
    change(folder, 'val', lambda d: d['categories'].reverse())
    for layers in (ALL, LATER):
        (line,) = check(layers=layers).error_lines()
        assert 'val.json' in line and '--fix' in line and 'classes=' not in line and 'write' not in line


@pytest.mark.parametrize('key', ['image', 'category'])
@pytest.mark.parametrize('classwise', [False, True])
def test_ids_may_be_strings(folder: Path, key: str, classwise: bool) -> None:
    """CocoMetric fails on ids of categories that are strings, but only for the scores of classes."""

    def edit(content: Json) -> None:
        for item in content['images' if key == 'image' else 'categories']:
            item['id'] = f'a{item["id"]}'
        for item in content['annotations']:
            item[f'{key}_id'] = f'a{item[f"{key}_id"]}'

    for split in ('train', 'val'):
        change(folder, split, edit)
    report = check({f'{split}_evaluator.classwise': classwise for split in ('val', 'test')}, layers=ALL)
    assert report.kinds() == ({'category id'} if key == 'category' and classwise else set())
    assert not report.failed or "'a1', 'a2', 'a3', 'a4', 'a5' and 5 more" in next(report.error_lines())


def test_reasons_of_many_objects_with_strings_as_ids(tmp_path: Path) -> None:
    """Comparing each object with each image would take minutes."""
    images = [dict(id=f'image {i}', width=99, height=99) for i in range(20_000)]
    objects = [
        dict(id=i, image_id=f'image {i // 3}', category_id=f'c{i % 2}', bbox=[1, 1, 9, 9], area=81)
        for i in range(60_000)
    ]
    content = dict(images=images, annotations=objects, categories=[dict(id=f'c{i}', name=str(i)) for i in range(2)])
    (tmp_path / 'train.json').write_text(json.dumps(content))
    cfg = dict(type='mmdet.CocoDataset', ann_file=str(tmp_path / 'train.json'))
    check = CocoCheck(Source('train', 'dataset', cfg), Report())
    infos = [dict(img_id=image['id']) for image in images[1:]]
    start = time.monotonic()
    reasons = check._reasons(check.file, SimpleNamespace(cat2label={'c0': 0}), infos)
    assert time.monotonic() - start < 10
    assert reasons[:5].tolist() == ['image left out', 'class not selected', 'image left out', *reasons[[1, 4]]]


@pytest.mark.parametrize('mask', [[1, 1, 9, 1, 9, 9], 3, [[1, 2, 3]], [[]], dict(counts=[1]), 'x', None, [['a'] * 6]])
def test_masks_that_nothing_reads_may_be_anything(folder: Path, mask: Any) -> None:
    for split in ('train', 'val'):
        change(folder, split, lambda d: [a.update(segmentation=mask) for a in d['annotations']])
    cfg = Config.fromfile(CONFIGS / 'demo/dino_digits.py')
    options = {
        f'{split}_dataloader.dataset.pipeline.{i}.with_mask': False
        for split in ('train', 'val', 'test')
        for i, transform in enumerate(cfg[f'{split}_dataloader'].dataset.pipeline)
        if transform.type == 'LoadAnnotations'
    }
    report = check(options, config='dino', layers=ALL)
    assert not report.failed, list(report.error_lines())
    assert mask_box(dict(segmentation=mask)) is None
    assert mask_box(dict(segmentation=[[1, 2, 9, 2, 9, 9]])) == [1, 2, 8, 7]


@pytest.mark.parametrize('metric', ['CocoMetric', 'CompatLVISMetric'])
def test_large_images_with_many_objects_are_judged_by_run_lengths(monkeypatch: Any, metric: str) -> None:
    """LVISMetric takes pixels only."""
    image = dict(id=1, width=60, height=40, neg_category_ids=[], not_exhaustive_category_ids=[])
    polygon = [1, 1, 20, 1, 20, 20, 1, 20]
    common = dict(image_id=1, category_id=7, iscrowd=0, segmentation=[polygon], bbox=[1, 1, 19, 19], area=361)
    categories = [dict(id=7, name='a', frequency='f', image_count=1, instance_count=1)]
    truth = Truth([image], [dict(common, id=1)], categories, {1: (40, 60)})
    if metric == 'CocoMetric':
        monkeypatch.setattr('mmdet_custom.data_check.oracle._pixels', None)
    cfg = dict(type=f'mmdet.{metric}' if metric == 'CocoMetric' else metric, metric=['bbox', 'segm'])
    meta = dict(classes=('a',))
    assert judge(cfg, meta, truth, truth, {'a': 0}).scores == {}
    moved = [dict(common, id=1, bbox=[9, 9, 19, 19], segmentation=[[v + 8 for v in polygon]])]
    assert set(judge(cfg, meta, truth, Truth([image], moved, categories, truth.shapes), {'a': 0}).scores)
