# DINO, 12 epochs, 8 GPUs with 2 images each; learning rates fall from the head to the stem.
_base_ = 'adamw_1x.py'
optim_wrapper = dict(
    optimizer=dict(weight_decay=1e-4),
    paramwise_cfg=dict(layer_decay_rate=0.9),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[11], gamma=0.1),
]
