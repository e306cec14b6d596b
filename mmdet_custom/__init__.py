"""What only detection needs."""

from .tta import InstanceTTAModel

__all__ = ['InstanceTTAModel']
