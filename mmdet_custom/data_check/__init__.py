"""The data check of detection."""

from .coco import CocoCheck
from .detection import DetectionCheck
from .voc import VOCCheck

__all__ = ['CocoCheck', 'DetectionCheck', 'VOCCheck']
