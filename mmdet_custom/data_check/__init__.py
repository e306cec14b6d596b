"""The data check of detection."""

from .coco import CocoCheck
from .detection import DetectionCheck
from .formats import LVISCheck, LVISV1Check, Objects365V1Check, Objects365V2Check, PanopticCheck
from .voc import VOCCheck

__all__ = [
    'CocoCheck',
    'DetectionCheck',
    'LVISCheck',
    'LVISV1Check',
    'Objects365V1Check',
    'Objects365V2Check',
    'PanopticCheck',
    'VOCCheck',
]
