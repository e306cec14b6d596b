"""The smallest training that saves checkpoints, for tests of saving and resuming."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmcv_custom import PortableRunner


class Line(BaseModel):
    """Two linear layers, of which the first is called ``backbone``."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.backbone = nn.Linear(3, width)
        self.head = nn.Linear(width, 1)

    def forward(self, *inputs: Tensor, mode: str) -> Any:
        outputs = self.head(self.backbone(torch.stack(inputs)))
        return dict(loss=outputs.square().mean()) if mode == 'loss' else list(outputs)


class Growing(BaseMetric):
    """A metric that is better every time, also after a break."""

    default_prefix = 'growing'

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict:
        return dict(value=time.monotonic(), other=time.monotonic())


def runner(work_dir: Path, iterations: int, interval: int = 1, width: int = 3, **options: Any) -> PortableRunner:
    """A runner that saves every ``interval`` iterations; ``checkpoint`` among the options changes its hook."""
    torch.manual_seed(0)
    checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=interval, **options.pop('checkpoint', {}))
    data = dict(dataset=list(torch.rand(4, 3)), batch_size=2, sampler=dict(type='InfiniteSampler'))
    validation: dict[str, Any] = {}
    if 'save_best' in checkpoint:
        sampler = dict(type='DefaultSampler', shuffle=False)
        validation = dict(val_dataloader=dict(data, sampler=sampler), val_cfg=dict(), val_evaluator=dict(type=Growing))
    settings: dict[str, Any] = dict(
        train_dataloader=data,
        train_cfg=dict(by_epoch=False, max_iters=iterations, val_interval=interval),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=2),
            dict(type='MultiStepLR', milestones=[9], by_epoch=False),
        ],
        default_hooks=dict(checkpoint=checkpoint),
        experiment_name=f'{work_dir.name}_{id(checkpoint)}',
        log_level='WARNING',
        randomness=dict(seed=0),
    )
    return PortableRunner(Line(width), str(work_dir), **{**settings, **validation, **options})
