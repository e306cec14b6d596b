"""DINO (https://arxiv.org/abs/2203.03605) with the results of the published InternImage detectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models import DINO, DINOHead
from mmdet.models.layers import MLP, DinoTransformerDecoder, coordinate_to_encoding, inverse_sigmoid
from mmengine.registry import MODELS
from torch import Tensor, nn

# The inverse sigmoid keeps coordinates this far from 0 and 1. mmdet's decoder has the same value, its head 1e-5.
EPSILON = 1e-3


class PublishedDINODecoder(DinoTransformerDecoder):
    """mmdet's decoder with E/2 sine features per coordinate of a reference box; E is the width of the queries.

    mmdet up to 3.3.0 has 128 features, which is the same for E = 256. The onedl fork has E features, which no published
    checkpoint fits.
    """

    def _init_layers(self) -> None:
        super()._init_layers()
        if not self.return_intermediate:
            raise ValueError('decoder.return_intermediate must be True: the head of DINO reads every layer, got False')
        self.ref_point_head = MLP(2 * self.embed_dims, self.embed_dims, self.embed_dims, 2)

    def forward(
        self,
        query: Tensor,
        *,
        reference_points: Tensor,
        valid_ratios: Tensor,
        reg_branches: Sequence[nn.Module],
        **layer_inputs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Refines queries and boxes layer by layer.

        Args:
            query: (N, Q, E).
            reference_points: Boxes to start from, (N, Q, 4): centre and size over the image's, in [0, 1].
            valid_ratios: Fraction of width and height that the image fills in each feature level, (N, levels, 2).
            reg_branches: Modules that predict the change of the boxes, one per layer.
            **layer_inputs: Passed to every layer.

        Returns:
            The normalised queries after each layer, (layers, N, Q, E), and the boxes before the first and after each
            layer, (layers + 1, N, Q, 4).
        """
        scale = valid_ratios.repeat(1, 1, 2)[:, None]
        states, references = [], [reference_points]
        for layer, reg_branch in zip(self.layers, reg_branches, strict=False):  # the last branch is the encoder's
            boxes = reference_points[:, :, None] * scale
            encoding = coordinate_to_encoding(boxes[:, :, 0], num_feats=self.embed_dims // 2)
            query = layer(
                query,
                query_pos=self.ref_point_head(encoding),
                reference_points=boxes,
                valid_ratios=valid_ratios,
                **layer_inputs,
            )
            refined = (reg_branch(query) + inverse_sigmoid(reference_points, eps=EPSILON)).sigmoid()
            states.append(self.norm(query))
            references.append(refined)
            reference_points = refined.detach()
        return torch.stack(states), torch.stack(references)


@MODELS.register_module()
class PublishedDINO(DINO):
    """mmdet's DINO, for checkpoints of the official InternImage and of mmdet up to 3.3.0.

    Arguments and parameter names are mmdet's. :func:`mmcv_custom.convert_state_dict` gives official checkpoints these
    names.
    """

    decoder: Any  # a config until _init_layers

    def _init_layers(self) -> None:
        decoder = self.decoder
        super()._init_layers()
        self.decoder = PublishedDINODecoder(**decoder)


@MODELS.register_module()
class PublishedDINOHead(DINOHead):
    """mmdet's head with the official epsilon in the inverse sigmoid, which affects boxes at the image's border."""

    def forward(self, hidden_states: Tensor, references: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Scores and boxes of every decoder layer.

        Args:
            hidden_states: (layers, N, Q, E).
            references: Boxes before each layer, (N, Q, 4), centre and size in [0, 1]. Boxes after the last layer are
                not used.

        Returns:
            Logits (layers, N, Q, classes) and boxes (layers, N, Q, 4), centre and size in [0, 1].
        """
        scores, boxes = [], []
        layers = zip(hidden_states, references, self.cls_branches, self.reg_branches, strict=False)
        for states, reference, cls_branch, reg_branch in layers:
            scores.append(cls_branch(states))
            boxes.append((reg_branch(states) + inverse_sigmoid(reference, eps=EPSILON)).sigmoid())
        return torch.stack(scores), torch.stack(boxes)
