"""Two InternImages as one composite backbone (CBNetV2, https://arxiv.org/abs/2107.00420), and what uses both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from mmdet.models import ChannelMapper
from mmdet.structures import DetDataSample
from mmengine.model import BaseModule, ModuleList
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmcv_custom import InternImage

from .dino import CompatDINO


class LeadInternImage(InternImage):
    """The second InternImage: without a stem, and with factors on what the first one adds to its stages.

    :class:`CBInternImage` runs its stages.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.patch_embed = nn.Identity()
        for stage, width in enumerate(self.arch.widths):
            self.register_parameter(f'gamma{stage}', nn.Parameter(torch.zeros(width)))


@MODELS.register_module()
class CBInternImage(BaseModule):
    """Two InternImages of one architecture, the first of which assists the second (dense higher-level composition).

    Stage i of the second gets, besides what its own stage before gives, the first one's features of stages i to 3,
    brought to its width and size and weighted by learned factors that begin at zero.

    Args:
        out_indices: Stages whose features are returned, of both, of 0, 1, 2, 3. (The official configs have one list for
            each, and a stride-4 map of the first that is never used.)
        half_gammas: Round those factors to half precision, as the official code does in training and in evaluation, so
            that the published results are with it. It moves the features by some 1e-3. The factors' gradients pass
            through half precision too, where very small ones vanish.
        **options: Of :class:`mmcv_custom.InternImage`, for both. ``init_cfg`` loads one checkpoint into both;
            ``frozen_stages`` freezes the stages of both, but not what connects them.

    Raises:
        TypeError: Unknown keyword.
        ValueError: A value out of range.

    Example:
        >>> model = CBInternImage(arch='tiny', core_op='DCNv3_pytorch').eval()
        >>> [[tuple(f.shape) for f in features] for features in model(torch.rand(1, 3, 64, 64))]
        [[(1, 128, 8, 8), (1, 256, 4, 4), (1, 512, 2, 2)], [(1, 128, 8, 8), (1, 256, 4, 4), (1, 512, 2, 2)]]
    """

    def __init__(self, out_indices: Sequence[int] = (1, 2, 3), half_gammas: bool = False, **options: Any) -> None:
        super().__init__()
        if not all(isinstance(index, int) for index in out_indices):
            raise ValueError(f'out_indices must be ints, the stages that both backbones return, got {out_indices}')
        assistant = InternImage(out_indices=(0, 1, 2, 3), **options)
        lead = LeadInternImage(out_indices=out_indices, **options)
        self.arch = assistant.arch
        self.out_indices = lead.out_indices
        self.half_gammas = half_gammas
        self.cb_modules = ModuleList([assistant, lead])
        # The first of each row is an identity; checkpoints count it.
        self.cb_linears = nn.ModuleList(
            nn.ModuleList(
                nn.Identity() if source == width else nn.Conv2d(source, width, 1) for source in self.arch.widths[stage:]
            )
            for stage, width in enumerate(self.arch.widths)
        )

    def forward(self, x: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """(N, in_channels, H, W) -> the features of the first and of the second, each as of one InternImage."""
        assistant, lead = cast(Sequence[InternImage], self.cb_modules)
        stem = assistant.forward_stem(x)
        found = assistant.forward_stages(stem)
        additions = [self._addition(stage, found) for stage in range(4)]
        return tuple(found[index] for index in self.out_indices), lead.forward_stages(stem, additions)

    def _addition(self, stage: int, found: Sequence[Tensor]) -> Tensor:
        """What a stage of the second gets of the first one's features (N, C_i, H_i, W_i): (N, H, W, C) of its own."""
        own, *later = found[stage:]
        _, *linears = cast(nn.ModuleList, self.cb_linears[stage])
        brought = [
            F.interpolate(linear(feature), size=own.shape[2:])  # nearest
            for linear, feature in zip(linears, later, strict=True)
        ]
        gamma = getattr(self.cb_modules[1], f'gamma{stage}')
        if self.half_gammas:
            gamma = gamma.half().to(gamma.dtype)
        return gamma * sum(brought, own).permute(0, 2, 3, 1)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer id of a parameter and number of layers, for layer-wise learning rates.

        As in the official schedules, whose rules know none of these names: all parameters count with the head, so that
        the whole backbone learns at the full rate.

        Args:
            param_name: Name of any parameter.
            prefix: As of :meth:`mmcv_custom.InternImage.get_layer_depth`.
        """
        num_layers = sum(self.arch.depths) + 2
        return num_layers - 1, num_layers


@MODELS.register_module()
class CBChannelMapper(ChannelMapper):
    """mmdet's ChannelMapper, of which the arguments are, for the two sets of features of :class:`CBInternImage`."""

    def forward(self, inputs: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...] | tuple[tuple[Tensor, ...], ...]:
        """Features of the first and of the second backbone -> both mapped in training, the second's alone otherwise.

        Raises:
            ValueError: There are not two sets of features.
        """
        if len(inputs) != 2 or isinstance(inputs[0], Tensor):
            raise ValueError(
                f'inputs must be the two sets of features of a CBInternImage, got {len(inputs)} of type '
                f'{type(inputs[0]).__name__}'
            )
        if self.training:
            return tuple(super(CBChannelMapper, self).forward(features) for features in inputs)
        return super().forward(inputs[1])


@MODELS.register_module()
class CBDINO(CompatDINO):
    """DINO on a composite backbone, which learns from the first backbone's features too and detects by the second's.

    Args:
        assistant_loss_weight: Factor on the losses of the first backbone's features. Their names begin with
            ``assistant.``.
        **options: Of :class:`CompatDINO`. The backbone must be a :class:`CBInternImage`, the neck a
            :class:`CBChannelMapper`.

    Raises:
        TypeError: The backbone is another.
    """

    def __init__(self, *args: Any, assistant_loss_weight: float = 0.5, **options: Any) -> None:
        super().__init__(*args, **options)
        if not isinstance(self.backbone, CBInternImage):
            raise TypeError(f'backbone must be a CBInternImage, got {type(self.backbone).__name__}')
        self.assistant_loss_weight = assistant_loss_weight

    def loss(self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample]) -> dict[str, Tensor]:
        """Losses from the features of the second backbone and from those of the first.

        Both pass the transformer as one batch of 2N images, each with denoising queries of its own. Then each has its
        losses, normalised by the objects of the N images.

        Args:
            batch_inputs: (N, in_channels, H, W).
            batch_data_samples: The N images' annotations.
        """
        images = len(batch_data_samples)
        features = [torch.cat(pair) for pair in zip(*self.extract_feat(batch_inputs), strict=True)]
        outputs = self.forward_transformer(features, batch_data_samples * 2)
        losses = {}
        for prefix, weight, half in (
            ('assistant.', self.assistant_loss_weight, slice(images)),
            ('', 1.0, slice(images, None)),
        ):
            branch = self.bbox_head.loss(
                outputs['hidden_states'][:, half],
                [boxes[half] for boxes in outputs['references']],
                outputs['enc_outputs_class'][half],
                outputs['enc_outputs_coord'][half],
                batch_data_samples,
                outputs['dn_meta'],
            )
            losses.update({prefix + name: weight * loss for name, loss in branch.items()})
        return losses
