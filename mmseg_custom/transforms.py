"""The views of an image that published multi-scale results average."""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.transforms import TestTimeAug
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class MultiScaleFlip(TestTimeAug):
    """An image in several sizes, each as it is and mirrored, packed for the model.

    Sizes are relative to that of the plain test pipeline, and not, as in mmseg's own configs, to that of the image.

    Args:
        scale: Width and height within which ratio 1 fits the image.
        ratios: Factors on ``scale``; by default the six of the official ``test.py --aug-test``.
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
