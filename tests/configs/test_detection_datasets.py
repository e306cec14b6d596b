"""The datasets of the detection configs: one image in the published layout is loaded, augmented and scored."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv import imwrite
from mmdet.datasets import CocoDataset, LVISV1Dataset
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, METRICS, init_default_scope
from mmengine.structures import InstanceData

from mmcv_custom.datasets import check_datasets
from tests.support import CONFIGS

HEIGHT, WIDTH, BOX = 120, 160, [20, 30, 100, 90]  # in pixels: left, top, right, bottom


def image(path: str) -> None:
    imwrite(np.zeros((HEIGHT, WIDTH, 3), np.uint8), path)


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def coco() -> None:
    left, top, right, bottom = BOX
    for split in ('train', 'val'):
        image(f'data/coco/{split}2017/000000000001.jpg')
        box = [left, top, right - left, bottom - top]
        outline = [[left, top, right, top, right, bottom, left, bottom]]
        found = dict(id=1, image_id=1, category_id=1, iscrowd=0, bbox=box, area=box[2] * box[3], segmentation=outline)
        images = [dict(id=1, file_name='000000000001.jpg', height=HEIGHT, width=WIDTH)]
        categories = [dict(id=1 + index, name=name) for index, name in enumerate(CocoDataset.METAINFO['classes'])]
        content = dict(images=images, annotations=[found], categories=categories)
        write(f'data/coco/annotations/instances_{split}2017.json', json.dumps(content))


def voc() -> None:
    left, top, right, bottom = (side + 1 for side in BOX)  # counted from 1
    truth = (
        f'<annotation><size><width>{WIDTH}</width><height>{HEIGHT}</height></size><object><name>person</name>'
        f'<difficult>0</difficult><bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax>'
        f'<ymax>{bottom}</ymax></bndbox></object></annotation>'
    )
    for year, split in (('2007', 'trainval'), ('2007', 'test'), ('2012', 'trainval'), ('2012test', 'test')):
        root = f'data/VOCdevkit/VOC{year}'
        image(f'{root}/JPEGImages/000001.jpg')
        write(f'{root}/Annotations/000001.xml', truth)
        write(f'{root}/ImageSets/Main/{split}.txt', '000001\n')


def crowdhuman() -> None:
    left, top, right, bottom = BOX
    box = [left, top, right - left, bottom - top]
    person = dict(tag='person', fbox=box, hbox=box, vbox=box, head_attr={}, extra=dict(box_id=0))
    content = json.dumps(dict(ID='a,1', gtboxes=[person]))
    image('data/CrowdHuman/Images/a,1.jpg')
    for split in ('train', 'val'):
        write(f'data/CrowdHuman/annotations/annotation_{split}.odgt', content + '\n')


def lvis() -> None:
    left, top, right, bottom = BOX
    classes = LVISV1Dataset.METAINFO['classes']
    person = 1 + classes.index('person')
    categories = [dict(id=1 + index, name=name, frequency='f') for index, name in enumerate(classes)]
    box = [left, top, right - left, bottom - top]
    outline = [[left, top, right, top, right, bottom, left, bottom]]
    found = dict(id=1, image_id=1, category_id=person, bbox=box, area=box[2] * box[3], segmentation=outline)
    images = [
        dict(
            id=1,
            coco_url='http://images.cocodataset.org/val2017/000000000001.jpg',
            height=HEIGHT,
            width=WIDTH,
            not_exhaustive_category_ids=[],
            neg_category_ids=[],
        )
    ]
    image('data/lvis_v1/val2017/000000000001.jpg')
    content = json.dumps(dict(images=images, annotations=[found], categories=categories))
    for name in ('train', 'val', 'minival'):
        write(f'data/lvis_v1/annotations/lvis_v1_{name}.json', content)


def openimages() -> None:
    left, top, right, bottom = BOX
    root = 'data/OpenImages'
    write(f'{root}/annotations/class-descriptions-boxable.csv', '/m/1,Person\n/m/2,Dog\n')
    tree = dict(LabelName='/m/0bl9f', Subcategory=[dict(LabelName='/m/1'), dict(LabelName='/m/2')])
    write(f'{root}/annotations/bbox_labels_600_hierarchy.json', json.dumps(tree))
    truth = f'header\na1,x,/m/1,1,{left / WIDTH},{right / WIDTH},{top / HEIGHT},{bottom / HEIGHT},0,0,0,0,0\n'
    for split, name in (('train', 'oidv6-train'), ('validation', 'validation')):
        image(f'{root}/{split}/a1.jpg')
        write(f'{root}/annotations/{name}-annotations-bbox.csv', truth)
        meta = [dict(filename=f'{split}/a1.jpg', ori_shape=(HEIGHT, WIDTH, 3))]
        Path(f'{root}/annotations/{split}-image-metas.pkl').write_bytes(pickle.dumps(meta))
    labels = 'header\na1,verification,/m/1,1\n'
    write(f'{root}/annotations/validation-annotations-human-imagelabels-boxable.csv', labels)


@pytest.mark.parametrize(
    ('pattern', 'make', 'score'),
    [
        ('coco/mask*-t_fpn_1x*', coco, 'coco/segm_mAP'),
        ('coco/mask*-t_fpn_3x*', coco, 'coco/segm_mAP'),
        ('coco/dino*-t_*', coco, 'coco/bbox_mAP'),
        ('coco/dino*_internimage-h_*', coco, 'coco/bbox_mAP'),
        ('voc/*voc07*', voc, 'pascal_voc/mAP'),
        ('voc/*voc12*', voc, 'pascal_voc/mAP'),
        ('crowd_human/*.py', crowdhuman, 'crowd_human/JI'),  # mmdet's AP of CrowdHuman ignores the first detection
        ('lvis/*-val.py', lvis, 'lvis/bbox_AP'),
        ('lvis/*minival.py', lvis, 'lvis/bbox_AP'),
        ('openimages/*.py', openimages, 'openimages/mAP'),
    ],
)
def test_a_perfect_detection_scores_one(
    pattern: str, make: Callable[[], None], score: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make()
    (path,) = (CONFIGS / 'detection').glob(pattern)
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)

    packed = DATASETS.build(cfg.train_dataloader.dataset)[0]
    assert packed['inputs'].ndim == 3 and len(packed['data_samples'].gt_instances) == 1

    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    size = resized(cfg.test_dataloader.dataset.pipeline[1].scale)
    assert dataset[0]['inputs'].shape[1:] == size
    assert evaluate(cfg.test_evaluator, dataset, dataset[0]['data_samples'])[score] == pytest.approx(1)

    dataset.pipeline = Compose(cfg.tta_pipeline)
    views = dataset[0]
    assert [view.shape[1:] for view in views['inputs']] == [size, size]
    assert [view.flip for view in views['data_samples']] == [False, True]
    # A TTA model returns the first view with the merged detections.
    assert evaluate(cfg.test_evaluator, dataset, views['data_samples'][0])[score] == pytest.approx(1)


def resized(scale: tuple[int, int]) -> tuple[int, int]:
    factor = min(max(scale) / max(HEIGHT, WIDTH), min(scale) / min(HEIGHT, WIDTH))
    return round(HEIGHT * factor), round(WIDTH * factor)


def evaluate(config: ConfigDict, dataset: object, sample: DetDataSample) -> dict[str, float]:
    """Scores of one detection, the person in its place."""
    metric = METRICS.build(config)
    metric.num_ji_process = 1  # CrowdHumanMetric would start ten processes for one image
    metric.dataset_meta = dataset.metainfo
    person = dataset.metainfo['classes'].index('Person' if 'Person' in dataset.metainfo['classes'] else 'person')
    left, top, right, bottom = BOX
    mask = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    mask[:, top:bottom, left:right] = True
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor([BOX], dtype=torch.float),
        scores=torch.tensor([0.9]),
        labels=torch.tensor([person]),
        masks=mask,
    )
    metric.process({}, [sample.to_dict()])
    return metric.evaluate(1)


@pytest.mark.parametrize(
    ('pattern', 'make'),
    [
        ('coco/mask*-t_fpn_1x*', coco),
        ('coco/dino*_internimage-h_*', coco),
        ('voc/*voc07*', voc),
        ('voc/*voc12*', voc),
        ('crowd_human/*.py', crowdhuman),
        ('lvis/*-val.py', lvis),
        ('openimages/*.py', openimages),
    ],
)
def test_the_data_check_passes(
    pattern: str, make: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make()
    (path,) = (CONFIGS / 'detection').glob(pattern)
    report = check_datasets(Config.fromfile(path), ('train', 'val', 'test'))
    assert not report.failed, list(report.error_lines())
    assert report.contents['train']['objects'] and report.contents['val']['objects']
