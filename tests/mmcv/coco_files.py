"""Small COCO datasets for tests: a plain one, and one with what the field's datasets legitimately hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmcv_custom.datasets.coco_rules import DEFAULT_RULES, CocoRules
from mmcv_custom.datasets.coco_structure import check_structure
from mmcv_custom.datasets.report import Report
from mmcv_custom.datasets.sources import Source

Data = dict[str, Any]
CLASSES = ('cat', 'dog', 'bird')
WIDTH, HEIGHT = 64, 48


def polygon(x: float, y: float, width: float, height: float) -> list[float]:
    """A rhombus in a box."""
    return [x, y + height / 2, x + width / 2, y, x + width, y + height / 2, x + width / 2, y + height]


def annotation(identity: int, image: int, category: int, box: list[float], **fields: Any) -> Data:
    """An object with a mask of one polygon."""
    mask = [polygon(*box)]
    area = box[2] * box[3] / 2
    known = dict(id=identity, image_id=image, category_id=category, bbox=box, area=area, iscrowd=0, segmentation=mask)
    return {**known, **fields}


def plain() -> Data:
    """Four images with three objects each."""
    images = [dict(id=i, file_name=f'{i}.png', width=WIDTH, height=HEIGHT) for i in range(4)]
    boxes = [[4.0, 6.0, 20.0, 16.0], [40.0, 25.0, 20.0, 20.0], [30.5, 2.0, 30.0, 30.25]]
    annotations = [
        annotation(1 + 3 * i + j, i, 1 + (i + j) % 3, list(box)) for i in range(4) for j, box in enumerate(boxes)
    ]
    categories = [dict(id=1 + i, name=name) for i, name in enumerate(CLASSES)]
    return dict(images=images, annotations=annotations, categories=categories)


def peculiar() -> Data:
    """What COCO, LVIS and Objects365 hold and a check must let pass."""
    data = plain()
    data['info'] = dict(description='peculiarities', year=2017)
    data['licenses'] = [dict(id=1, name='CC BY', url='http://example.org')]
    big = 2**40 + 7
    for i, image in enumerate(data['images']):
        image.update(id=big + 5 * i, license=1, coco_url=f'http://images.example/{i}.png', date_captured='2013-11-14')
        image.update(neg_category_ids=[90], not_exhaustive_category_ids=[], flickr_url='')
    # ids with gaps and not in order; an image without objects
    data['categories'] = [
        dict(id=90, name='bird', supercategory='animal', frequency='r', synset='bird.n.01', image_count=1),
        dict(id=3, name='cat', supercategory='animal', frequency='c', instance_count=7),
        dict(id=44, name='dog', supercategory='animal', keypoints=['nose', 'tail'], skeleton=[[1, 2]]),
        dict(id=45, name='unused', supercategory='thing'),
    ]
    ids = {1: 3, 2: 44, 3: 90}
    objects = [item for item in data['annotations'] if item['image_id'] != 3]
    for item in objects:
        item.update(id=900100000000 + 17 * item['id'], image_id=big + 5 * item['image_id'])
        item.update(category_id=ids[item['category_id']], keypoints=[1, 2, 2, 0, 0, 0], num_keypoints=1, isfake=0)
    identity = 7
    for fields in (
        dict(bbox=[10.0, 10.0, 0.0, 5.0], area=0.0),  # no width
        dict(bbox=[10.0, 10.0, 0.4, 0.4], area=0.16),  # below a pixel
        dict(bbox=[-3.5, 10.0, 20.0, 40.0], area=300.5),  # over the border
        dict(bbox=[63.99, 10.0, 30.0, 10.0], area=100),
        dict(bbox=[5.0, 5.0, 10.0, 10.0], area=99.5, isreflected=1, istruncated=1, isfake=1),
        dict(bbox=[5, 5, 10, 10], area=100, ignore=1),
        dict(bbox=[5.0, 5.0, 10.0, 10.0], area=100.0, category_id=45),  # of a category that is not chosen
    ):
        objects.append(annotation(identity, big, 3, [5.0, 5.0, 10.0, 10.0], **fields))
        identity += 10
    run_lengths = dict(size=[HEIGHT, WIDTH], counts=[10, 30, HEIGHT * WIDTH - 40])
    objects.append(
        annotation(identity, big + 5, 44, [0.0, 0.0, 30.0, 30.0], iscrowd=1, area=30, segmentation=run_lengths)
    )
    data['annotations'] = objects
    return data


def write(root: Path, data: Data, split: str = 'train') -> str:
    """Writes an annotation file and a picture for each image that it names; returns the path of the file."""
    folder = root / 'images'
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(4):
        if not (folder / f'{i}.png').exists():
            pixels = np.full((HEIGHT, WIDTH, 3), 40 * i, np.uint8)
            Image.fromarray(pixels).save(folder / f'{i}.png')
    path = root / f'{split}.json'
    path.write_text(json.dumps(data))
    return str(path)


def source_of(root: Path, split: str = 'train', **cfg: Any) -> Source:
    evaluators = (
        [] if split == 'train' else [dict(type='CocoMetric', ann_file=f'{split}.json', metric=['bbox', 'segm'])]
    )
    known = dict(type='CocoDataset', data_root=f'{root}/', ann_file=f'{split}.json', data_prefix=dict(img='images/'))
    return Source(split, f'{split}_dataloader.dataset', {**known, **cfg}, evaluators)


def check(
    root: Path,
    data: Data,
    split: str = 'train',
    classes: Sequence[str] | None = CLASSES,
    masks: bool = True,
    rules: CocoRules = DEFAULT_RULES,
    **cfg: Any,
) -> Report:
    report = Report()
    check_structure(write(root, data, split), source_of(root, split, **cfg), report, masks, classes, rules=rules)
    return report


def first(data: Data) -> Data:
    return data['annotations'][0]


def each(change: Callable[[Data], Any], key: str = 'annotations') -> Callable[[Data], Any]:
    return lambda data: [change(item) for item in data[key]]


def corners(item: Data) -> None:
    x, y, width, height = item['bbox']
    item['bbox'] = [x, y, x + width, y + height]


def divided(item: Data) -> None:
    item['bbox'] = [number / (WIDTH if i % 2 == 0 else HEIGHT) for i, number in enumerate(item['bbox'])]


def exchanged(image: Data) -> None:
    image.update(width=image['height'], height=image['width'])


def mask(segmentation: Any) -> Callable[[Data], None]:
    return lambda data: first(data).update(segmentation=segmentation)


def update(key: str, place: int = 0, **fields: Any) -> Callable[[Data], None]:
    return lambda data: data[key][place].update(fields)


def without(key: str, *names: str) -> Callable[[Data], None]:
    return lambda data: [data[key][0].pop(name) for name in names]
