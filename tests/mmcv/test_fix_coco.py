"""Repairs of COCO files: the check passes on the copy, and the original stays as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmcv_custom.datasets.coco_fix import fix_annotations
from mmcv_custom.datasets.coco_rules import CocoRules
from mmcv_custom.datasets.coco_structure import check_structure
from mmcv_custom.datasets.report import Report
from mmcv_custom.errors import UserError
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
    mask,
    peculiar,
    plain,
    source_of,
    update,
    without,
    write,
)

GOOD = [1, 1, 9, 1, 9, 9]


def nothing(data: Data) -> None:
    pass


def without_birds(data: Data) -> None:
    data['categories'].pop()
    data['annotations'] = [item for item in data['annotations'] if item['category_id'] != 3]


def slashes(data: Data) -> None:
    data['images'][1]['file_name'] = '.\\1.png'


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (without('annotations', 'area'), '1 areas'),
        (update('annotations', area=None), '1 areas'),
        (each(lambda a: a.update(area=0)), '12 areas'),
        (update('annotations', id=2), '12 ids of annotations'),
        (update('annotations', id='1'), '12 ids of annotations'),
        (without('annotations', 'id'), '12 ids of annotations'),
        (each(lambda a: a.update(image_id=str(a['image_id']))), '12 image_id of another type'),
        (update('annotations', category_id='1'), '1 category_id of another type'),
        (without('images', 'width', 'height'), '1 sizes of images'),
        (update('images', width=-1, height=-1), '1 sizes of images'),
        (update('images', width=64.0), '1 sizes of images'),
        (slashes, '1 names of images'),
        (update('images', file_name='images/0.png'), '1 names of images'),
        (update('images', file_name='/data/local-files/?d=x%2F0.png'), '1 names of images'),
        (each(exchanged, 'images'), '4 exchanged widths and heights of images'),
        (mask(GOOD), '1 masks that are a flat list'),
        (lambda data: data['categories'].reverse(), '3 categories in another order'),
        (update('categories', name=' Cat'), '1 names of categories'),
        (update('categories', 2, name='bi\u200brd'), '1 names of categories'),
        (update('categories', 2, name='bir\uff44'), '1 names of categories'),
        (each(corners), '12 boxes that were two corners'),
        (each(divided), '12 boxes that were shares of the image'),
    ],
)
def test_the_copy_passes_the_check(tmp_path: Path, split: str, change: Callable[[Data], Any], words: str) -> None:
    data = plain()
    change(data)
    assert check(tmp_path, data, split).failed
    path = tmp_path / f'{split}.json'
    before = path.read_bytes()
    lines = fix_annotations(source_of(tmp_path, split), str(tmp_path / 'fixed'), CLASSES)
    assert path.read_bytes() == before
    copy = tmp_path / 'fixed' / f'{split}_dataloader.dataset.json'
    assert f'{copy} is written; repaired: {words}' in lines[0]
    assert f'{split}_dataloader.dataset.ann_file={str(copy)!r}' in lines
    report = Report()
    check_structure(str(copy), source_of(tmp_path, split), report, True, CLASSES)
    assert list(report.error_lines()) == []


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (each(lambda a: a.pop('iscrowd')), '12 iscrowd'),
        (without_birds, '1 categories without objects added'),
        (update('annotations', id=0), '12 ids of annotations'),
        (mask([GOOD[:4], GOOD]), '1 polygons of less than three points'),
    ],
)
def test_what_only_an_evaluation_needs(tmp_path: Path, change: Callable[[Data], Any], words: str) -> None:
    data = plain()
    change(data)
    assert check(tmp_path, data, 'val').failed
    assert words in fix_annotations(source_of(tmp_path, 'val'), str(tmp_path / 'fixed'), CLASSES)[0]
    check(tmp_path, data, 'train')
    assert fix_annotations(source_of(tmp_path, 'train'), str(tmp_path / 'fixed'), CLASSES) == []


@pytest.mark.parametrize(
    'change',
    [
        update('images', 2, width=HEIGHT, height=WIDTH),  # of one image among others
        lambda data: (
            each(exchanged, 'images')(data),
            update('annotations', bbox=[1, 50, 9, 9], segmentation=[])(data),
        ),
        lambda data: data['categories'].pop(),  # objects name its id
        lambda data: (without_birds(data), update('categories', name='birds')(data)),
    ],
    ids=['one size', 'objects of the size', 'objects without a category', 'another spelling'],
)
def test_what_has_no_one_right_answer(tmp_path: Path, change: Callable[[Data], Any]) -> None:
    data = plain()
    change(data)
    assert check(tmp_path, data, 'val').failed
    lines = ''.join(fix_annotations(source_of(tmp_path, 'val'), str(tmp_path / 'fixed'), CLASSES))
    assert 'exchanged' not in lines and 'added' not in lines


def test_a_missing_class_may_be_spelled_like_another(tmp_path: Path) -> None:
    data = plain()
    path, classes = write(tmp_path, data, 'val'), (*CLASSES, 'birds')
    (line,) = check(tmp_path, data, 'val', classes).error_lines()
    assert 'did you mean' not in line and 'let --fix add' in line
    assert '1 categories without objects added' in fix_annotations(source_of(tmp_path, 'val'), f'{path}.d', classes)[0]


def as_strings(data: Data, text: str) -> None:
    for item in data['categories']:
        item['id'] = text.format(item['id'])
    for item in data['annotations']:
        item['category_id'] = text.format(item['category_id'])


@pytest.mark.parametrize(('text', 'numbers'), [('c{}', [2, 3, 1]), ('{}0', [10, 20, 30])])
def test_ids_of_categories_that_are_strings(tmp_path: Path, text: str, numbers: list[int]) -> None:
    """They become the numbers that they say, else those of the sorted names, which are the same in all splits."""
    data = plain()
    as_strings(data, text)
    path, source = write(tmp_path, data, 'val'), source_of(tmp_path, 'val')
    assert fix_annotations(source, str(tmp_path / 'fixed'), CLASSES) == []  # no metric fails on them
    source.evaluators[0]['classwise'] = True
    report = Report()
    check_structure(path, source, report, True, CLASSES)
    assert report.kinds() == {'category id'} and '--fix' in next(report.error_lines())
    assert '3 ids of categories' in fix_annotations(source, str(tmp_path / 'fixed'), CLASSES)[0]
    copy = tmp_path / 'fixed' / 'val_dataloader.dataset.json'
    fixed = json.loads(copy.read_text())
    assert [(c['id'], c['name']) for c in fixed['categories']] == list(zip(numbers, CLASSES, strict=True))
    before = plain()['annotations']
    assert [a['category_id'] for a in fixed['annotations']] == [numbers[a['category_id'] - 1] for a in before]
    report = Report()
    check_structure(str(copy), source, report, True, CLASSES)
    assert not report.failed


@pytest.mark.parametrize('rules', [CocoRules(sorted_ids=True), CocoRules()])
def test_ids_of_categories_without_one_right_answer(tmp_path: Path, rules: CocoRules) -> None:
    data = plain()
    as_strings(data, 'c{}')
    if not rules.sorted_ids:
        data['categories'][0]['name'] = 'dog'
    write(tmp_path, data, 'val')
    source = source_of(tmp_path, 'val')
    source.evaluators[0]['classwise'] = True
    assert fix_annotations(source, str(tmp_path / 'fixed'), None, rules) == []


@pytest.mark.parametrize('make', [plain, peculiar])
def test_nothing_to_repair(tmp_path: Path, make: Callable[[], Data]) -> None:
    write(tmp_path, make(), 'val')
    classes = CLASSES if make is plain else ('bird', 'cat', 'dog')
    assert fix_annotations(source_of(tmp_path, 'val'), str(tmp_path / 'fixed'), classes) == []
    assert not (tmp_path / 'fixed').exists()


def test_areas_are_those_of_the_masks(tmp_path: Path) -> None:
    data = plain()
    without('annotations', 'area')(data)
    data['annotations'][1].update(
        area=None, segmentation=dict(size=[HEIGHT, WIDTH], counts=[5, 7, HEIGHT * WIDTH - 12])
    )
    data['annotations'][2].update(area=None, segmentation=[])
    write(tmp_path, data)
    fix_annotations(source_of(tmp_path), str(tmp_path / 'fixed'), CLASSES)
    fixed = json.loads((tmp_path / 'fixed' / 'train_dataloader.dataset.json').read_text())
    assert [item['area'] for item in fixed['annotations'][:3]] == [160, 7, 30 * 30.25]


@pytest.mark.parametrize(
    ('box', 'repaired'), [([4, 50, 20, 10], True), ([50, 4, 10, 20], False), ([4, 4, 9, 9], False)]
)
def test_boxes_tell_whether_they_are_of_the_turned_image(tmp_path: Path, box: list[float], repaired: bool) -> None:
    data = plain()
    path = write(tmp_path, data)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (WIDTH, HEIGHT)).save(tmp_path / 'images' / '0.jpg', exif=exif)
    data['images'] = [dict(data['images'][0], file_name='0.jpg')]
    data['annotations'] = [dict(data['annotations'][0], bbox=box)]
    Path(path).write_text(json.dumps(data))
    lines = fix_annotations(source_of(tmp_path), str(tmp_path / 'fixed'), CLASSES)
    assert ('1 sizes of images that EXIF turns' in ''.join(lines)) == repaired


def test_the_metric_gets_the_copy_too(tmp_path: Path) -> None:
    data = plain()
    without('annotations', 'area')(data)
    path = write(tmp_path, data, 'val')
    source = source_of(tmp_path, 'val')
    source.evaluators[0]['ann_file'] = path
    lines = fix_annotations(source, str(tmp_path / 'fixed'), CLASSES)
    assert lines[2].startswith("val_evaluator.ann_file='")


def test_a_byte_order_mark_is_taken_out(tmp_path: Path) -> None:
    path = Path(write(tmp_path, plain()))
    path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes())
    assert '1 byte order mark' in fix_annotations(source_of(tmp_path), str(tmp_path / 'fixed'), CLASSES)[0]


def test_files_that_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / 'train.json').write_text('{"images": [')
    (line,) = fix_annotations(source_of(tmp_path), str(tmp_path / 'fixed'), CLASSES)
    assert 'train.json is left as it is: Expecting' in line
    (tmp_path / 'train.json').write_text('{}')
    (line,) = fix_annotations(source_of(tmp_path), str(tmp_path / 'fixed'), CLASSES)
    assert "it has no list 'images'" in line


def test_no_file_is_written_over(tmp_path: Path) -> None:
    data = plain()
    without('annotations', 'area')(data)
    write(tmp_path, data)
    fix_annotations(source_of(tmp_path), str(tmp_path / 'fixed'), CLASSES)
    with pytest.raises(UserError, match='exists: name a new folder'):
        fix_annotations(source_of(tmp_path), str(tmp_path / 'fixed'), CLASSES)
