"""What detection and segmentation share: the InternImage backbone, and what trains and evaluates it in MMEngine.

Importing the package registers its classes and sets up MMEngine (:func:`mmcv_custom.mmengine_setup.set_up_mmengine`).
"""

from .checkpoint import convert_state_dict
from .engine import (
    CompleteCheckpointHook,
    CPUAmpOptimWrapper,
    CustomLayerDecayOptimizerConstructor,
    PictureHook,
    PortableRunner,
)
from .mmengine_setup import set_up_mmengine
from .models import InternImage

__all__ = [
    'CPUAmpOptimWrapper',
    'CompleteCheckpointHook',
    'CustomLayerDecayOptimizerConstructor',
    'InternImage',
    'PictureHook',
    'PortableRunner',
    'convert_state_dict',
]

set_up_mmengine()
