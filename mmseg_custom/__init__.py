"""What only segmentation needs."""

from .dump import DumpSegResults

__all__ = ['DumpSegResults']
