"""COCO files are read as they are, or refused in one line."""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as run_lengths

from mmcv_custom.datasets.coco import CocoFile
from mmcv_custom.datasets.coco_structure import check_structure
from mmcv_custom.datasets.contexts import silence
from mmcv_custom.datasets.report import Report
from mmcv_custom.datasets.rle import compressed_sums
from mmcv_custom.texts import in_words, some
from tests.mmcv.coco_files import (
    CLASSES,
    HEIGHT,
    WIDTH,
    peculiar,
    plain,
    source_of,
    write,
)


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'', 'Expecting'),
        (b'<!DOCTYPE html>', "begins with '<!DOCTYPE html>'"),
        (b'[]', "Expecting '{'"),
        (b'{"images": [}', 'Expecting value'),
        (b'{"images": [{} 2]}', "Expecting ',' or ']'"),
        (b'{"images": []', "Expecting ',' or '}'"),
        (b'{"images": [], }', 'Expecting a key in double quotes'),
        (b'{} {}', 'Extra data'),
        (b'{"images": [], "images": []}', "has the list 'images' twice"),
        (b'\xef\xbb\xbf{}', 'byte order mark'),
        (b'{"images": "\xff"}', 'UTF-8'),
        (b'[' * 100000, 'Expecting'),
        (b'{"a": ' + b'[' * 100000, 'recursion'),
    ],
)
def test_files_that_are_no_annotations(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / 'train.json'
    path.write_bytes(content)
    report = Report()
    assert check_structure(str(path), source_of(tmp_path), report, True, CLASSES) is None
    (line,) = report.error_lines()
    assert words in line and str(path) in line


def test_reading_leaves_the_garbage_collector_as_it_was(tmp_path: Path) -> None:
    CocoFile(write(tmp_path, plain()))
    assert gc.isenabled()


@pytest.mark.parametrize('level', [logging.NOTSET, logging.WARNING])
def test_silence_leaves_logging_as_it_was(level: int) -> None:
    logging.disable(level)
    try:
        with silence():
            with silence():
                assert logging.root.manager.disable == logging.CRITICAL
            assert logging.root.manager.disable == logging.CRITICAL
        assert logging.root.manager.disable == level
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize(
    ('items', 'text'),
    [([], ''), (['a', 1], "'a', 1"), (range(5), '0, 1, 2, 3, 4'), (range(8), '0, 1, 2, 3, 4 and 3 more')],
)
def test_the_first_of_some_names(items: Iterable[Any], text: str) -> None:
    assert some(items) == text


def test_exceptions_in_words() -> None:
    assert in_words(KeyError('area')) == 'KeyError: area'
    assert in_words(ValueError()) == 'ValueError'
    assert len(in_words(ValueError('a ' * 999))) <= 300


def test_notes_with_a_count_of_their_own() -> None:
    report = Report()
    report.note('train', 'grey images', 1200)
    report.note('train', '12 of 54 objects are not used: 9 crowd, 3 narrower than a pixel', 12)
    text = 'notes on train: grey images (1,200); 12 of 54 objects are not used: 9 crowd, 3 narrower than a pixel'
    assert report.summary() == text


def test_there_is_no_file(tmp_path: Path) -> None:
    report = Report()
    assert check_structure(str(tmp_path / 'no.json'), source_of(tmp_path), report, True, CLASSES) is None
    assert 'no.json: No such file' in next(report.error_lines())


def test_a_file_is_read_once_while_it_is_in_use(tmp_path: Path) -> None:
    path = write(tmp_path, plain())
    file = CocoFile.read(path)
    assert CocoFile.read(path) is file
    write(tmp_path, peculiar())
    assert CocoFile.read(path) is not file


def test_columns_and_annotations(tmp_path: Path) -> None:
    data = plain()
    data = {'annotations': data.pop('annotations'), 'more': ['ä'], **data}  # in any order
    file = CocoFile(write(tmp_path, data))
    assert len(file) == 12 and file.ids.tolist() == list(range(1, 13))
    assert file.boxes[2].tolist() == [30.5, 2.0, 30.0, 30.25] and file.areas[0] == 160
    assert file.image_rows.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert file.category_rows[:3].tolist() == [0, 1, 2]
    assert file.sizes.tolist() == [[WIDTH, HEIGHT]] * 4
    assert file.annotations_of([1, 3]) == data['annotations'][3:6] + data['annotations'][9:]


def test_annotations_are_found_behind_letters_of_several_bytes(tmp_path: Path) -> None:
    data = plain()
    path = tmp_path / 'train.json'
    path.write_text(json.dumps({'info': 'Übergröße 猫', **data}, ensure_ascii=False, indent=1))
    assert CocoFile(str(path)).annotations_of({2}) == data['annotations'][6:9]


def test_run_lengths_are_read_as_pycocotools_writes_them() -> None:
    random = np.random.default_rng(0)
    sizes = random.integers(1, 90, (60, 2))
    shares = np.linspace(0, 1, 60)
    masks = [
        np.asfortranarray(random.random(size) < share, np.uint8) for size, share in zip(sizes, shares, strict=True)
    ]
    strings = [run_lengths.encode(pixels)['counts'].decode() for pixels in masks]
    assert compressed_sums(strings).tolist() == [[pixels.size, pixels.sum()] for pixels in masks]
    malformed = ['', 'o', '~', '€', 'O', 'O2', 'o' * 9 + '0']
    assert compressed_sums([*malformed, strings[0]])[:, 0].tolist() == [-1] * 7 + [masks[0].size]
    assert compressed_sums([]).tolist() == []
