"""tools/new_config.py: a mistake in the call, or data without what a config needs, is one line and writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tools.helpers import (
    DETECTION,
    IMAGES,
    MASK_RCNN,
    MASKS,
    SEGMENTATION,
    UPERNET,
    Write,
    read,
    save,
)
from tools import new_config


def change(split: str, key: str, index: int | None, **changes: Any) -> None:
    """Changes entries of an annotation file: one, or all if there is no index."""
    content = read(split)
    for entry in content[key] if index is None else [content[key][index]]:
        entry.update(changes)
    save(split, content)


DATASET = Path('data/digits')
FAULTS: dict[str, tuple[Callable[[], Any], str]] = {
    'no category': (lambda: save('train', {**read('train'), 'categories': []}), 'train.json: there is no category'),
    'no names': (
        lambda: change('train', 'categories', None, name=None),
        'train.json: there is no category with a name',
    ),
    'no image': (lambda: save('train', {**read('train'), 'images': []}), 'train.json: there is no image in it'),
    'no COCO file': (lambda: save('train', [1]), 'train.json is no JSON file'),
    'no JSON': (lambda: (DATASET / 'annotations/train.json').write_text('{'), 'train.json is no JSON file'),
    'no text': (lambda: (DATASET / 'annotations/train.json').write_bytes(b'\xff\x00'), 'no JSON file in UTF-8'),
    'no masks': (
        lambda: change('train', 'annotations', None, segmentation=[]),
        'no object has a mask .* Mask R-CNN on InternImage-T needs',
    ),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_faults_in_the_data(fault: str, write: Write) -> None:
    break_it, message = FAULTS[fault]
    break_it()
    with pytest.raises(SystemExit, match=message) as caught:
        write(MASK_RCNN)
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
        ([MASK_RCNN, *DETECTION[:2], 'a.json', *DETECTION[3:]], 'cannot read a.json: No such file'),
        ([UPERNET, '--train', IMAGES[0], 'nowhere', *SEGMENTATION[3:]], 'nowhere: there is no such folder of masks'),
        ([UPERNET, *SEGMENTATION, '--test', IMAGES[1], 'nowhere'], 'cannot be tested; leave out --test'),
        ([UPERNET, '--train', 'data/digits/annotations', MASKS[0], *SEGMENTATION[3:]], 'there is no image in it'),
        ([MASK_RCNN, *DETECTION, '--classes', 'Two'], '--classes Two: .*train.json has no such category'),
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
