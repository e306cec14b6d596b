"""tools/new_config.py: faults of the data leave it able to write the config that check_data.py --fix needs."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from mmcv_custom.datasets import check_datasets, fix_datasets
from mmcv_custom.new_config import read_instances, read_segments
from tests.tools.helpers import (
    IMAGES,
    MASK_RCNN,
    MASKS,
    SEGMENTATION,
    UPERNET,
    Write,
    read,
    reverse_categories,
    save,
)
from tests.tools.test_new_config_mistakes import change

DATASET = Path('data/digits')
SPLITS = ('train', 'val')


def without_category(split: str) -> None:
    save(split, {**read(split), 'categories': read(split)['categories'][:9]})


def byte_order_mark() -> None:
    for path in (DATASET / 'annotations').iterdir():
        path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes())


def write_masks(change: Callable[[Any], Any]) -> None:
    for path in (DATASET / 'masks').rglob('*.png'):
        pixels = change(np.array(Image.open(path)))
        (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path)


def write_mask(values: Any) -> None:
    Image.fromarray(values).save(DATASET / 'masks/train/00002.png')


def other_objects(split: str, category: int) -> None:
    content = read(split)
    content['annotations'] = [entry for entry in content['annotations'] if entry['category_id'] != category]
    save(split, content)


BLACK = np.zeros((64, 64), np.uint8)
DETECTION_FAULTS: dict[str, tuple[Callable[[], Any], str]] = {
    'order': (lambda: reverse_categories('val'), "val.json: .* label 0 is '9'"),
    'missing in val': (lambda: without_category('val'), 'val.json: .* no entry has the id 10'),
    'two of a name': (lambda: change('train', 'categories', 3, name='0'), "2 categories have the name '0'"),
    'two of an id': (lambda: change('train', 'categories', 3, id=1), '2 categories have the id 1'),
    'a name is no text': (lambda: change('train', 'categories', 3, name=3), 'expected an id and a name'),
    'no object': (lambda: save('train', {**read('train'), 'annotations': []}), "empty list 'annotations'"),
    'byte order mark': (byte_order_mark, 'byte order mark'),
    'no image file': (lambda: change('train', 'images', 0, file_name='images/train/0.png'), 'images/train/0.png'),
}
SEGMENTATION_FAULTS: dict[str, tuple[Callable[[], Any], str]] = {
    'mask missing': (lambda: (DATASET / 'masks/train/00000.png').unlink(), 'train/00000.png has no mask'),
    'two endings': (
        lambda: (DATASET / 'images/train/00003.png').rename(DATASET / 'images/train/00003.PNG'),
        '00003.PNG has a mask and is not used',
    ),
    'a number without a name': (lambda: write_mask(BLACK + 37), 'value 37, which stands for no class'),
    'colours': (lambda: write_mask(np.zeros((64, 64, 3), np.uint8)), '3 channels'),
    '16 bits': (lambda: write_mask(np.full((64, 64), 999, np.uint16)), 'value 999'),
    'only 0 and 255': (lambda: write_masks(lambda mask: np.uint8(mask > 0) * 255), 'only one class'),
    'broken mask': (lambda: (DATASET / 'masks/train/00002.png').write_bytes(b'\x89PNG'), '00002.png: it is no image'),
    'broken image': (lambda: (DATASET / 'images/train/00002.png').write_bytes(b'\x89PNG'), '00002.png: it is no image'),
}
FAULTS = {name: (MASK_RCNN, *rest) for name, rest in DETECTION_FAULTS.items()} | {
    name: (UPERNET, *rest) for name, rest in SEGMENTATION_FAULTS.items()
}


@pytest.mark.parametrize('fault', FAULTS)
def test_the_config_is_written(fault: str, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    name, break_it, message = FAULTS[fault]
    break_it()
    with pytest.raises(SystemExit, match='error: the data have errors.*check_data.py my_digits.py --fix DIR$'):
        write(name)
    printed = capsys.readouterr()
    assert 'Next:' not in printed.out and 'Traceback' not in printed.err
    lines = printed.err.splitlines()
    assert all(line.startswith('error: ') for line in lines)
    assert any(re.search(message, line) for line in lines), lines
    assert Config.fromfile('my_digits.py').train_dataloader


REPAIRABLE: dict[str, tuple[str, list[str] | None, Callable[[], Any]]] = {
    'order': (MASK_RCNN, None, lambda: reverse_categories('val')),
    'byte order mark': (MASK_RCNN, None, byte_order_mark),
    '0 and 255': (UPERNET, SEGMENTATION, lambda: write_masks(lambda mask: np.uint8(mask > 0) * 255)),
    'grey as RGB': (UPERNET, SEGMENTATION, lambda: write_masks(lambda mask: Image.fromarray(mask).convert('RGB'))),
    'two channels': (UPERNET, None, lambda: write_masks(lambda mask: Image.fromarray(mask).convert('LA'))),
}


@pytest.mark.parametrize('fault', REPAIRABLE)
def test_the_fix_that_the_tool_names_repairs_the_data(fault: str, write: Write, tmp_path: Path) -> None:
    name, data, break_it = REPAIRABLE[fault]
    break_it()
    with pytest.raises(SystemExit, match='--fix DIR'):
        write(name, data=data)
    cfg = Config.fromfile('my_digits.py')
    changes = [line.split('=', 1) for line in fix_datasets(cfg, SPLITS, 'fixed') if '=' in line and ' ' not in line]
    assert changes
    cfg.merge_from_dict({key: ast.literal_eval(value) for key, value in changes})
    assert list(check_datasets(cfg, SPLITS).error_lines()) == []


def test_what_is_no_fault_is_noted(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """A class without an object, and a mask without an image."""
    other_objects('train', 4)
    write(MASK_RCNN)
    assert "'3'" in capsys.readouterr().out.partition('data check passed')[2]
    (DATASET / 'images/train/00003.png').unlink()
    write(UPERNET, '--out', 'segments.py')
    assert 'masks without an image (1)' in capsys.readouterr().out


def test_a_test_set_may_have_no_annotations(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Such as COCO's test-dev: its images are predicted. Those of val are needed."""
    content = read('val')
    del content['annotations']
    save('test', content)
    cfg = write(MASK_RCNN, '--test', IMAGES[1], 'data/digits/annotations/test.json')
    assert 'test: 5 images, 0 objects' in capsys.readouterr().out
    init_default_scope('mmdet')
    assert len(DATASETS.build(cfg.test_dataloader.dataset)) == 5
    save('val', content)
    with pytest.raises(SystemExit, match='the data have errors'):
        write(MASK_RCNN, '--out', 'other.py')
    assert "val.json has no list 'annotations'" in capsys.readouterr().err


def test_masks_without_numbers_need_names(write: Write) -> None:
    write_masks(lambda mask: np.stack([mask, mask * 0, 255 - mask], axis=-1))
    with pytest.raises(SystemExit, match='the masks hold no numbers of classes; name these with --classes'):
        write(UPERNET, data=SEGMENTATION)
    assert not Path('my_digits.py').exists()


def test_endings_are_found_though_a_mask_is_missing(place: Path) -> None:
    for path in (DATASET / 'masks').rglob('*.png'):
        path.rename(path.with_name(f'{path.stem}_mask.png'))
    (DATASET / 'masks/train/00000_mask.png').unlink()
    pairs = {split: (IMAGES[index], MASKS[index]) for index, split in enumerate(SPLITS)}
    assert read_segments(pairs, ['a']).splits['train'].suffixes == ('.png', '_mask.png')


def test_a_byte_order_mark_changes_nothing(place: Path) -> None:
    pairs = {split: (f'data/digits/images/{split}', f'data/digits/annotations/{split}.json') for split in SPLITS}
    before = read_instances(pairs)
    byte_order_mark()
    assert read_instances(pairs) == before
