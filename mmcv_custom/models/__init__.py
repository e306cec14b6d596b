"""The InternImage backbone."""

from .arch import PRESETS, Arch
from .internimage import InternImage, internimage_layer_depth

__all__ = ['PRESETS', 'Arch', 'InternImage', 'internimage_layer_depth']
