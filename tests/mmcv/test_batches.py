"""BatchNorm cannot work on a single value, which is said before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from mmcv_custom.engine import PortableRunner
from mmcv_custom.engine.batches import norms_of_one_pixel, smallest_batch
from mmcv_custom.errors import UserError
from tests.configs.helpers import build
from tests.mmcv.tiny_training import runner
from tests.support import CONFIGS

FAMILIES = [
    *sorted((CONFIGS / 'demo').glob('*.py')),
    CONFIGS / 'segmentation/mapillary/internimage-l_segformer_8xb2-80k_mapillary-512x1024.py',
    CONFIGS / 'segmentation/mapillary/internimage-h_mask2former_16xb2-80k_mapillary-896x896.py',
]


class Pooling(BaseModel):
    """A BatchNorm behind a pooling to ``size`` pixels."""

    def __init__(self, norm: nn.Module | None = None, size: int = 1) -> None:
        super().__init__()
        convolution = nn.Sequential(nn.Conv2d(3, 2, 1), norm or nn.BatchNorm2d(2))
        self.head = nn.ModuleList([nn.Sequential(nn.AdaptiveAvgPool2d(size), convolution)])

    def forward(self, *images: Tensor, mode: str) -> dict[str, Tensor]:
        return dict(loss=self.head[0](torch.stack(images)).square().mean())


class Frozen(Pooling):
    """Its BatchNorm stays in evaluation mode."""

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self.head[0][1][1].eval()
        return self


def train(work_dir: Path, model: nn.Module, images: int, batch_size: int, **options: Any) -> PortableRunner:
    data = dict(dataset=list(torch.rand(images, 3, 4, 4)), batch_size=batch_size, **options)
    data.setdefault('sampler', dict(type='DefaultSampler'))
    steps = -(-images // batch_size)  # one epoch
    training = runner(work_dir, steps, train_dataloader=data)
    training.model = model
    training.train()
    return training


ONE_IMAGE = r'BatchNorm model.head.0.1.1 gets one value.*from train_dataloader.batch_size=1: set it to 2 or more'
LAST = r'from the last batch of an epoch, as 5 images make batches of 4 and one of 1: set train_dataloader.drop_last=T'


@pytest.mark.parametrize(
    ('model', 'images', 'batch_size', 'options', 'message'),
    [
        (Pooling(), 4, 1, {}, ONE_IMAGE),
        (Pooling(), 4, 1, dict(sampler=dict(type='InfiniteSampler')), ONE_IMAGE),
        (Pooling(nn.SyncBatchNorm(2)), 4, 1, {}, ONE_IMAGE),  # of one process
        (Pooling(), 5, 4, {}, LAST),
    ],
)
def test_one_value_is_refused(
    model: nn.Module, images: int, batch_size: int, options: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        train(tmp_path, model, images, batch_size, **options)
    assert not (tmp_path / 'iter_1.pth').exists()


@pytest.mark.parametrize(
    ('model', 'images', 'batch_size', 'options'),
    [
        (Pooling(), 4, 2, {}),
        (Pooling(size=2), 4, 1, {}),
        (Pooling(nn.GroupNorm(1, 2)), 4, 1, {}),
        (Frozen(), 4, 1, {}),
        (Pooling(), 6, 4, {}),
        (Pooling(), 5, 4, dict(drop_last=True)),
        (Pooling(), 5, 4, dict(sampler=dict(type='InfiniteSampler'))),
    ],
)
def test_what_works_passes(model: nn.Module, images: int, batch_size: int, options: dict, tmp_path: Path) -> None:
    """And does train."""
    assert train(tmp_path, model, images, batch_size, **options).iter == -(-images // batch_size)


def test_batch_samplers() -> None:
    data = list(range(5))
    finite, infinite = SequentialSampler(data), InfiniteSampler(data)
    batches = [BatchSampler(sampler, 2, drop) for sampler, drop in ((finite, False), (finite, True), (infinite, False))]
    assert [smallest_batch(DataLoader(data, batch_sampler=batch)) for batch in batches] == [1, 2, 2]


@pytest.mark.parametrize('path', FAMILIES, ids=lambda path: path.stem)
def test_the_models_that_are_meant(path: Path) -> None:
    """UperNet pools to one pixel. No other family of the zoo does."""
    names = [name for name, _ in norms_of_one_pixel(build(Config.fromfile(path)))]
    assert names == (['decode_head.psp_modules.0.1.bn'] if 'upernet' in path.name else [])
