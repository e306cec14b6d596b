"""Spoils the annotations of the demo's digits and runs the data check on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmcv_custom.datasets import Report, check_datasets
from tests.support import CONFIGS

LATER = ('conservation', 'oracle')
Json = dict[str, Any]


def change(folder: Path, split: str, edit: Callable[[Json], Any]) -> None:
    """Edits an annotation file in place."""
    path = folder / f'annotations/{split}.json'
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def check(options: Json | None = None, layers: tuple[str, ...] = LATER, config: str = 'mask-rcnn') -> Report:
    cfg = Config.fromfile(CONFIGS / f'demo/{config}_digits.py')
    cfg.merge_from_dict(options or {})
    return check_datasets(cfg, ('train', 'val', 'test'), layers=layers)


def use_polygons(content: Json) -> None:
    """Masks become rectangles."""
    for annotation in content['annotations']:
        x, y, w, h = annotation['bbox']
        annotation['segmentation'] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
