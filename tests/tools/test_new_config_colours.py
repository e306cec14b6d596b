"""Pictures of a dataset that has fewer colours than classes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mmengine.config import Config

from mmcv_custom.cli.pictures import draw_samples
from mmcv_custom.engine.hooks import PictureHook
from tests.tools.helpers import Write
from tools.demo import digits

RED, MANY = [(255, 0, 0)], [(i, 0, 0) for i in range(10)]


@pytest.mark.parametrize('palette', [RED, MANY])
def test_samples_are_drawn(palette: list[tuple[int, int, int]], write: Write) -> None:
    cfg: Config = write('mask-rcnn_digits')
    cfg.train_dataloader.dataset.metainfo.palette = palette
    files = draw_samples(cfg, 'pictures', count=2)
    assert len(files) == 2 and all(file.is_file() for file in files)


@pytest.mark.parametrize(
    ('palette', 'drawn'), [(RED, None), (MANY, MANY), ((255, 0, 0), (255, 0, 0)), ('coco', 'coco'), (None, None)]
)
def test_results_are_drawn(palette: Any, drawn: Any) -> None:
    visualizer = SimpleNamespace(dataset_meta=dict(classes=digits.CLASSES, palette=palette))
    PictureHook('pictures').before_test(SimpleNamespace(visualizer=visualizer))  # type: ignore[arg-type]
    assert visualizer.dataset_meta == dict(classes=digits.CLASSES, palette=drawn)
