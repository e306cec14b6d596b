# Fine-tunes a DINO that was trained on Objects365: 20k iterations at a constant learning rate, one image per GPU.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=20000, val_interval=200)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
    constructor='CustomLayerDecayOptimizerConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.94, offset_lr_scale=1e-3),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)
param_scheduler = [dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500)]
# An estimate: the official files do not state the number of GPUs. With 64 GPUs this is 11 epochs of COCO; the paper
# (Sec. 4.2) says 12.
auto_scale_lr = dict(enable=False, base_batch_size=64)
