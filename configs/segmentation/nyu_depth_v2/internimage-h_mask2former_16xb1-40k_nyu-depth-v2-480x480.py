# Mask2Former on InternImage-H, NYU Depth v2: the official mask2former_internimage_h_480_40k_nyu.py.
_base_ = [
    '../_base_/runtime.py',
    '../../_base_/backbones/internimage-h.py',
    '../_base_/models/mask2former.py',
    '../_base_/datasets/nyu-depth-v2_480x480.py',
    '../_base_/schedules/adamw-large_40k.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=_base_.backbone,
    decode_head=dict(in_channels=_base_.channels, num_classes=40, loss_cls=dict(class_weight=[1.0] * 40 + [0.1])),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.95), clip_grad=None)
