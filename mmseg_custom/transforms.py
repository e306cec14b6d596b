"""Test-time augmentation of published multi-scale results."""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.transforms import TestTimeAug
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class MultiScaleFlip(TestTimeAug):
    """Packs an image in several sizes, each with and without a horizontal flip.

    Sizes are relative to the plain test pipeline's, not to the image's as in mmseg's own configs.

    Args:
        scale: Width and height into which the image fits at ratio 1.
        ratios: Factors on ``scale``; the six of the official ``test.py --aug-test`` by default.
        size_divisor: Each size is stretched to a multiple of this.
    """

    def __init__(
        self,
        scale: tuple[int, int],
        ratios: Sequence[float] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
        size_divisor: int = 32,
    ) -> None:
        width, height = scale
        sizes = [(int(width * ratio), int(height * ratio)) for ratio in ratios]
        super().__init__(
            transforms=[
                [dict(type='Resize', scale=size, keep_ratio=True) for size in sizes],
                [dict(type='ResizeToMultiple', size_divisor=size_divisor)],
                [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
                [dict(type='LoadAnnotations')],
                [dict(type='PackSegInputs')],
            ]
        )
