"""A user's mistake in a call of the smaller tools gets one line."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from mmcv_custom import __main__ as mm_internimage
from tests.support import ROOT
from tests.tools.helpers import DETECTOR, LONG, Mistake
from tools.analysis_tools import get_flops
from tools.demo import digits
from tools.zoo import evaluate

NAME = 'mask-rcnn_internimage-t_fpn_1x_coco'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['no.py'], 'there is no config file no.py'),
        (['text_model.py'], "model of text_model.py must be a dict, got 'MaskRCNN'"),
        ([DETECTOR, '--shape', 'a', 'b'], "--shape: invalid int value: 'a'"),
        ([DETECTOR, '--shape', '99999999999', '64'], '--shape must be two positive numbers, got 99999999999 64'),
        ([DETECTOR, '--cfg-options', 'x'], 'expected KEY=VALUE'),
        ([DETECTOR, '--cfg-options', 'model.type=Foo'], "cannot build model of .* no model called 'Foo'"),
        (
            [DETECTOR, '--cfg-options', 'model.backbone.in_channels=4'],
            'model of .* does not run on an image of 800 x 1280',
        ),
    ],
)
def test_get_flops(mistake: Mistake, arguments: list[str], message: str) -> None:
    assert re.search(message, mistake(get_flops, *arguments))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([NAME], 'arguments are required: --data-root'),
        ([NAME, '--data-root', 'd', '--tolerance', 'nan'], '--tolerance must be at least 0, got nan'),
        ([NAME, '--data-root', 'd', '--tolerance', '-1'], '--tolerance must be at least 0, got -1.0'),
        ([NAME, '--data-root', 'd', '--checkpoint', ''], "there is no checkpoint ''"),
        ([NAME, '--data-root', 'd', '--checkpoint', 'htp://x/y'], 'checkpoint htp://x/y: expected a file'),
    ],
)
def test_evaluate(mistake: Mistake, arguments: list[str], message: str) -> None:
    assert re.search(message, mistake(evaluate, *arguments))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['out', '--train', '0'], 'train and val must be at least 1'),
        (['out', '--size', '63'], 'size must be from 64 to 300, got 63'),
        (['out', '--seed', '-1'], 'seed must be at least 0, got -1'),
        (['mine.txt'], 'mine.txt'),
        (['mine.txt/out'], 'Not a directory'),
        (['.'], 'is not empty'),
        ([LONG], 'File name too long'),
    ],
)
def test_digits(mistake: Mistake, arguments: list[str], message: str) -> None:
    assert re.search(message, mistake(digits, *arguments))


@pytest.mark.parametrize('stamp', ['{', '[1]', '{"version": 1}'])
def test_digits_keeps_other_files(cluttered: Path, mistake: Mistake, stamp: str) -> None:
    (cluttered / 'folder/digits.json').write_text(stamp)
    (cluttered / 'folder/mine.txt').touch()
    assert 'did not write' in mistake(digits, 'folder', '--train', '1', '--val', '1', '--size', '64')


def test_digits_leaves_its_neighbours_alone(cluttered: Path) -> None:
    (cluttered / 'out.partial').mkdir()
    (cluttered / 'out.partial/mine.txt').touch()
    assert digits.generate('out', 1, 1, 64)
    assert (cluttered / 'out.partial/mine.txt').exists()
    assert {path.name for path in cluttered.glob('*out*')} == {'out', 'out.partial'}


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--iterations', '0'], '--iterations must be at least 1, got 0'),
        (['--work-dir', 'my runs'], '--work-dir must name a folder without spaces'),
        (['--work-dir', ''], '--work-dir must name a folder'),
        (['--images', 'a', 'b'], "invalid int value: 'a'"),
        (['--images', '0', '1'], 'train and val must be at least 1'),
    ],
)
def test_demo(mistake: Mistake, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / 'tools/demo')
    assert re.search(message, mistake(import_module('tools.demo.run'), *arguments))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['trian'], "there is no command 'trian'"),
        ([''], "there is no command ''"),
        (['list', 'resnet'], 'no name of a model contains resnet'),
        (['path', 'nothing'], "there is no model 'nothing'"),
        (['train', 'no.py'], 'there is no config file no.py'),
    ],
)
def test_mm_internimage(mistake: Mistake, arguments: list[str], message: str) -> None:
    assert re.search(message, mistake(mm_internimage, *arguments))
