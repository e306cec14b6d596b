"""tools/new_config.py: what does not fit in the data or in the call is one line, and no config is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.tools.helpers import (
    DETECTION,
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
from tools import new_config


def change(split: str, key: str, index: int | None, **changes: Any) -> None:
    """Changes entries of an annotation file: one, or all if there is no index."""
    content = read(split)
    for entry in content[key] if index is None else [content[key][index]]:
        entry.update(changes)
    save(split, content)


def drop_objects(split: str, category: int) -> None:
    content = read(split)
    content['annotations'] = [entry for entry in content['annotations'] if entry['category_id'] != category]
    save(split, content)


def write_mask(values: Any, name: str = 'train/00002.png') -> None:
    Image.fromarray(np.asarray(values)).save(f'data/digits/masks/{name}')


def write_masks(values: Any) -> None:
    for index in range(8):
        write_mask(values, f'train/{index:05d}.png')


BLACK = np.zeros((64, 64), np.uint8)
DATASET = Path('data/digits')
DETECTION_FAULTS: dict[str, tuple[Callable[[], Any], str]] = {
    'order of val': (
        lambda: reverse_categories('val'),
        r"val.json: its categories .* label 0 would be '0' in training and '9' here",
    ),
    'missing in val': (
        lambda: save('val', {**read('val'), 'categories': read('val')['categories'][:9]}),
        r"val.json: the category '9' of .*train.json is missing",
    ),
    'more in val': (
        lambda: save('train', {**read('train'), 'categories': read('train')['categories'][:9]}),
        r"val.json: the category '9' is not in .*train.json; --classes names",
    ),
    'two of a name': (lambda: change('train', 'categories', 3, name='0'), "1 names belong to several .* such as '0'"),
    'two of an id': (lambda: change('train', 'categories', 3, id=1), 'train.json: 1 ids belong to several'),
    'a name is no text': (lambda: change('train', 'categories', 3, name=3), 'name of a category .* a text, got 3'),
    'no name': (lambda: change('train', 'categories', 3, name=None), 'name of a category must be a text, got None'),
    'no object of a class': (
        lambda: drop_objects('train', 4),
        "train.json: the category '3' has no object; --classes 0 1 2 4 5",
    ),
    'no object': (lambda: save('train', {**read('train'), 'annotations': []}), 'train.json: there is no object'),
    'no category': (lambda: save('train', {**read('train'), 'categories': []}), 'train.json: there is no category'),
    'no image': (lambda: save('train', {**read('train'), 'images': []}), 'train.json: there is no image in it'),
    'no COCO file': (lambda: save('train', [1]), "train.json: .* has a list of objects under 'images'"),
    'no JSON': (lambda: (DATASET / 'annotations/train.json').write_text('{'), 'train.json: expected a COCO JSON file'),
    'no text': (lambda: (DATASET / 'annotations/train.json').write_bytes(b'\xff\x00'), 'expected a COCO JSON file'),
    'doubled folder': (
        lambda: change('train', 'images', None, file_name='images/train/0.png'),
        'none of the 8 images .* such as data/digits/images/train/images/train/0.png',
    ),
    'no masks': (
        lambda: change('train', 'annotations', None, segmentation=[]),
        'no object has a mask .* Mask R-CNN on InternImage-T needs',
    ),
}
SEGMENTATION_FAULTS: dict[str, tuple[Callable[[], Any], str]] = {
    'a mask is missing': (
        lambda: (DATASET / 'masks/train/00003.png').unlink(),
        '1 of 8 images in .* have no mask in .*, such as 00003.png: expected 00003.png',
    ),
    'an image is missing': (
        lambda: (DATASET / 'images/train/00003.png').unlink(),
        '1 of 8 masks in .* have no image in .*, such as 00003.png',
    ),
    'two endings': (
        lambda: (DATASET / 'images/train/00003.png').rename('data/digits/images/train/00003.PNG'),
        '7 .png, 1 .PNG: mmseg reads images of one ending',
    ),
    'other endings in val': (
        lambda: [path.rename(path.with_suffix('.bmp')) for path in (DATASET / 'images/val').iterdir()],
        '--val: names of images and masks end in .bmp and .png, those of --train in .png and .png',
    ),
    'a number without a name': (
        lambda: write_mask(BLACK + 37),
        'masks/train/00002.png: class 37 has no name: with 11 names the numbers are 0 to 10',
    ),
    'colours': (lambda: write_mask(np.zeros((64, 64, 3), np.uint8)), '00002.png: .* one channel .* this one has 3'),
    '16 bits': (lambda: write_mask(np.full((64, 64), 999, np.uint16)), '00002.png: class numbers are 0 to 254'),
    'only 0 and 255': (
        lambda: write_masks(np.eye(64, dtype=np.uint8) * 255),
        'masks hold only 0 and 255, and 255 is ignored',
    ),
    'broken mask': (lambda: (DATASET / 'masks/train/00002.png').write_bytes(b'\x89PNG'), '00002.png: cannot read'),
}
FAULTS = {fault: (MASK_RCNN, *rest) for fault, rest in DETECTION_FAULTS.items()} | {
    fault: (UPERNET, *rest) for fault, rest in SEGMENTATION_FAULTS.items()
}


@pytest.mark.parametrize('fault', FAULTS)
def test_faults_in_the_data(fault: str, write: Write) -> None:
    name, break_it, message = FAULTS[fault]
    break_it()
    with pytest.raises(SystemExit, match=message) as caught:
        write(name)
    assert str(caught.value).startswith('error: ') and '\n' not in str(caught.value)
    assert not Path('my_digits.py').exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'name a model, such as mask-rcnn'),
        ([MASK_RCNN], '--train must name a folder'),
        ([MASK_RCNN, *DETECTION[:3]], '--val must name a folder'),
        (['mask-rcnn_internimage-q', *DETECTION], 'no model .*; close to it: .* for a CPU there are'),
        ([MASK_RCNN, *SEGMENTATION], 'a detector needs a COCO JSON file, and this is a folder'),
        ([UPERNET, *DETECTION], 'a segmentor needs a folder of masks, and this is a file'),
        ([MASK_RCNN, '--train', 'nowhere', 'a.json', *DETECTION[3:]], 'nowhere: there is no such folder of images'),
        ([MASK_RCNN, *DETECTION[:2], 'a.json', *DETECTION[3:]], 'a.json: cannot read .* No such file'),
        ([UPERNET, '--train', IMAGES[0], 'nowhere', *SEGMENTATION[3:]], 'nowhere: there is no such folder of masks'),
        ([UPERNET, '--train', 'data', MASKS[0], *SEGMENTATION[3:]], 'of 26 images in data have no mask'),
        ([UPERNET, '--train', 'data/digits/annotations', MASKS[0], *SEGMENTATION[3:]], 'there is no image in it'),
        ([MASK_RCNN, *DETECTION, '--classes', 'Two'], '--classes Two: .*train.json has no such category'),
        ([UPERNET, *SEGMENTATION, '--classes', 'a', 'b'], 'has no name: with 2 names the numbers are 0 to 1'),
        ([MASK_RCNN, *DETECTION, '--batch-size', '0'], '--batch-size must be at least 1, got 0'),
        ([MASK_RCNN, *DETECTION, '--gpus', '-2'], '--gpus must be at least 1, got -2'),
        ([MASK_RCNN, *DETECTION, '--size', '64', '8'], '--size must be at least 32, got 8'),
        (['mask-rcnn_digits', *DETECTION, '--from-official'], 'no official checkpoint of mask-rcnn_digits'),
        (['mask-rcnn_digits', *DETECTION, '--out', 'mine.yaml'], '--out must name a .py file, got mine.yaml'),
        (['mask-rcnn_digits', *DETECTION, '--out', 'data/digits/digits.json/mine.py'], 'it is no folder'),
    ],
)
def test_mistakes(arguments: list[str], message: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(place.rglob('*'))  # nothing is left behind
    monkeypatch.setattr('sys.argv', ['new_config.py', *arguments])
    with pytest.raises(SystemExit, match=message) as caught:
        new_config.main()
    assert str(caught.value).startswith('error: ') and '\n' not in str(caught.value)
    assert sorted(place.rglob('*')) == before


def test_no_file_is_overwritten(write: Write) -> None:
    Path('my_digits.py').write_text('mine')
    with pytest.raises(SystemExit, match='my_digits.py exists already, and is not overwritten'):
        write('mask-rcnn_digits')
    assert Path('my_digits.py').read_text() == 'mine'
