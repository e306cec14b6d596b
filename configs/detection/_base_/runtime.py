# The runtime of all detectors.
_base_ = 'mmdet::_base_/default_runtime.py'
custom_imports = dict(imports=['mmcv_custom', 'mmdet_custom'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_last=True, save_best='auto'))
