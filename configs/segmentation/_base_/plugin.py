# The first base of a segmentation config. Importing the package before further bases are read is what lets MMEngine find
# those called mmseg::... in the onedl fork; an import statement here would be taken for a lazy config.
from importlib import import_module

import_module('mmcv_custom')
custom_imports = dict(imports=['mmcv_custom', 'mmseg_custom'], allow_failed_imports=False)
