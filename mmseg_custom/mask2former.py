"""Mask2Former with the results of the published models."""

from __future__ import annotations

import torch
from mmengine.registry import MODELS
from mmseg.models import Mask2FormerHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.structures import SegDataSample
from torch import Tensor


@MODELS.register_module()
class PublishedMask2FormerHead(Mask2FormerHead):
    """mmseg's Mask2Former head with the predictions of the official segmentors.

    The published models compute the class map, the softmax of the class scores times the sigmoid of the masks, at the
    masks' resolution, a quarter of the input's, and enlarge it. mmseg's head enlarges the masks' logits first.
    Arguments, parameters and losses are mmseg's.
    """

    def predict(self, x: tuple[Tensor, ...], batch_img_metas: list[dict], test_cfg: dict | None) -> Tensor:
        """The class map: (N, num_classes, H, W), between 0 and the number of queries.

        Args:
            x: Features (N, C, H/4, W/4), (N, 2C, H/8, W/8), (N, 4C, H/16, W/16) and (N, 8C, H/32, W/32).
            batch_img_metas: Meta information of each image. H and W are the first one's ``pad_shape``, or ``img_shape``
                if it was not padded or is a window of the image.
            test_cfg: Unused.
        """
        scores, masks = self(x, [SegDataSample(metainfo=meta) for meta in batch_img_metas])  # of every decoder layer
        classes = scores[-1].softmax(-1)[..., :-1]  # the last is "no object"
        class_map = torch.einsum('nqc,nqhw->nchw', classes, masks[-1].sigmoid())
        return BaseDecodeHead.predict_by_feat(self, class_map, batch_img_metas)  # enlarges as mmseg's other heads do
