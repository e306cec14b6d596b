"""What several tests of the tools share; their fixtures are in conftest.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config

from tests.support import ROOT
from tools.demo import digits

DETECTOR = str(ROOT / 'configs/demo/mask-rcnn_digits.py')
SEGMENTOR = str(ROOT / 'configs/demo/upernet_digits.py')
LONG = 300 * 'x'  # longer than a file name may be
Mistake = Callable[..., str]  # the fixture `mistake`

# The dataset in `place`, as tools/new_config.py takes it, and models to train on it.
IMAGES, FILES, MASKS = (
    [f'data/digits/{kind}/{split}' for split in ('train', 'val')] for kind in ('images', 'annotations', 'masks')
)
DETECTION = ['--train', IMAGES[0], f'{FILES[0]}.json', '--val', IMAGES[1], f'{FILES[1]}.json']
SEGMENTATION = ['--train', IMAGES[0], MASKS[0], '--val', IMAGES[1], MASKS[1]]
NAMES = ('background', *digits.CLASSES)
MASK_RCNN = 'mask-rcnn_internimage-t_fpn_1x_coco'
UPERNET = 'internimage-t_upernet_8xb2-160k_ade20k-512x512'
Write = Callable[..., Config]  # the fixture `write`


def everything(folder: Path) -> dict[str, int]:
    """All files and folders with the time of their last change."""
    return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in folder.rglob('*')}


def read(split: str) -> dict[str, Any]:
    """The content of an annotation file of the dataset in the current folder."""
    return json.loads(Path(f'data/digits/annotations/{split}.json').read_text())


def save(split: str, content: Any) -> None:
    Path(f'data/digits/annotations/{split}.json').write_text(json.dumps(content))


def reverse_categories(split: str) -> None:
    content = read(split)
    content['categories'].reverse()
    save(split, content)
