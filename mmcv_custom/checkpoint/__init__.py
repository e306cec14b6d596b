"""Checkpoints: read safely, converted to MMEngine's form, and loaded into backbones."""

from .backbone import LoadReport, backbone_state_dict, compare, differences, likely_cause, load_pretrained_backbone
from .conversion import Conversion, convert, convert_checkpoint, convert_state_dict, load_converted, unwrap
from .safe_loading import SAFETENSORS_META, UNSAFE_LOAD_VARIABLE, CheckpointError, download, load_safely

__all__ = [
    'SAFETENSORS_META',
    'UNSAFE_LOAD_VARIABLE',
    'CheckpointError',
    'Conversion',
    'LoadReport',
    'backbone_state_dict',
    'compare',
    'convert',
    'convert_checkpoint',
    'convert_state_dict',
    'differences',
    'download',
    'likely_cause',
    'load_converted',
    'load_pretrained_backbone',
    'load_safely',
    'unwrap',
]
