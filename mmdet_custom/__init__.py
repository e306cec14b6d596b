"""What only detection needs."""

from .cbnet import CBDINO, CBChannelMapper, CBInternImage
from .dino import CompatDINO, CompatDINOHead
from .lvis import CompatLVISMetric
from .tta import InstanceTTAModel

__all__ = [
    'CBChannelMapper',
    'CBDINO',
    'CBInternImage',
    'CompatDINO',
    'CompatDINOHead',
    'CompatLVISMetric',
    'InstanceTTAModel',
]
