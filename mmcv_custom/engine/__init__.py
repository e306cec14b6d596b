"""Training and testing: runner, hooks, learning rates and mixed precision."""

from .amp import CPUAmpOptimWrapper
from .batches import BatchSizeCheckHook
from .classes import ClassCheckHook
from .finite import FiniteLossHook
from .hooks import CompleteCheckpointHook, PictureHook
from .layer_decay import CustomLayerDecayOptimizerConstructor
from .pipeline import PipelineError
from .runner import PortableRunner
from .saving import SafeCheckpointHook
from .val_loss import ValLossHook

__all__ = [
    'BatchSizeCheckHook',
    'CPUAmpOptimWrapper',
    'ClassCheckHook',
    'CompleteCheckpointHook',
    'CustomLayerDecayOptimizerConstructor',
    'FiniteLossHook',
    'PictureHook',
    'PipelineError',
    'PortableRunner',
    'SafeCheckpointHook',
    'ValLossHook',
]
