# Mask2Former on InternImage-H, Pascal Context 59: the official mask2former_internimage_h_480_40k_pascal_context_59.py.
_base_ = [
    '../_base_/schedules/40k.py',
    '../_base_/backbones/internimage-h.py',
    '../_base_/models/mask2former.py',
    '../_base_/datasets/pascal-context-59_480x480.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=_base_.backbone,
    decode_head=dict(in_channels=_base_.in_channels, num_classes=59, loss_cls=dict(class_weight=[1.0] * 59 + [0.1])),
)
optim_wrapper = dict(clip_grad=None)
