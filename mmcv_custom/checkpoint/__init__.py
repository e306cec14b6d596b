"""Checkpoints: read safely, converted to MMEngine's form, and loaded into backbones."""

from .backbone import adapt, backbone_state_dict, load_pretrained_backbone
from .conversion import (
    Conversion,
    convert,
    convert_checkpoint,
    convert_state_dict,
    load_converted,
)
from .filling import LoadReport, compare, differences, fill, likely_cause, not_finite, require_complete, unwrapped
from .forms import mmengine_form, named_tensors, renamed, unwrap
from .safe_loading import SAFETENSORS_META, UNSAFE_LOAD_VARIABLE, CheckpointError, download, load_safely

__all__ = [
    'SAFETENSORS_META',
    'UNSAFE_LOAD_VARIABLE',
    'CheckpointError',
    'Conversion',
    'LoadReport',
    'adapt',
    'backbone_state_dict',
    'compare',
    'convert',
    'convert_checkpoint',
    'convert_state_dict',
    'differences',
    'download',
    'fill',
    'likely_cause',
    'load_converted',
    'load_pretrained_backbone',
    'load_safely',
    'mmengine_form',
    'named_tensors',
    'not_finite',
    'renamed',
    'require_complete',
    'unwrap',
    'unwrapped',
]
