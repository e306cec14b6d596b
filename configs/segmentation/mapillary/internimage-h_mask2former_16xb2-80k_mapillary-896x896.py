# Mask2Former on InternImage-H, Mapillary Vistas: the official mask2former_internimage_h_896x896_80k_mapillary.py.
_base_ = [
    '../_base_/runtime.py',
    '../../_base_/backbones/internimage-h.py',
    '../_base_/models/mask2former.py',
    '../_base_/datasets/mapillary_896x896.py',
    '../_base_/schedules/adamw-large_80k.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=_base_.backbone,
    decode_head=dict(in_channels=_base_.channels, num_classes=19, loss_cls=dict(class_weight=[1.0] * 19 + [0.1])),
    test_cfg=dict(mode='slide', crop_size=_base_.crop_size, stride=(512, 512)),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.95))
train_cfg = dict(val_interval=2000)
auto_scale_lr = dict(base_batch_size=32)
