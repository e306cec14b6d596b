"""The data check of semantic segmentation."""

from .check import SegmentationCheck

__all__ = ['SegmentationCheck']
