"""The data check of semantic segmentation."""

from .check import SegmentationCheck
from .fix import fix_masks

__all__ = ['SegmentationCheck', 'fix_masks']
