"""Detection: DINO and the composite backbone as published, a metric and test-time augmentation."""

from . import data_check  # noqa: F401
from .cbnet import CBDINO, CBChannelMapper, CBInternImage
from .dino import PublishedDINO, PublishedDINOHead
from .lvis import CompatLVISMetric
from .tta import InstanceTTAModel

__all__ = [
    'CBChannelMapper',
    'CBDINO',
    'CBInternImage',
    'PublishedDINO',
    'PublishedDINOHead',
    'CompatLVISMetric',
    'InstanceTTAModel',
]
