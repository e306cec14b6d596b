# AdamW, 36 epochs, with 8 GPUs of 2 images.
_base_ = 'adamw_1x.py'
train_cfg = dict(max_epochs=36)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(type='MultiStepLR', begin=0, end=36, by_epoch=True, milestones=[27, 33], gamma=0.1),
]
