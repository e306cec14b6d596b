"""Configs of mmdet 2 and mmseg 0, as the official InternImage has them: recognised, read, and carried over."""

from .matching import model_of
from .reading import OldConfig, old_config_hint, read_old_config
from .translation import Translation, translate

__all__ = ['OldConfig', 'Translation', 'model_of', 'old_config_hint', 'read_old_config', 'translate']
