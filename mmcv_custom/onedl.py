"""A gap of the onedl forks, closed: without it no config can have a base ``mmseg::...``."""

from mmengine.config.utils import MODULE2PACKAGE

# MMEngine looks for mmseg's configs in a distribution called mmsegmentation; the fork's is called onedl-mmsegmentation.
# By the name of the module it finds either.
MODULE2PACKAGE['mmseg'] = 'mmseg'
