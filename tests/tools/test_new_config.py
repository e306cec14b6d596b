"""tools/new_config.py: the config that it writes trains and is evaluated; what does not fit is one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from mmcv_custom.cli import build_runner
from tests.configs.test_training import FAMILIES
from tests.shrink import shrink_model
from tools import new_config
from tools.demo import digits

IMAGES, FILES, MASKS = (
    [f'data/digits/{kind}/{split}' for split in ('train', 'val')] for kind in ('images', 'annotations', 'masks')
)
DETECTION = ['--train', IMAGES[0], f'{FILES[0]}.json', '--val', IMAGES[1], f'{FILES[1]}.json']
SEGMENTATION = ['--train', IMAGES[0], MASKS[0], '--val', IMAGES[1], MASKS[1]]
NAMES = ('background', *digits.CLASSES)
MASK_RCNN = 'mask-rcnn_internimage-t_fpn_1x_coco'
UPERNET = 'internimage-t_upernet_8xb2-160k_ade20k-512x512'
Write = Callable[..., Config]


@pytest.fixture(scope='module')
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset of the demo in data/digits; every digit is in every split."""
    folder = tmp_path_factory.mktemp('new_config')
    digits.generate(folder / 'data/digits', train=8, val=5, size=64)
    return folder


@pytest.fixture
def place(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a copy of the dataset, in which the test runs."""
    shutil.copytree(dataset, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(place: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Runs the tool and reads what it wrote; ``data`` replaces the dataset of the demo."""

    def call(name: str, *arguments: str, data: list[str] | None = None) -> Config:
        segments = 'upernet' in name or 'mask2former' in name or 'segformer' in name
        default = [*SEGMENTATION, *(() if '--classes' in arguments else ('--classes', *NAMES))]
        data = data if data is not None else default if segments else DETECTION
        monkeypatch.setattr('sys.argv', ['new_config.py', name, *data, *arguments])
        new_config.main()
        return Config.fromfile(arguments[arguments.index('--out') + 1] if '--out' in arguments else 'my_digits.py')

    return call


def values_of(node: Any, key: str) -> Iterator[Any]:
    """The values under a key, wherever in a config."""
    if isinstance(node, Mapping):
        yield from (value for name, value in node.items() if name == key)
    items = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    for item in items:
        yield from values_of(item, key)


def small(cfg: Config) -> Config:
    """The config with a shrunken model, for two steps in this process."""
    if 'mmcv_custom::demo' not in cfg.text:
        cfg.model = shrink_model(cfg.model)
    cfg.load_from = None
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
    cfg.train_cfg.update(dict(max_iters=2, val_interval=2) if 'max_iters' in cfg.train_cfg else dict(max_epochs=1))
    cfg.update(work_dir='work', log_level='ERROR')
    return cfg


def final_scores(runner: Runner) -> dict[str, float]:
    scalars = runner.message_hub.log_scalars
    return {
        name: scalars[name].current()
        for name in ('val/coco/bbox_mAP', 'val/coco/segm_mAP', 'val/mIoU')
        if name in scalars
    }


TRAINED = {name: Path(FAMILIES[name].config).stem for name in FAMILIES if name != 'dino-denoising'} | {
    'cbdino-voc': 'dino-4scale_cb-internimage-h_b1-20k_objects365-voc07',
    'demo-mask-rcnn': 'mask-rcnn_digits',
    'demo-dino': 'dino_digits',
    'demo-upernet': 'upernet_digits',
}


@pytest.mark.parametrize('name', TRAINED)
def test_what_is_written_trains_and_is_evaluated(name: str, write: Write) -> None:
    cfg = write(TRAINED[name], '--batch-size', '4', '--size', '64', '64')
    detects = cfg.default_scope == 'mmdet'
    assert set(values_of(cfg.model, 'num_classes')) == {10 if detects else 11}
    runner = build_runner(small(cfg))
    runner.train()
    assert runner.iter == 2
    assert runner.train_dataloader.dataset.metainfo['classes'] == (digits.CLASSES if detects else NAMES)
    scores = final_scores(runner)
    assert len(scores) == (2 if 'mask-rcnn' in name else 1) and all(np.isfinite(list(scores.values())))
