"""What holds for every config. What the published ones say: test_detection_configs.py, test_segmentation_configs.py."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import nn

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)
UPERNET_T = ROOT / 'configs/segmentation/ade20k/internimage-t_upernet_8xb2-160k_ade20k-512x512.py'


def build(cfg: Config) -> nn.Module:
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):  # shapes only: no time and no memory for values
        return MODELS.build(cfg.model)


def unwrap(dataset: ConfigDict) -> list[ConfigDict]:
    """The data sets within a wrapper such as ConcatDataset; the data set itself if it is none."""
    wrapped = [dataset.dataset] if 'dataset' in dataset else dataset.get('datasets', [])
    return [inner for part in wrapped for inner in unwrap(part)] or [dataset]


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_every_config_builds(path: Path) -> None:
    cfg = Config.fromfile(path)
    model = build(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    trained = {id(parameter) for group in wrapper.optimizer.param_groups for parameter in group['params']}
    assert trained == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    for split in ('train', 'val', 'test'):
        assert all(part.pipeline for part in unwrap(cfg[f'{split}_dataloader'].dataset)) and cfg[f'{split}_cfg']
    assert cfg.test_evaluator and cfg.param_scheduler
    Config.fromstring(cfg.pretty_text, '.py')  # the runner writes it and reads it back


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').rglob('*.py')), ids=lambda path: path.stem)
def test_configs_hold_no_import_statement(path: Path) -> None:
    """MMEngine 0.10.7 takes even the standard library's for the lazy style where Python is not in /usr/lib."""
    assert not any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(ast.parse(path.read_text())))


def test_mmseg_bases_are_found_without_the_tools(tmp_path: Path) -> None:
    """As by mmseg.apis.init_model: in a process that has imported nothing of ours, and from another folder."""
    (tmp_path / 'mine.py').write_text(f'_base_ = {str(UPERNET_T)!r}\n')
    code = 'from mmengine.config import Config; print(Config.fromfile("mine.py").model.backbone.type)'
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == 'InternImage'


def test_features_reach_roi_align_in_its_memory_layout() -> None:
    """RoIAlign reads (N, C, H, W) memory whatever the strides are; the backbone works channels last."""
    ops = importlib.import_module('mmcv.ops')
    cfg = Config.fromfile(ROOT / 'configs/demo/mask-rcnn_digits.py')
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        features = model.neck(model.backbone(torch.rand(1, 3, 64, 64)))[0]
    align = ops.RoIAlign(7, 0.25, sampling_ratio=1)
    rois = torch.tensor([[0.0, 5.0, 7.0, 50.0, 40.0]])
    torch.testing.assert_close(
        align(features, rois), align(features.clone(memory_format=torch.contiguous_format), rois)
    )


CUSTOM_DATA = (ROOT / 'docs/custom_data.md').read_text()


@pytest.fixture
def custom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The config of docs/custom_data.md, beside the repository's."""
    (source,) = re.findall(r'```python\n(_base_.*?)```', CUSTOM_DATA, re.DOTALL)
    assert len([line for line in source.splitlines() if line]) <= 15
    base = re.search(r"_base_ = '(.*)'", source)
    assert base and (ROOT / 'configs' / base[1]).is_file()
    (tmp_path / 'my_digits.py').write_text(source.replace(base[1], str(ROOT / 'configs' / base[1])))
    monkeypatch.chdir(tmp_path)
    return Config.fromfile(tmp_path / 'my_digits.py')


def test_the_documented_config_for_own_data_trains(custom: Config) -> None:
    """Two steps as documented, but from random weights (no download) and on small images (time)."""
    from mmcv_custom.cli import build_runner, check_data
    from tools.demo import digits

    digits.generate('data/digits', train=4, val=1, size=64)
    check_data(custom, 'train', 'val', 'test')
    custom.merge_from_dict(
        {
            'work_dir': 'work',
            'log_level': 'ERROR',
            'model.backbone.init_cfg': None,
            'train_dataloader.dataset.pipeline.2.scale': (64, 64),
            'val_dataloader.dataset.pipeline.1.scale': (64, 64),
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'val_dataloader.num_workers': 0,
            'val_dataloader.persistent_workers': False,
            'train_cfg.max_epochs': 1,
        }
    )
    runner = build_runner(custom)
    before = runner.model.roi_head.mask_head.conv_logits.weight.detach().clone()
    assert before.shape[0] == 10
    runner.train()
    assert (runner.iter, runner.epoch) == (2, 1)
    assert not torch.equal(before, runner.model.roi_head.mask_head.conv_logits.weight)
    assert np.isfinite(runner.message_hub.get_scalar('val/coco/bbox_mAP').current())
    assert Path('work/epoch_1.pth').is_file()


def test_the_documented_segmentation_data_set_exists() -> None:
    (source,) = re.findall(r'```python\n(dataset = .*?)```', CUSTOM_DATA, re.DOTALL)
    documented = Config.fromstring(source, '.py').dataset
    shipped: ConfigDict = Config.fromfile(ROOT / 'configs/demo/upernet_digits.py').train_dataloader.dataset
    assert set(documented) == set(shipped) - {'pipeline'} and documented.type == shipped.type
