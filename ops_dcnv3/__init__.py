"""DCNv3, the deformable convolution of InternImage, as a compiled PyTorch operator."""

from ._version import __version__
from .functional import dcnv3
from .modules import DCNv3, DCNv3_1d, DCNv3_pytorch
from .reference import dcnv3_reference

__all__ = ['DCNv3', 'DCNv3_1d', 'DCNv3_pytorch', '__version__', 'dcnv3', 'dcnv3_reference']
