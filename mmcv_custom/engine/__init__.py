"""Training and testing: runner, hooks, learning rates and mixed precision."""

from .amp import CPUAmpOptimWrapper
from .hooks import CompleteCheckpointHook, PictureHook
from .layer_decay import CustomLayerDecayOptimizerConstructor
from .runner import PortableRunner
from .saving import SafeCheckpointHook

__all__ = [
    'CPUAmpOptimWrapper',
    'CompleteCheckpointHook',
    'CustomLayerDecayOptimizerConstructor',
    'PictureHook',
    'PortableRunner',
    'SafeCheckpointHook',
]
