"""A gap in the onedl fork of MMEngine, closed."""

from mmengine.config.utils import MODULE2PACKAGE


def locate_mmseg_configs() -> None:
    """Makes bases ``mmseg::...`` of configs work.

    MMEngine looks for them in a distribution called mmsegmentation, but the fork's is called onedl-mmsegmentation.
    By the name of the module it finds either.
    """
    MODULE2PACKAGE['mmseg'] = 'mmseg'
