"""What holds for every config. Hyper-parameters: test_detection.py and test_segmentation.py."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from tests.configs.helpers import LEAVES, PUBLISHED, build, unwrap
from tests.support import CONFIGS, OFFICIAL_CHECKPOINTS, ROOT

FILES = sorted(CONFIGS.rglob('*.py'))
UPERNET_T = CONFIGS / 'segmentation/ade20k/internimage-t_upernet_8xb2-160k_ade20k-512x512.py'
BASES = ['runtime', 'backbones', 'models', 'datasets', 'schedules']


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: path.stem)
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


@pytest.mark.parametrize('path', PUBLISHED, ids=lambda path: path.stem)
def test_leaves_have_the_same_kinds_of_bases(path: Path) -> None:
    (node,) = (node for node in ast.parse(path.read_text()).body if ast.unparse(node).startswith('_base_ = '))
    bases = ast.literal_eval(node.value)
    if isinstance(bases, str):  # a variant of a leaf beside it
        assert path.with_name(bases) in PUBLISHED
    else:
        kinds = [re.search(r'_base_/([a-z]+)', base)[1] for base in bases]
        assert kinds == BASES + ['tta'] * ('detection' in path.parts)


def test_the_address_of_the_official_checkpoints_stands_once() -> None:
    assert sum(path.read_text().count(OFFICIAL_CHECKPOINTS) for path in FILES) == 1


def test_the_example_in_the_readme_is_a_leaf() -> None:
    examples = re.findall(r'`configs/(.*)`:\n\n```python\n(.*?)```', (CONFIGS / 'README.md').read_text(), re.DOTALL)
    assert [(CONFIGS / path).read_text() for path, _ in examples] == [source for _, source in examples] != []


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_configs_have_no_import_statement(path: Path) -> None:
    """MMEngine 0.10.7 mistakes a config with any import for the lazy style where Python is not in /usr/lib."""
    assert not any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(ast.parse(path.read_text())))


def test_mmseg_bases_are_found_without_the_tools(tmp_path: Path) -> None:
    """As in mmseg.apis.init_model: in another folder and in a process that has not imported our packages."""
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
    cfg = Config.fromfile(CONFIGS / 'demo/mask-rcnn_digits.py')
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        features = model.neck(model.backbone(torch.rand(1, 3, 64, 64)))[0]
    align = ops.RoIAlign(7, 0.25, sampling_ratio=1)
    rois = torch.tensor([[0.0, 5.0, 7.0, 50.0, 40.0]])
    torch.testing.assert_close(
        align(features, rois), align(features.clone(memory_format=torch.contiguous_format), rois)
    )
