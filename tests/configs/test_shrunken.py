"""The shrunken models of all configs take one training step and predict."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope

from tests.configs.helpers import PUBLISHED
from tests.shrink import SIZE, shrink
from tools.demo import digits


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('digits')
    digits.generate(root, train=2, val=1, size=SIZE)
    return root


@pytest.mark.parametrize('path', PUBLISHED, ids=lambda path: path.stem)
def test_a_step_of_every_config(path: Path, data: Path) -> None:
    cfg = shrink(path, data, lr=1e-3, iterations=1)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.init_weights()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    batch = pseudo_collate(list(DATASETS.build(cfg.train_dataloader.dataset)))

    # A parameter without a gradient would need find_unused_parameters=True on several GPUs.
    left_out: list[str] = []
    wrapper.optimizer.register_step_pre_hook(
        lambda *_: left_out.extend(name for name, parameter in model.named_parameters() if parameter.grad is None)
    )
    losses = model.train().train_step(batch, wrapper)
    assert losses and all(torch.isfinite(loss).all() for loss in losses.values())
    assert left_out == []

    with torch.no_grad():
        predictions = model.eval().val_step(batch)
    assert len(predictions) == 2
    for sample in predictions:
        if cfg.default_scope == 'mmdet':
            assert sample.pred_instances.bboxes.shape == (len(sample.pred_instances), 4)
        else:
            assert sample.pred_sem_seg.data.shape == (1, SIZE, SIZE)
