"""Configs inherited by ``_base_ = 'mmcv_custom::...'``: their classes are found in the config's own library."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmengine.logging
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import (
    LOOPS,
    METRICS,
    MODELS,
    STRATEGIES,
    TRANSFORMS,
    DefaultScope,
    Registry,
    init_default_scope,
)

from mmcv_custom import InternImage
from mmcv_custom.registry import SCOPE
from tests.support import CONFIGS

MASK_RCNN = 'detection/coco/mask-rcnn_internimage-t_fpn_1x_coco.py'
DINO = 'detection/coco/dino-4scale_internimage-t_8xb2-12e-layer-wise-lr_coco.py'
CROWDHUMAN = 'detection/crowd_human/cascade-rcnn_internimage-xl_fpn_3x_crowdhuman.py'
UPERNET = 'segmentation/ade20k/internimage-t_upernet_8xb2-160k_ade20k-512x512.py'
MASK2FORMER = 'segmentation/nyu_depth_v2/internimage-h_mask2former_16xb1-40k_nyu-depth-v2-480x480.py'
REUSED = 'model, train_dataloader, test_evaluator = _base_.model, _base_.train_dataloader, _base_.test_evaluator\n'


@pytest.fixture(autouse=True)
def warned(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The warnings that MMEngine logs. Puts the default scope back after the test."""
    lines: list[str] = []

    def print_log(message: str, logger: Any = None, level: int = logging.INFO) -> None:
        if level >= logging.WARNING:
            lines.append(message)

    monkeypatch.setattr(mmengine.logging, 'print_log', print_log)
    before = DefaultScope._instance_dict.copy()
    yield lines
    DefaultScope._instance_dict = before


def inherit(folder: Path, config: str, text: str = '') -> Config:
    file = folder / 'mine.py'
    file.write_text(f"_base_ = 'mmcv_custom::{config}'\n{text}")
    cfg = Config.fromfile(file)
    init_default_scope(cfg.default_scope)
    return cfg


def library(registry: Registry, cfg: Any) -> str:
    """The package of the class that MMEngine builds of a config."""
    with registry.switch_scope_and_registry(cfg.get('_scope_')) as scoped:
        return scoped.get(cfg['type']).__module__.partition('.')[0]


@pytest.mark.parametrize('text', ['', REUSED], ids=['inherited', 'used by name'])
@pytest.mark.parametrize('config', [MASK_RCNN, DINO, CROWDHUMAN, UPERNET, MASK2FORMER])
def test_classes_are_those_of_the_config_itself(config: str, text: str, tmp_path: Path, warned: list[str]) -> None:
    cfg, original = inherit(tmp_path, config, text), Config.fromfile(CONFIGS / config)
    for registry, pick in (
        (MODELS, lambda cfg: cfg.model),
        (MODELS, lambda cfg: cfg.model.data_preprocessor),
        (LOOPS, lambda cfg: cfg.train_cfg),
        (METRICS, lambda cfg: cfg.test_evaluator),
        *((TRANSFORMS, lambda cfg, index=index: cfg.train_dataloader.dataset.pipeline[index]) for index in range(3)),
    ):
        assert library(registry, pick(cfg)) == library(registry, pick(original))
    with torch.device('meta'):
        model, expected = MODELS.build(cfg.model), MODELS.build(original.model)
    assert [type(module) for module in model.modules()] == [type(module) for module in expected.modules()]
    assert warned == []


def test_a_default_scope_without_registries_means_the_root(tmp_path: Path) -> None:
    cfg = inherit(tmp_path, '_base_/backbones/internimage-t.py', "default_scope = 'my_project'\n")
    assert isinstance(MODELS.build(cfg.backbone | dict(init_cfg=None)), InternImage)


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_registries_that_a_library_lacks(scope: str) -> None:
    init_default_scope(scope)
    assert STRATEGIES.children[SCOPE].get('SingleDeviceStrategy') is STRATEGIES.get('SingleDeviceStrategy')


def test_a_class_that_does_not_exist(tmp_path: Path) -> None:
    cfg = inherit(tmp_path, MASK_RCNN, "model = dict(backbone=dict(type='InternImag'))\n")
    with pytest.raises(KeyError, match='InternImag is not in the mmdet::model registry'):
        MODELS.build(cfg.model)
    assert MODELS.children[SCOPE].get('InternImag') is None
