"""Segmentation: Mask2Former as published, datasets, test-time augmentation and the file of predictions."""

from .data_check import SegmentationCheck
from .datasets import MapillaryCityscapesDataset, NYUDepthV2Dataset
from .dump import DumpSegResults
from .mask2former import PublishedMask2FormerHead
from .transforms import MultiScaleFlip

__all__ = [
    'PublishedMask2FormerHead',
    'DumpSegResults',
    'MapillaryCityscapesDataset',
    'MultiScaleFlip',
    'NYUDepthV2Dataset',
    'SegmentationCheck',
]
