"""What detection and segmentation share: the InternImage backbone and its training tools, registered in MMEngine.

Importing the package also makes MMEngine read checkpoints safely (:func:`mmcv_custom.checkpoint.register_safe_loader`),
find the configs of mmseg (:func:`mmcv_custom.onedl.locate_mmseg_configs`) and count the FLOPs of DCNv3
(:mod:`mmcv_custom.complexity`).
"""

from .amp import CPUAmpOptimWrapper
from .checkpoint import register_safe_loader
from .complexity import register_complexity
from .conversion import convert_state_dict
from .internimage import InternImage
from .layer_decay import CustomLayerDecayOptimizerConstructor
from .onedl import locate_mmseg_configs
from .runner import PortableRunner

__all__ = [
    'CPUAmpOptimWrapper',
    'CustomLayerDecayOptimizerConstructor',
    'InternImage',
    'PortableRunner',
    'convert_state_dict',
]

locate_mmseg_configs()
register_complexity()
register_safe_loader()
