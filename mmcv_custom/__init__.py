"""What detection and segmentation share: the InternImage backbone and its training tools, registered in MMEngine.

Importing the package also makes MMEngine read checkpoints safely, see :func:`mmcv_custom.checkpoint.register_safe_loader`.
"""

from .checkpoint import register_safe_loader
from .internimage import InternImage
from .layer_decay import CustomLayerDecayOptimizerConstructor

__all__ = ['CustomLayerDecayOptimizerConstructor', 'InternImage']

register_safe_loader()
