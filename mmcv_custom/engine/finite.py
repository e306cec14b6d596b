"""What happens to a training step whose loss is not finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import isfinite
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from ..checkpoint.conversion import first_few
from ..errors import UserError
from .resume import noted_checkpoint


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Leaves out every step whose loss is NaN or infinite, and stops the training if several follow one another.

    It decides between loss and backward, in ``OptimWrapper.update_params``, for all processes together: if the loss of
    one is not finite, none does the backward pass, for which the others would wait. A step that is left out changes
    neither weights nor the statistics of BatchNorm. It is logged with loss terms and images, and no checkpoint is saved
    after it, unless it is the last step of the training. Where gradients are accumulated, one loss is left out; if it
    is the last before an update, the update is left out, because the processes exchange gradients in that backward
    pass. Gradients that are not finite, such as those that the scaler of float16 rejects, do not count.

    The cost per step is one all-reduce of one number and one wait for the device.

    Args:
        limit: As many steps in a row stop the training.
    """

    def __init__(self, limit: int = 5) -> None:
        if limit < 1:
            raise ValueError(f'limit must be at least 1, got {limit}')
        self.limit = limit
        self.left_out = 0  # in total
        self.in_a_row = 0
        self._is_finite = True  # in this step

    def before_train(self, runner: Runner) -> None:
        """Puts the decision before the ``update_params`` of every optimizer wrapper."""
        wrappers = runner.optim_wrapper
        for wrapper in wrappers.values() if isinstance(wrappers, OptimWrapperDict) else [wrappers]:
            wrapper.update_params = partial(self._update_params, wrapper)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keeps the statistics of BatchNorm, which the forward pass changes."""
        self._is_finite = True
        self._statistics = [(tensor, tensor.clone()) for tensor in _statistics(runner.model)]

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Counts and logs a step that was left out.

        Raises:
            UserError: It was the last of ``limit`` in a row, in every process.
        """
        if self._is_finite:
            self.in_a_row = 0
            return
        for tensor, before in self._statistics:
            tensor.copy_(before)
        self.left_out += 1
        self.in_a_row += 1
        details = '; '.join(filter(None, all_gather_object(_details(data_batch, outputs or {}))))
        if self.in_a_row < self.limit:
            runner.logger.warning(
                f'step {runner.iter + 1} is left out, its loss is not finite ({details}); {self.left_out} so far'
            )
            return
        last = noted_checkpoint(runner.work_dir)
        raise UserError(
            f'the loss was not finite in {self.limit} steps in a row, the last is step {runner.iter + 1} ({details}); '
            f'{f"the last checkpoint is {last}" if last else "there is no checkpoint yet"}. '
            'Lower the learning rate, clip gradients by optim_wrapper.clip_grad, or look at these images'
        )

    def after_train(self, runner: Runner) -> None:
        """Logs how many steps were left out."""
        if self.left_out:
            runner.logger.warning(f'{self.left_out} steps were left out, because their loss was not finite')

    def _update_params(self, wrapper: OptimWrapper, loss: Tensor, *args: Any, **options: Any) -> None:
        is_finite = loss.detach().isfinite().all().float()
        all_reduce(is_finite, 'min')
        if is_finite:
            type(wrapper).update_params(wrapper, loss, *args, **options)
            return
        self._is_finite = False
        wrapper._inner_count += 1
        if wrapper.should_update():
            wrapper.zero_grad()


def _statistics(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        for name in ('running_mean', 'running_var', 'num_batches_tracked'):
            if isinstance(tensor := getattr(module, name, None), Tensor):
                yield tensor


def _details(data_batch: Any, losses: Mapping[str, Any]) -> str:
    """The loss terms of this process that are not finite, and its images; empty if all are finite."""
    values = {name: float(torch.as_tensor(value).detach()) for name, value in losses.items() if 'loss' in name}
    terms = [f'{name} {value}' for name, value in values.items() if not isfinite(value)]
    samples = data_batch.get('data_samples') if isinstance(data_batch, Mapping) else None
    samples = samples if isinstance(samples, Sequence) else []
    images = [path for sample in samples if (path := getattr(sample, 'img_path', None))]
    return ', '.join(terms) + (f' with images {first_few(images, 8)}' if images else '') if terms else ''
