# Mask2Former on InternImage-H, Cityscapes, from Mapillary Vistas:
# the official mask2former_internimage_h_1024x1024_80k_mapillary2cityscapes.py.
_base_ = [
    '../_base_/runtime.py',
    '../../_base_/backbones/internimage-h.py',
    '../_base_/models/mask2former.py',
    '../_base_/datasets/cityscapes-coarse_1024x1024.py',
    '../_base_/schedules/adamw-large_80k.py',
]
load_from = _base_.checkpoints + 'mask2former_internimage_h_896x896_80k_mapillary.pth'
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(_base_.backbone, init_cfg=None),
    decode_head=dict(in_channels=_base_.channels, num_classes=19, loss_cls=dict(class_weight=[1.0] * 19 + [0.1])),
    test_cfg=dict(mode='slide', crop_size=_base_.crop_size, stride=(512, 512)),
)
optim_wrapper = dict(optimizer=dict(lr=1e-5), paramwise_cfg=dict(layer_decay_rate=0.95))
train_cfg = dict(val_interval=2000)
