# AdamW, 40k iterations, for models from L on.
_base_ = 'adamw-large_160k.py'
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=40000)]
train_cfg = dict(max_iters=40000, val_interval=2000)
