# The first base of a segmentation config. Importing the package before other bases are read lets MMEngine find those
# called mmseg::... in the onedl fork. An import statement would turn this into a config of the lazy style.
from importlib import import_module

import_module('mmcv_custom')
custom_imports = dict(imports=['mmcv_custom', 'mmseg_custom'], allow_failed_imports=False)
