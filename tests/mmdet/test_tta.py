"""Merging of instance segmentations of several views."""

from __future__ import annotations

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.structures import InstanceData

from mmdet_custom import InstanceTTAModel

HEIGHT, WIDTH = 12, 20


class Model(BaseModel):
    """Stands for the detector, which merging does not ask."""

    def forward(self) -> None: ...


@pytest.fixture
def model() -> InstanceTTAModel:
    tta_cfg = ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=2)
    return InstanceTTAModel(tta_cfg=tta_cfg, module=Model())


def view(
    boxes: list[list[float]], scores: list[float], labels: list[int], flip: str | None = None, masks: bool = True
) -> DetDataSample:
    """A view whose masks fill the boxes. Everything is given upright and flipped here."""
    mask = torch.zeros(len(boxes), HEIGHT, WIDTH, dtype=torch.bool)
    for index, (left, top, right, bottom) in enumerate(boxes):
        mask[index, int(top) : int(bottom), int(left) : int(right)] = True
    box = torch.tensor(boxes, dtype=torch.float).reshape(-1, 4)
    if flip in ('horizontal', 'diagonal'):
        mask, box = mask.flip(2), torch.stack((WIDTH - box[:, 2], box[:, 1], WIDTH - box[:, 0], box[:, 3]), 1)
    if flip in ('vertical', 'diagonal'):
        mask, box = mask.flip(1), torch.stack((box[:, 0], HEIGHT - box[:, 3], box[:, 2], HEIGHT - box[:, 1]), 1)
    meta = dict(ori_shape=(HEIGHT, WIDTH), img_shape=(HEIGHT, WIDTH), flip=flip is not None, flip_direction=flip)
    found = InstanceData(
        bboxes=box, scores=torch.tensor(scores, dtype=torch.float), labels=torch.tensor(labels, dtype=torch.long)
    )
    if masks:
        found.masks = mask
    return DetDataSample(metainfo=meta, pred_instances=found)


@pytest.mark.parametrize('flip', ['horizontal', 'vertical', 'diagonal'])
def test_each_box_keeps_its_own_mask(model: InstanceTTAModel, flip: str) -> None:
    plain = view([[1, 1, 6, 5], [9, 2, 18, 11]], [0.5, 0.9], [0, 1])
    flipped = view([[1, 1, 6, 6], [9, 3, 18, 11]], [0.8, 0.6], [0, 1], flip)
    (merged,) = model.merge_preds([[plain, flipped]])
    found = merged.pred_instances
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])
    assert found.labels.tolist() == [1, 0]
    assert found.bboxes.tolist() == [[9, 2, 18, 11], [1, 1, 6, 6]]
    for mask, (left, top, right, bottom) in zip(found.masks, found.bboxes.int().tolist(), strict=True):
        assert mask[top:bottom, left:right].all() and mask.sum() == (right - left) * (bottom - top)


def test_overlap_with_another_class_survives(model: InstanceTTAModel) -> None:
    (merged,) = model.merge_preds([[view([[1, 1, 6, 5]], [0.5], [0]), view([[1, 1, 6, 5]], [0.6], [1], 'horizontal')]])
    assert merged.pred_instances.labels.tolist() == [1, 0]


def test_the_best_are_kept(model: InstanceTTAModel) -> None:
    boxes = [[0, 0, 2, 2], [4, 0, 6, 2], [8, 0, 10, 2]]
    (merged,) = model.merge_preds([[view(boxes, [0.1, 0.9, 0.5], [0, 0, 0])]])
    assert merged.pred_instances.scores.tolist() == pytest.approx([0.9, 0.5])


@pytest.mark.parametrize('masks', [True, False])
def test_nothing_found(model: InstanceTTAModel, masks: bool) -> None:
    (merged,) = model.merge_preds([[view([], [], [], None, masks), view([], [], [], 'horizontal', masks)]])
    assert len(merged.pred_instances) == 0
    assert ('masks' in merged.pred_instances) == masks
