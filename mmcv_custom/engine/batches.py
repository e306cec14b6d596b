"""Batches that are too small for BatchNorm."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from ..checkpoint import unwrapped
from ..errors import UserError


@HOOKS.register_module()
class BatchSizeCheckHook(Hook):
    """Refuses a batch of one image where BatchNorm needs more, before the first step.

    A layer that pools an image to one pixel, as those of UperNet and PSPNet, gives a BatchNorm behind it one value per
    image and channel. One value has no variance. SyncBatchNorm counts the images of all processes.
    """

    def before_run(self, runner: Runner) -> None:
        """Looks at the model and at the smallest batch of the training.

        Raises:
            UserError: BatchNorm would get one value.
        """
        loop = runner._train_loop
        if not isinstance(loop, BaseLoop):  # a config: it will not run
            return
        model = unwrapped(runner.model)
        model.train()  # which keeps some layers in evaluation mode; the loop calls it before every step
        for name, norm in norms_of_one_pixel(model):
            images = smallest_batch(loop.dataloader)
            if images * (runner.world_size if isinstance(norm, nn.SyncBatchNorm) else 1) == 1:
                batch = loop.dataloader.batch_size
                cause = (
                    'train_dataloader.batch_size=1: set it to 2 or more'
                    if batch == 1
                    else f'the last batch of an epoch, as {len(loop.dataloader.sampler)} images make batches of '
                    f'{batch} and one of 1: set train_dataloader.drop_last=True'
                )
                raise UserError(f'the BatchNorm model.{name} gets one value, which has no variance, from {cause}')


def norms_of_one_pixel(model: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    """The BatchNorm layers in training mode directly behind a pooling to one pixel, with their names."""
    for name, module in model.named_modules():
        if not isinstance(module, nn.Sequential):
            continue
        for (_, pool), (place, layer) in pairwise(module.named_children()):
            if not isinstance(pool, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d) or pool.output_size not in (1, (1, 1)):
                continue
            for inner, norm in layer.named_modules(prefix=f'{name}.{place}'):
                if isinstance(norm, _BatchNorm) and norm.training:
                    yield inner, norm


def smallest_batch(loader: DataLoader) -> int:
    """The number of images in a process's smallest batch."""
    batch = getattr(loader.batch_sampler, 'batch_size', 1)
    sampler: Any = getattr(loader.batch_sampler, 'sampler', loader.sampler)
    if isinstance(sampler, InfiniteSampler) or getattr(loader.batch_sampler, 'drop_last', False):
        return batch
    return len(sampler) % batch or batch
