# Mask2Former on InternImage-H, ADE20K, from COCO-Stuff 164k:
# the official mask2former_internimage_h_896_80k_cocostuff2ade20k_ss.py.
_base_ = [
    '../_base_/runtime.py',
    '../../_base_/backbones/internimage-h.py',
    '../_base_/models/mask2former_wide.py',
    '../_base_/datasets/ade20k_896x896.py',
    '../_base_/schedules/adamw-large_80k.py',
]
load_from = _base_.checkpoints + 'mask2former_internimage_h_896_80k_cocostuff164k.pth'
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(_base_.backbone, init_cfg=None),
    decode_head=dict(in_channels=_base_.channels, num_classes=150, loss_cls=dict(class_weight=[1.0] * 150 + [0.1])),
)
optim_wrapper = dict(optimizer=dict(lr=1e-5), paramwise_cfg=dict(layer_decay_rate=0.95))
train_cfg = dict(val_interval=2000)
