"""COCO files with a value of any kind in any place make a report, not a traceback."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random

import pytest

from mmcv_custom.datasets.coco_fix import fix_annotations
from mmcv_custom.datasets.coco_rules import CocoRules
from tests.mmcv.coco_files import CLASSES, check, peculiar, plain, source_of

JUNK = [
    *(
        None,
        True,
        False,
        0,
        -1,
        2,
        1.5,
        math.nan,
        -math.inf,
        1e308,
        -(2**70),
        10**400,
        '',
        '1',
        '../x',
        '\ud800',
        '\x00',
    ),
    *([], {}, [[]], [{}], [1, 2], ['a'] * 4, [None] * 4, [[1, 2], [1, 2, 3, 4, 5, 6]], dict(size='ab', counts=3)),
    *(dict(size=[48, 64], counts='abc'), dict(size=[2**40, 2**40], counts='0'), dict(size=[48, 64], counts='€')),
]


@pytest.mark.parametrize('seed', range(8))
def test_any_value_anywhere_makes_a_report(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    for _ in range(20):
        data = random.choice([plain, peculiar])()
        item = random.choice(data[random.choice(['images', 'annotations', 'categories'])])
        key = random.choice(list(item))
        item[key] = random.choice(JUNK)
        split = random.choice(['train', 'val'])
        report = check(tmp_path, data, split, random.choice([CLASSES, None]), rules=CocoRules(sorted_ids=seed % 2 == 1))
        assert all(len(line) < 1000 for line in report.error_lines())
        fix_annotations(source_of(tmp_path, split), str(tmp_path / str(random.random())), CLASSES)
