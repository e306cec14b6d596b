"""What only segmentation needs."""

from .datasets import MapillaryCityscapesDataset, NYUDepthV2Dataset
from .dump import DumpSegResults
from .mask2former import CompatMask2FormerHead
from .transforms import MultiScaleFlip

__all__ = [
    'CompatMask2FormerHead',
    'DumpSegResults',
    'MapillaryCityscapesDataset',
    'MultiScaleFlip',
    'NYUDepthV2Dataset',
]
