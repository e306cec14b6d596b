# AdamW, 36 epochs, 32 GPUs with 2 images each, for models from L on. The official offset_lr_scale=0.01 is left out:
# these models have no parameter that it affects.
_base_ = 'adamw_3x.py'
optim_wrapper = dict(optimizer=dict(lr=2e-4), paramwise_cfg=dict(layer_decay_rate=0.9))
auto_scale_lr = dict(base_batch_size=64)
custom_hooks = [dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0001, update_buffers=True, priority=49)]
