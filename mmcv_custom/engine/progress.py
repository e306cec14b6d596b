"""What the log says besides LoggerHook's lines: early progress, and notes that explain metrics."""

from __future__ import annotations

import time
from collections.abc import Sequence
from numbers import Real
from typing import Any

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement


class ProgressHook(Hook):
    """Logs the usual line of progress where ``LoggerHook``, which counts steps, would leave the user waiting.

    A line comes after the first step of training, and whenever nothing was logged for a minute, in evaluations for ten
    seconds at first.
    """

    priority = 'LOW'  # after LoggerHook
    FIRST, WAIT = 10.0, 60.0  # seconds

    def __init__(self) -> None:
        self.due = 0.0  # when a line must come: after the first step

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Called by MMEngine before every epoch and evaluation."""
        if mode != 'train':
            self.due = time.monotonic() + self.FIRST

    def _after_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Called by MMEngine after every epoch and evaluation."""
        self.due = time.monotonic() + self.WAIT

    def _after_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None, mode: str = 'train'
    ) -> None:
        """Logs a line if it is due. Called by MMEngine after every step of training and evaluation."""
        logged = any(isinstance(hook, LoggerHook) and _logs(hook, runner, batch_idx, mode) for hook in runner.hooks)
        now = time.monotonic()
        if not logged and now >= self.due:
            runner.logger.info(runner.log_processor.get_log_after_iter(runner, batch_idx, mode)[1])
            logged = True
        if logged:
            self.due = now + self.WAIT


def _logs(hook: LoggerHook, runner: Runner, batch_idx: int, mode: str) -> bool:
    """Whether ``LoggerHook`` logs a step: every so many, and the last one of an epoch."""
    if hook.every_n_inner_iters(batch_idx, hook.interval):
        return True
    if mode != 'train' or not hook.end_of_epoch(runner.train_dataloader, batch_idx):
        return False
    return not hook.ignore_last or len(runner.train_dataloader) <= hook.interval


class MetricNotesHook(Hook):
    """Explains, in one line each, -1 among the metrics and an evaluation in which nothing was detected."""

    priority = 'LOW'  # after LoggerHook

    def __init__(self) -> None:
        self.images = 0
        self.detections = 0

    def _before_evaluation(self, runner: Runner) -> None:
        self.images = self.detections = 0

    before_val_epoch = before_test_epoch = _before_evaluation

    def _count(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        for result in outputs or ():
            if isinstance(result, BaseDataElement) and 'pred_instances' in result:
                self.images += 1
                self.detections += len(result.pred_instances)

    after_val_iter = after_test_iter = _count

    def _explain(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        images, detections = map(sum, zip(*all_gather_object((self.images, self.detections)), strict=True))
        if images and not detections:
            runner.logger.info(
                f'Nothing was detected in {images} images, so there is nothing to measure. This is usual in the first '
                'steps of a training. Later it means that the model does not learn: look at its loss and learning rate'
            )
        undefined = [name for name, value in (metrics or {}).items() if isinstance(value, Real) and value == -1]
        if undefined:
            runner.logger.info(
                f'-1 ({", ".join(undefined)}) means not defined, not bad: no object of that size is annotated in the '
                'images. For COCO, small is below 32 x 32 pixels, large above 96 x 96'
            )

    after_val_epoch = after_test_epoch = _explain
