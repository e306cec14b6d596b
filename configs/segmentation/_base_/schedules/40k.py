# 40k iterations of the same shape.
_base_ = '160k.py'
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=40000)]
train_cfg = dict(max_iters=40000, val_interval=2000)
