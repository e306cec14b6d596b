# AdamW, 80k iterations, for models from L on.
_base_ = 'adamw-large_160k.py'
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=80000)]
train_cfg = dict(max_iters=80000, val_interval=8000)
