# The runtime of all segmentors. It is the first base of a config: plugin.py must be read before any base mmseg::...
_base_ = ['../../_base_/plugin.py', 'mmseg::_base_/default_runtime.py']
custom_imports = dict(imports=['mmcv_custom', 'mmseg_custom'], allow_failed_imports=False)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1000, max_keep_ckpts=1, save_best='mIoU'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
