"""Test-time augmentation of instance segmentation."""

from __future__ import annotations

import torch
from mmcv.ops import batched_nms
from mmdet.models import DetTTAModel
from mmdet.structures import DetDataSample
from mmengine.registry import MODELS
from mmengine.structures import InstanceData

FLIPPED_AXES = {'horizontal': (-1,), 'vertical': (-2,), 'diagonal': (-2, -1)}


@MODELS.register_module()
class InstanceTTAModel(DetTTAModel):
    """Takes the arguments of mmdet's DetTTAModel and merges masks too.

    Non-maximum suppression over the boxes of all views selects the instances. Each keeps the mask of its own view.
    """

    def _merge_single_sample(self, data_samples: list[DetDataSample]) -> DetDataSample:
        views = [sample.pred_instances for sample in data_samples]
        metas = [sample.metainfo for sample in data_samples]
        boxes, scores = self.merge_aug_bboxes([view.bboxes for view in views], [view.scores for view in views], metas)
        if not len(boxes):
            return data_samples[0]
        labels = torch.cat([view.labels for view in views])
        _, kept = batched_nms(boxes, scores, labels, self.tta_cfg.nms)
        kept = kept[: self.tta_cfg.max_per_img]
        merged = InstanceData(bboxes=boxes[kept], scores=scores[kept], labels=labels[kept])
        if 'masks' in views[0]:
            upright = [
                view.masks.flip(FLIPPED_AXES[meta['flip_direction']]) if meta['flip'] else view.masks
                for view, meta in zip(views, metas, strict=True)
            ]
            merged.masks = torch.cat(upright)[kept]
        data_samples[0].pred_instances = merged
        return data_samples[0]
