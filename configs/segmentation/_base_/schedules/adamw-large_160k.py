# AdamW, 160k iterations, for models from L on: lower learning rates. H and G set layer_decay_rate=0.95.
_base_ = 'adamw_160k.py'
optim_wrapper = dict(
    optimizer=dict(lr=2e-5), paramwise_cfg=dict(layer_decay_rate=0.94), clip_grad=dict(max_norm=0.1, norm_type=2)
)
