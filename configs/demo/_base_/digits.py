# What both demo models share: the data set of tools/demo/digits.py, a backbone for one CPU core, the schedule.
from importlib import import_module


import_module('mmcv_custom')  # lets MMEngine find the bases mmseg::... of the onedl fork
custom_imports = dict(imports=['mmcv_custom', 'mmdet_custom', 'mmseg_custom'], allow_failed_imports=False)

data_root = 'data/digits/'
classes = tuple('0123456789')
backbone = dict(
    type='InternImage',
    channels=32,
    depths=[1, 1, 3, 1],
    groups=[2, 4, 8, 16],
    drop_path_rate=0.0,
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1.5e-3, weight_decay=0.05, fused=True),
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
randomness = dict(seed=0)
