"""The structure of COCO files: every fault is found, and what is legitimate passes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as run_lengths

from mmcv_custom.datasets.coco_rules import CocoRules
from mmcv_custom.datasets.coco_structure import check_structure
from mmcv_custom.datasets.report import Report
from tests.mmcv.coco_files import (
    CLASSES,
    HEIGHT,
    WIDTH,
    Data,
    check,
    corners,
    divided,
    each,
    exchanged,
    first,
    mask,
    peculiar,
    plain,
    source_of,
    update,
    without,
    write,
)

GOOD = [1, 1, 9, 1, 9, 9]
FULL, PART = (run_lengths.encode(np.ones((HEIGHT, width), np.uint8, 'F'))['counts'].decode() for width in (WIDTH, 9))


def repeated(data: Data) -> None:
    data['annotations'] += [dict(item, id=item['id'] + 100) for item in data['annotations']]


def shifted(step: int) -> Callable[[Data], Any]:
    return each(lambda item: item.update(category_id=item['category_id'] + step))


FAULTS: list[tuple[str, str, Callable[[Data], Any], str, str]] = [
    # split, kind, change, words
    ('train', 'annotation file', lambda d: d.pop('images'), "no list 'images'", ''),
    ('train', 'annotation file', lambda d: d.pop('categories'), "no list 'categories'", ''),
    ('train', 'annotation file', lambda d: d.pop('annotations'), "no list 'annotations'", ''),
    ('val', 'annotation file', lambda d: d['annotations'].clear(), "an empty list 'annotations'", ''),
    ('train', 'annotation file', lambda d: d.update(images={}), 'images is {}, expected a list', ''),
    ('train', 'annotation file', lambda d: d['annotations'].append(3), 'annotations[12] is 3', ''),
    ('train', 'annotation id', without('annotations', 'id'), 'at place 0: id is absent', ''),
    ('train', 'annotation id', update('annotations', id=True), 'id is True, expected a whole number', ''),
    ('train', 'annotation id', each(lambda a: a.update(id=str(a['id']))), 'its id is a string', ''),
    ('train', 'annotation id twice', update('annotations', id=2), 'annotation 2: another annotation', ''),
    ('val', 'annotation id below 1', update('annotations', id=0), 'annotation 0: its id is below 1', ''),
    ('val', 'annotation id below 1', update('annotations', id=-7), 'annotation -7: its id is below 1', ''),
    ('train', 'annotation image_id', without('annotations', 'image_id'), 'image_id is absent', ''),
    ('train', 'unknown image_id', update('annotations', image_id=77), 'no entry has the id 77', ''),
    ('train', 'unknown image_id', update('annotations', image_id='0'), "image_id is '0', a str, and the list", ''),
    ('train', 'unknown category_id', update('annotations', category_id=0), 'no entry has the id 0 that its cat', ''),
    ('train', 'annotation category_id', update('annotations', category_id=None), 'category_id is absent', ''),
    ('train', 'annotation bbox', without('annotations', 'bbox'), 'bbox is absent, expected [x, y, width', ''),
    ('train', 'annotation bbox', update('annotations', bbox=[1, 2, 3]), 'bbox is [1, 2, 3], expected', ''),
    ('train', 'annotation bbox', update('annotations', bbox=['1', 2, 3, 4]), "bbox is ['1', 2, 3, 4]", ''),
    ('train', 'annotation bbox', update('annotations', bbox='none'), "bbox is 'none'", ''),
    ('train', 'annotation area', update('annotations', area='big'), "area is 'big'", ''),
    ('train', 'annotation iscrowd', update('annotations', iscrowd=2), 'iscrowd is 2', ''),
    ('train', 'no area', without('annotations', 'area'), 'annotation 1: area is absent', '--fix'),
    ('val', 'no area', without('annotations', 'area'), 'annotation 1: area is absent', '--fix'),
    ('val', 'no iscrowd', without('annotations', 'iscrowd'), 'annotation 1: iscrowd is absent', '--fix'),
    ('train', 'annotation bbox', each(lambda a: a.pop('bbox')), 'bbox is absent', ''),
    ('train', 'annotation bbox', each(lambda a: a.update(bbox=[])), 'bbox is []', ''),
    ('train', 'annotation bbox', each(lambda a: a.update(bbox=dict(x=1))), "bbox is {'x': 1}", ''),
    ('val', 'annotation bbox', each(lambda a: a.update(bbox=list(map(str, a['bbox'])))), "bbox is ['4.0'", ''),
    ('train', 'category_id off by one', shifted(-1), 'objects are 0 to 2, and the ids of the categories 1 to 3', ''),
    ('train', 'category_id off by one', shifted(1), 'objects are 2 to 4, and the ids of the categories 1 to 3', ''),
    ('train', 'unknown category_id', shifted(2), 'no entry has the id 4', ''),
    ('train', 'box not finite', update('annotations', bbox=[math.nan, 1, 5, 5]), 'bbox is [nan, 1, 5, 5]', ''),
    ('train', 'box not finite', update('annotations', bbox=[1, 1, math.inf, 5]), 'bbox is [1, 1, inf, 5]', ''),
    ('train', 'box far outside', update('annotations', bbox=[1, 1, 1e7, 5]), 'bbox is [1, 1, 1e+07, 5]', ''),
    ('train', 'area not finite', update('annotations', area=math.nan), 'area is nan', ''),
    ('train', 'box of negative size', update('annotations', bbox=[9, 9, -4, 5]), 'bbox is [9, 9, -4, 5]', ''),
    ('train', 'normalised boxes', each(divided), 'the 12 boxes look like shares of the image', 'in pixels'),
    ('train', 'boxes are corners', each(corners), 'the 12 boxes look like two corners', 'in pixels'),
    ('train', 'boxes outside', each(lambda a: a.update(bbox=[200, 200, 9, 9])), 'none of 12 boxes lies', ''),
    ('train', 'boxes too small', each(lambda a: a.update(bbox=[2, 2, 0.2, 9])), 'all 12 boxes are narrower', ''),
    ('train', 'no area', each(lambda a: a.update(area=0)), 'the area of all 12 objects is 0', ''),
    ('train', 'objects repeated', repeated, 'each of its 12 objects is there 2 times', ''),
    ('train', 'only crowds', each(lambda a: a.update(iscrowd=1)), 'all 12 objects are marked', ''),
    ('val', 'only crowds', each(lambda a: a.update(ignore=1)), 'all 12 objects are marked', ''),
    ('train', 'no mask', mask([]), 'annotation 1: its segmentation is []', ''),
    ('train', 'no mask', mask(None), 'annotation 1: it has no segmentation', ''),
    ('val', 'no mask', without('annotations', 'segmentation'), 'annotation 1: it has no segmentation', ''),
    ('train', 'mask is a flat list', mask(GOOD), 'expected a list of polygons', ''),
    ('train', 'mask not finite', mask([[math.nan, *GOOD[1:]]]), 'NaN or infinite', ''),
    ('train', 'mask not finite', mask([GOOD, [-math.inf, *GOOD[1:]]]), 'NaN or infinite', ''),
    ('train', 'mask far outside', mask([[1e9, *GOOD[1:]]]), 'reaches to 1e+09', ''),
    ('train', 'malformed mask', mask([['a', *GOOD[1:]]]), "a polygon is ['a', 1, 9", ''),
    ('train', 'malformed mask', mask([[None, *GOOD[1:]]]), 'a polygon is [None, 1, 9', ''),
    ('train', 'malformed mask', mask('poly'), "segmentation is 'poly'", ''),
    ('train', 'malformed mask', mask(dict(counts=[1])), 'size of its run lengths is None', ''),
    ('train', 'malformed mask', mask(dict(size=[HEIGHT, WIDTH])), 'its counts are None', ''),
    ('train', 'malformed mask', mask(dict(size=[HEIGHT, WIDTH], counts=[-1, 3073])), 'its counts are [-1, 3073]', ''),
    ('train', 'malformed mask', mask(dict(size=[HEIGHT, WIDTH], counts='~~')), 'no compressed run lengths', ''),
    ('train', 'run lengths do not fit', mask(dict(size=[HEIGHT, WIDTH], counts=[5])), 'cover 5 pixels', '= 3072'),
    ('train', 'run lengths do not fit', mask(dict(size=[HEIGHT, WIDTH], counts=PART)), 'cover 432 pixels', '= 3072'),
    ('train', 'run lengths of another size', mask(dict(size=[WIDTH, HEIGHT], counts=FULL)), 'a mask 64x48', '48x64'),
    ('train', 'polygon too short', mask([GOOD[:4]]), '4 numbers, expected 6 or more', ''),
    ('train', 'polygon too short', mask([[]]), '0 numbers, expected 6 or more', ''),
    ('val', 'polygon too short', mask([GOOD[:2]]), '2 numbers, expected 6 or more', ''),
    ('train', 'polygon too short', mask([[*GOOD, 3]]), '7 numbers', ''),
    ('train', 'polygon of an odd number', mask([GOOD, [*GOOD, 3, 3, 3]]), '6, 9 numbers, expected pairs', ''),
    ('val', 'short polygon first', mask([GOOD[:4], GOOD]), '4, 6 numbers', ''),
    ('train', 'category', without('categories', 'name'), "categories[0] is {'id': 1}, expected", ''),
    ('train', 'category id', update('categories', id=2), '2 categories have the id 2', ''),
    (
        'train',
        'category name',
        lambda d: d['categories'].append(dict(id=9, name='dog')),
        "2 categories have the name 'dog'",
        '',
    ),
    ('train', 'order of classes', lambda d: d['categories'].reverse(), "label 0 is 'bird', and metainfo", '--fix'),
    ('val', 'order of classes', lambda d: d['categories'].reverse(), "label 0 is 'bird', and metainfo", '--fix'),
    ('train', 'class not in the file', update('categories', name='Cat'), "class 'cat' of", "mean 'Cat'?"),
    ('train', 'class not in the file', update('categories', 2, name='bird '), "class 'bird' of", "mean 'bird '?"),
    ('val', 'class not in the file', update('categories', 2, name='bi\u200brd'), "'bird' and", r"'bi\u200brd')"),
    ('val', 'class not in the file', lambda d: d['categories'].pop(), "class 'bird' of", 'let --fix add the category'),
    (
        'train',
        'class not in the file',
        update('categories', 1, name='cow'),
        "class 'dog' of",
        'label of the one before',
    ),
    ('val', 'class not in the file', update('categories', 2, name='cow'), "class 'bird' of", 'metric fails'),
    ('train', 'no class matches', each(lambda c: c.update(name=c['name'] * 2), 'categories'), "'catcat'", 'classes=('),
    ('train', 'image id', without('images', 'id'), 'image at place 0 (0.png): id is absent', ''),
    ('train', 'image id twice', update('images', id=1), 'image 1 (1.png): another image has the same id', ''),
    ('train', 'image size', without('images', 'width'), 'image 0 (0.png): width is absent', '--fix'),
    ('train', 'image size', update('images', height=-1), 'image 0 (0.png): height is -1', '--fix'),
    ('val', 'image size', update('images', height='48'), "image 0 (0.png): height is '48'", '--fix'),
    ('train', 'image size', update('images', height=48.0), 'image 0 (0.png): height is 48.0', '--fix'),
    ('val', 'width and height exchanged', each(exchanged, 'images'), 'the image is 64x48 ', 'says 48x64; --fix'),
    ('train', 'image of another size', update('images', width=32), 'the image is 64x48', 'the file says 32x48'),
    ('train', 'file name', without('images', 'file_name'), 'file_name is absent', ''),
    ('train', 'file name', update('images', file_name=3), 'it is 3, expected the path', ''),
    ('train', 'file twice', update('images', file_name='1.png'), 'image 1 (1.png): image 0 has the same file', ''),
    ('train', 'image file', update('images', file_name='.\\0.png'), '0.png: it has backslashes', '--fix'),
    ('train', 'image file', update('images', file_name='images/0.png'), 'begins with the image folder', '--fix'),
    ('train', 'image file', update('images', file_name='/home/a/0.png'), 'begins with other folders', '--fix'),
    ('train', 'image file', update('images', file_name='/data/local-files/?d=x/0.png'), 'it is a URL', '--fix'),
    ('train', 'image file', update('images', file_name='0.PNG'), '0.png: it differs in upper', '--fix'),
    ('train', 'image file', update('images', file_name='0.jpg'), '0.png: it has another suffix', '--fix'),
    ('train', 'image file', update('images', file_name='none.png'), 'there is no file', ''),
]


def test_a_plain_file_is_clean(tmp_path: Path) -> None:
    for split in ('train', 'val', 'test'):
        report = check(tmp_path, plain(), split)
        assert (list(report.error_lines()), report.summary()) == ([], '')


@pytest.mark.parametrize(
    ('split', 'kind', 'change', 'words', 'way_out'), FAULTS, ids=[f'{f[0]} {f[1]} {f[3]}' for f in FAULTS]
)
def test_faults_are_errors(
    tmp_path: Path, split: str, kind: str, change: Callable[[Data], Any], words: str, way_out: str
) -> None:
    data = plain()
    change(data)
    report = check(tmp_path, data, split)
    lines = [line for line in report.error_lines() if line.startswith(f'{split}: {kind}: ')]
    assert any(words in line and way_out in line for line in lines), list(report.error_lines())
    assert report.kinds() - {'unknown image_id', 'unknown category_id'} <= {kind}  # follows from ids of the lists
    assert str(tmp_path) in lines[0]


@pytest.mark.parametrize('split', ['train', 'val'])
def test_what_the_datasets_of_the_field_hold_makes_notes(tmp_path: Path, split: str) -> None:
    classes = ('bird', 'cat', 'dog')
    report = check(tmp_path, peculiar(), split, classes)
    assert list(report.error_lines()) == []
    assert report.notes[split] == {
        'categories that are not chosen': 1,
        'boxes over the border': 2,
    }


def test_lvis_has_no_crowds_and_names_images_by_url(tmp_path: Path) -> None:
    data = plain()
    for item in data['annotations']:
        del item['iscrowd']
    for image in data['images']:
        image['coco_url'] = f'http://images.example/{image.pop("file_name")}'
    assert check(tmp_path, data).kinds() == {'file name'}
    nameless = json.loads(json.dumps(data))
    nameless['images'][0]['coco_url'] = None
    rules = CocoRules(lambda image: image['coco_url'].rpartition('/')[2], by_name=False)
    assert not check(tmp_path, data, rules=rules).failed
    assert check(tmp_path, nameless, rules=rules).kinds() == {'file name'}
    report = check(tmp_path, data, classes=('cat', 'hound', 'bird'), rules=rules)
    assert (report.failed, report.notes['train']) == (False, {'classes spelled otherwise than in the file': 1})
    assert check(tmp_path, data, classes=('cat', 'dog'), rules=rules).kinds() == {'classes'}
    assert check(tmp_path, data, classes=('dog', 'cat', 'bird'), rules=rules).kinds() == {'order of classes'}
    assert check(tmp_path, data, classes=('a', 'b', 'c'), rules=rules).kinds() == {'no class matches'}


def test_some_datasets_sort_their_categories(tmp_path: Path) -> None:
    data = plain()
    data['categories'].reverse()
    assert check(tmp_path, data).kinds() == {'order of classes'}
    assert not check(tmp_path, data, rules=CocoRules(sorted_ids=True)).failed


@pytest.mark.parametrize(
    ('classes', 'kind', 'words'),
    [
        ('cat', 'classes', "is the string 'cat', expected a tuple: ('cat',)"),
        (('cat', 'cat', 'dog', 'bird'), 'classes', "has 'cat' 2 times"),
        (('dog',), None, ''),
        (('cat', 'bird'), None, ''),
        (('bird', 'cat'), 'order of classes', "label 0 is 'cat', and metainfo.classes calls it 'bird'"),
        (None, None, ''),
    ],
)
def test_classes(tmp_path: Path, classes: Any, kind: str | None, words: str) -> None:
    report = check(tmp_path, plain(), classes=classes)
    assert report.kinds() == ({kind} if kind else set())
    assert words in '\n'.join(report.error_lines())


@pytest.mark.parametrize(
    ('change', 'split', 'note'),
    [
        (update('annotations', id=0), 'train', 'annotation ids below 1'),
        (lambda d: d['annotations'].clear(), 'test', 'files without annotations, whose metrics are -1'),
        (mask([GOOD[:4], GOOD]), 'train', 'masks with a polygon of less than three points'),
        (mask([GOOD, GOOD[:4]]), 'val', 'masks with a polygon of less than three points'),
        (
            update('annotations', 1, bbox=[4.0, 6.0, 20.0, 16.0], category_id=1),
            'val',
            'objects with the box and class of another',
        ),
        (update('categories', 2, name='cow'), 'train', 'classes without a category'),
    ],
)
def test_what_may_be_meant_makes_a_note(tmp_path: Path, change: Callable[[Data], Any], split: str, note: str) -> None:
    data = plain()
    change(data)
    report = check(tmp_path, data, split)
    assert list(report.error_lines()) == []
    assert report.notes[split][note] == 1


@pytest.mark.parametrize(
    'change', [mask(None), mask(GOOD), update('annotations', segmentation=3), update('images', width=64.0)]
)
def test_masks_do_not_matter_to_boxes(tmp_path: Path, change: Callable[[Data], Any]) -> None:
    data = plain()
    change(data)
    assert not check(tmp_path, data, masks=False).failed
    assert check(tmp_path, data, masks=True).failed


def test_fields_that_only_a_metric_needs(tmp_path: Path) -> None:
    data = plain()
    each(lambda a: a.pop('iscrowd'))(data)
    assert not check(tmp_path, data, 'train').failed
    source = source_of(tmp_path, 'val')
    source.evaluators[0].pop('ann_file')  # the metric then takes the truth from the dataset
    report = Report()
    check_structure(write(tmp_path, data, 'val'), source, report, True, CLASSES)
    assert not report.failed


def test_a_metric_that_only_writes_results_needs_no_truth(tmp_path: Path) -> None:
    data = plain()
    first(data)['id'] = 0
    path, source, report = write(tmp_path, data, 'test'), source_of(tmp_path, 'test'), Report()
    check_structure(path, source, report, True, CLASSES)
    assert report.kinds() == {'annotation id below 1'}
    source.evaluators[0]['format_only'] = True
    report = Report()
    check_structure(path, source, report, True, CLASSES)
    assert not report.failed


def test_classes_may_stand_in_a_file(tmp_path: Path) -> None:
    names = tmp_path / 'classes.txt'
    names.write_text('\n'.join(CLASSES))
    assert not check(tmp_path, plain(), classes=str(names)).failed
    names.write_text('\n'.join(CLASSES[::-1]))
    assert check(tmp_path, plain(), classes=str(names)).kinds() == {'order of classes'}


def test_masks_of_objects_that_are_not_used_do_not_matter(tmp_path: Path) -> None:
    data = plain()
    first(data).update(segmentation=None)
    assert not check(tmp_path, data, classes=('dog', 'bird')).failed
    first(data).update(bbox=[70, 70, 5, 5])  # outside: not trained on, but evaluated
    assert not check(tmp_path, data).failed
    assert check(tmp_path, data, 'val').kinds() == {'no mask'}


@pytest.mark.parametrize('boxes', [[[0, 0, 1, 1]] * 3, [[30, 20, 60, 40]]])
def test_few_or_small_boxes_are_no_corners_and_not_normalised(tmp_path: Path, boxes: list[list[float]]) -> None:
    data = plain()
    data['annotations'] = data['annotations'][: len(boxes)]
    for item, box in zip(data['annotations'], boxes, strict=True):
        item['bbox'] = box
    assert not check(tmp_path, data).failed


def test_a_wrong_size_of_an_image_is_named_once(tmp_path: Path) -> None:
    data = plain()
    first(data)['segmentation'] = dict(size=[HEIGHT, WIDTH], counts=FULL)
    data['images'][0].update(width=-1)
    assert check(tmp_path, data, 'val').kinds() == {'image size'}


def test_all_objects_and_not_one_decide_on_corners(tmp_path: Path) -> None:
    data = plain()
    for item in data['annotations'][:4]:
        corners(item)
    assert not check(tmp_path, data).failed


@pytest.mark.parametrize('split', ['train', 'val'])
def test_mmdet_reads_areas_of_all_categories(tmp_path: Path, split: str) -> None:
    """Also of those that are not chosen, but of no object that is to be ignored or that has no image."""
    data = plain()
    without('annotations', 'area')(data)
    assert check(tmp_path, data, split, classes=('dog', 'bird')).kinds() == {'no area'}
    first(data)['ignore'] = 1
    assert not check(tmp_path, data, split, classes=('dog', 'bird')).failed
    first(data).update(ignore=0, image_id=77)
    assert check(tmp_path, data, split, classes=('dog', 'bird')).kinds() == {'unknown image_id'}


@pytest.mark.parametrize('rules', [CocoRules(), CocoRules(by_name=False), CocoRules(sorted_ids=True)])
def test_the_way_out_of_another_order_is_the_file(tmp_path: Path, rules: CocoRules) -> None:
    data = plain()
    data['categories'].reverse()
    for category, identity in zip(data['categories'], (1, 2, 3), strict=True):
        category['id'] = identity
    (line,) = [line for line in check(tmp_path, data, rules=rules).error_lines() if 'order of classes' in line]
    assert ('--fix' in line) == (rules == CocoRules()) and 'classes=' not in line
    assert ('number the categories' in line) == rules.sorted_ids


def test_ids_may_be_strings(tmp_path: Path) -> None:
    data = plain()
    for image in data['images']:
        image['id'] = f'image {image["id"]}'
    for item in data['annotations']:
        item['image_id'] = f'image {item["image_id"]}'
    assert not check(tmp_path, data).failed


def test_ten_lines_of_a_kind(tmp_path: Path) -> None:
    data = plain()
    each(lambda a: a.pop('area'))(data)
    lines = list(check(tmp_path, data).error_lines())
    assert len(lines) == 11 and lines[-1] == 'train: no area: 2 more like this'
