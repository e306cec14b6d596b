"""Writes the predictions of a segmentor to a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import DumpResults
from mmengine.registry import METRICS


@METRICS.register_module()
class DumpSegResults(DumpResults):
    """Writes label maps to a pickle file, without the logits, which are hundreds of times larger.

    One dict per image: ``img_path``, and ``pred_sem_seg``, an integer tensor (H, W), 8 bits if the classes fit.
    """

    def process(self, data_batch: Any, predictions: Sequence[dict]) -> None:
        """Keeps the predictions of one batch."""
        dtype = torch.uint8 if len(self.dataset_meta['classes']) < 256 else torch.int16
        for prediction in predictions:
            labels = prediction['pred_sem_seg']['data'].squeeze(0)
            self.results.append(dict(img_path=prediction['img_path'], pred_sem_seg=labels.to('cpu', dtype)))
