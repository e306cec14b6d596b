"""The data check of segmentation counts the pixels that an evaluation judges otherwise than training."""

from __future__ import annotations

from collections import Counter

import numpy as np
from PIL import Image

from tests.mmseg.seg_data import THREE, Data


def test_lost_pixels_are_counted(data: Data) -> None:
    """Of a mask that the evaluation turns, against a loop over its pixels."""
    data.classes(THREE)
    data.val.pipeline.insert(2, dict(type='RandomFlip', prob=1.0))
    lost: Counter[tuple[int, int]] = Counter()
    for path in data.paths(split='val'):
        mask = np.array(Image.open(path))
        lost.update(pair for pair in zip(mask.flat, mask[:, ::-1].flat, strict=True) if pair[0] != pair[1])
    lines = [line for line in data.check().error_lines() if 'perfect predictions' in line]
    assert len(lines) == 3
    for label, line in enumerate(lines):
        most = max(count for pair, count in lost.items() if label in pair)
        assert f'{THREE[label]!r} has an IoU' in line and f'{most} pixels of the value' in line
