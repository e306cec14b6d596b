"""The whole demo, with one step where it has many."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support import ROOT
from tools.demo import pictures


def test_the_demo_ends_with_a_table_and_pictures(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / 'tools/demo/run.py', '--images', '4', '2', '--iterations', '1', '--dino']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=os.environ)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(r'Iter\(train\) \[1/1\].*eta:', done.stdout)
    assert re.search(r'Mask R-CNN +\d\.\d{3} +\d\.\d{3} +\d\.\d{3} +\d+\.\d\n', done.stdout)
    assert re.search(r'UperNet +\d\.\d{3} +\d+\.\d\n', done.stdout)
    assert re.search(r'DINO +\d\.\d{3} +\d\.\d{3} +\d+\.\d\n', done.stdout)
    pictures = [Path(path) for path in re.findall(r'\S+\.png$', done.stdout, re.MULTILINE)]
    assert [path.name for path in pictures] == ['curves.png', 'predictions.png']
    for path in pictures:
        pixels = np.asarray(Image.open(path))
        assert min(pixels.shape[:2]) >= 400 and pixels.std() > 10  # not blank
    work_dir = tmp_path / 'work_dirs/demo'
    assert list(work_dir.rglob('*.pkl')) == []  # predictions are data
    assert [path.name for path in sorted((work_dir / 'mask-rcnn').glob('*.json'))] == [
        'data_check.json',
        'predictions.bbox.json',
        'predictions.segm.json',
    ]
    assert np.asarray(Image.open(work_dir / 'upernet/predictions/00000.png')).max() <= 10


def test_a_detector_that_found_nothing_is_drawn() -> None:
    """mmdet then logs no metric."""
    axes = pictures.plt.subplots()[1]
    pictures.plot_curve(axes, 'title', [dict(step=1, loss=2.0), dict(step=1, data_time=0.1)], {'mAP': ('box AP', 1)})
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ['training loss']
