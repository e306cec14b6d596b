"""A composite backbone of two InternImages (CBNetV2, https://arxiv.org/abs/2107.00420), and its neck and detector."""

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

from .dino import PublishedDINO


class LeadInternImage(InternImage):
    """The second InternImage of a :class:`CBInternImage`, which runs its stages.

    It has no stem, and learned factors on the features that the first one adds to its stages.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.patch_embed = nn.Identity()
        for stage, width in enumerate(self.arch.widths):
            self.register_parameter(f'gamma{stage}', nn.Parameter(torch.zeros(width)))


@MODELS.register_module()
class CBInternImage(BaseModule):
    """Two InternImages of one architecture, of which the first assists the second (dense higher-level composition).

    Stage i of the second takes its previous stage's output plus the first one's features of stages i and later, brought
    to its width and size and weighted by learned factors that start at zero.

    Args:
        out_indices: Stages whose features both return, of 0, 1, 2, 3 for the presets. (The official configs have one
            list for each, and a stride-4 map of the first that is never used.)
        half_gammas: Round these factors to half precision. The official code does so in training and in evaluation, and
            the published results include it; it changes the features by about 1e-3. The factors' gradients pass through
            half precision too, where very small ones vanish.
        **options: :class:`mmcv_custom.InternImage`'s arguments, for both. ``init_cfg`` loads one checkpoint into both;
            ``frozen_stages`` freezes the stages of both, but not the connections between them.

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
        assistant = InternImage(**options)
        lead = LeadInternImage(out_indices=out_indices, **options)
        self.arch = assistant.arch
        self.out_indices = lead.out_indices
        self.half_gammas = half_gammas
        self.cb_modules = ModuleList([assistant, lead])
        # The first of each row is an identity: it takes an index in the published parameter names.
        self.cb_linears = nn.ModuleList(
            nn.ModuleList(
                nn.Identity() if source == width else nn.Conv2d(source, width, 1) for source in self.arch.widths[stage:]
            )
            for stage, width in enumerate(self.arch.widths)
        )

    def forward(self, x: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """(N, in_channels, H, W) -> features of the first and of the second, each like an InternImage's."""
        assistant, lead = cast(Sequence[InternImage], self.cb_modules)
        stem = assistant.forward_stem(x)
        found = assistant.forward_stages(stem)
        additions = [self._addition(stage, found) for stage in range(self.arch.num_stages)]
        return tuple(found[index] for index in self.out_indices), lead.forward_stages(stem, additions)

    def _addition(self, stage: int, found: Sequence[Tensor]) -> Tensor:
        """The first one's features (N, C_i, H_i, W_i) as an addition to a stage of the second: (N, H, W, C)."""
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

        As in the official schedules, whose rules match none of these names, all parameters belong to the head's layer:
        the whole backbone learns at the full rate.

        Args:
            param_name: Name of any parameter.
            prefix: See :meth:`mmcv_custom.InternImage.get_layer_depth`.
        """
        num_layers = sum(self.arch.depths) + 2
        return num_layers - 1, num_layers


@MODELS.register_module()
class CBChannelMapper(ChannelMapper):
    """Takes the arguments of mmdet's ChannelMapper and maps both feature sets of :class:`CBInternImage`."""

    def forward(self, inputs: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...] | tuple[tuple[Tensor, ...], ...]:
        """Maps the features of both backbones in training, and only those of the second otherwise.

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
class CBDINO(PublishedDINO):
    """DINO on a composite backbone: learns from the features of both, and detects with those of the second.

    Args:
        assistant_loss_weight: Factor on the losses of the first backbone's features. Their names begin with
            ``assistant.``.
        **options: :class:`PublishedDINO`'s arguments. The backbone must be a :class:`CBInternImage`, the neck a
            :class:`CBChannelMapper`.

    Raises:
        TypeError: The backbone is no :class:`CBInternImage`.
    """

    def __init__(self, *args: Any, assistant_loss_weight: float = 0.5, **options: Any) -> None:
        super().__init__(*args, **options)
        if not isinstance(self.backbone, CBInternImage):
            raise TypeError(f'backbone must be a CBInternImage, got {type(self.backbone).__name__}')
        self.assistant_loss_weight = assistant_loss_weight

    def loss(self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample]) -> dict[str, Tensor]:
        """Losses of the second backbone's features and of the first one's.

        Both pass through the transformer as one batch of 2N images, each with its own denoising queries. Each then has
        its own losses, normalised by the objects of the N images.

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
