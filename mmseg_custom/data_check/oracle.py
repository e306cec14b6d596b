"""Layer 3 of the segmentation check: the masks as predictions, through the metrics of the config."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import DumpResults
from mmengine.registry import METRICS
from mmengine.structures import PixelData
from mmseg.datasets import BaseSegDataset
from mmseg.evaluation import IoUMetric

from mmcv_custom.datasets import Harm, class_of, silence
from mmcv_custom.datasets.images import MASKS
from mmcv_custom.datasets.masks import count_pairs, read_mask
from mmcv_custom.texts import in_words, some

from .base import MaskCheck, is_iou_metric
from .values import MaskValues

BEST = 99.99  # per cent; metrics round to two digits, and count in single precision


@dataclass
class Losses:
    """Where perfect predictions were judged to be wrong.

    Attributes:
        pixels: Pixels by value in the mask, label in the evaluation and label predicted.
        first: The first mask of each.
    """

    pixels: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    first: dict[tuple[int, int, int], str] = field(default_factory=dict)

    def of(self, label: int) -> str:
        """The largest loss of a label, in words."""
        for (value, judged, predicted), count in self.pixels.most_common():
            if label in (judged, predicted):
                path = self.first[value, judged, predicted]
                return (
                    f'{count} pixels of the value {value}, such as in {path}, are label {judged} in the evaluation and '
                    f'{predicted} in the training data'
                )
        return 'no pixel of it differs'


def check_oracle(check: MaskCheck, dataset: BaseSegDataset, labels: Mapping[str, int]) -> None:
    """Judges the masks as if a model had predicted them.

    Args:
        check: The check of the dataset.
        dataset: The dataset that is evaluated.
        labels: The label of each class in the training data, which is what a model predicts.
    """
    values = MaskValues.of(dataset, check.source)
    if check.changing:
        check.leave_out(f'evaluation, {some(check.changing)} changes masks')
        return
    if missing := [name for name in values.classes if name not in labels]:
        text = f'the training data have no class {some(missing)}, which {check.source.key} has: set the same classes'
        check.error(Harm.WRONG, 'classes that are not trained', text, len(missing))
        return
    metrics = _metrics(check, dataset)
    if metrics:
        losses = _process(check, metrics, dataset, values.as_predicted(labels))
        for metric in metrics:
            _judge(check, metric, values, losses)


def _metrics(check: MaskCheck, dataset: BaseSegDataset) -> list[IoUMetric]:
    metrics = []
    for cfg in check.source.evaluators:
        if is_iou_metric(cfg) and not cfg.get('format_only'):
            with silence():
                metric = METRICS.build({**cfg, 'output_dir': None})
            metric.dataset_meta = dataset.metainfo
            metrics.append(metric)
        elif not issubclass(class_of(METRICS, cfg) or object, DumpResults):
            reason = 'format_only' if cfg.get('format_only') else 'not derived from IoUMetric'
            check.leave_out(f'metric {cfg.get("type")}, {reason}')
    return metrics


def _process(check: MaskCheck, metrics: list[IoUMetric], dataset: BaseSegDataset, values: MaskValues) -> Losses:
    losses = Losses()
    for index in check.sample(range(len(dataset)), MASKS):
        path = dataset.get_data_info(index)['seg_map_path']
        mask = read_mask(path).pixels
        predicted = values.label_map(mask, ignored=0)  # a model predicts a class for every pixel
        try:
            item = dataset[index]
            sample = item['data_samples']
            sample.pred_sem_seg = PixelData(data=torch.from_numpy(predicted)[None])
            for metric in metrics:
                metric.process(pseudo_collate([item]), [sample.to_dict()])
        except Exception as problem:  # transforms and metrics may raise anything
            text = (
                f'{path}, a mask of {predicted.shape} pixels, cannot be evaluated: {in_words(problem)}; a transform '
                'that resizes must stand before LoadAnnotations, so that masks keep their size'
            )
            check.error(Harm.FAILS, 'evaluation', text)
            continue
        judged = sample.gt_sem_seg.data.squeeze(0).numpy()
        wrong = (judged != predicted) & ~np.isin(judged, list(values.ignored))
        for (value, label), count in count_pairs(mask[wrong], judged[wrong]).items():
            key = value, label, values.labels.get(value) or 0
            losses.pixels[key] += count
            losses.first.setdefault(key, path)
    return losses


def _judge(check: MaskCheck, metric: IoUMetric, values: MaskValues, losses: Losses) -> None:
    if not metric.results:
        return
    intersect, union = (torch.stack(areas).double().sum(0) for areas in list(zip(*metric.results, strict=True))[:2])
    iou = 100 * intersect / union  # nan without a pixel of the class
    lost = {label: score for label, score in enumerate(iou.tolist()) if score < BEST}
    for label, score in lost.items():
        text = (
            f'{values.classes[label]!r} has an IoU of {score:.2f} if every mask is predicted as it is: '
            f'{losses.of(label)}'
        )
        check.error(Harm.WRONG, 'perfect predictions', text)
    with silence():
        scores: dict[str, Any] = metric.compute_metrics(metric.results)
    below = {name: float(score) for name, score in scores.items() if score < BEST}
    if below and not lost:
        names = ', '.join(f'{name} {score:.2f}' for name, score in below.items())
        if metric.nan_to_num is not None and iou.isnan().any():
            check.note(f'classes without a pixel count as {metric.nan_to_num}: at best {names}', len(below))
        else:
            text = f'{type(metric).__name__} gives {names} if every mask is predicted as it is'
            check.error(Harm.WRONG, 'perfect predictions', text)
