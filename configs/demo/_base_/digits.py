# What the demo's models share: the dataset of tools/demo/digits.py, a backbone for one CPU core, schedule and log.
_base_ = '../../_base_/plugin.py'
custom_imports = dict(imports=['mmcv_custom', 'mmdet_custom', 'mmseg_custom'], allow_failed_imports=False)

data_root = 'data/digits/'
digits = tuple('0123456789')
backbone = dict(type='InternImage', channels=32, depths=[1, 1, 3, 1], groups=[2, 4, 8, 16], drop_path_rate=0.0)
channels = [32, 64, 128, 256]

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=0.05, fused=True),
    constructor='CustomLayerDecayOptimizerConstructor',
    paramwise_cfg=dict(layer_decay_rate=1.0),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.02, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=1000),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1000, val_interval=250)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
train_loader = dict(
    batch_size=4, num_workers=1, persistent_workers=True, sampler=dict(type='InfiniteSampler', shuffle=True)
)
val_loader = dict(
    batch_size=4, num_workers=1, persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=False)
)

default_hooks = dict(
    logger=dict(type='LoggerHook', interval=25, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=250, max_keep_ckpts=1),
)
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
