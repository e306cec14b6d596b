# Mask2Former on InternImage-H, COCO-Stuff 10k, from COCO-Stuff 164k:
# the official mask2former_internimage_h_512_40k_cocostuff164k_to_10k.py.
_base_ = [
    '../_base_/runtime.py',
    '../../_base_/backbones/internimage-h.py',
    '../_base_/models/mask2former_wide.py',
    '../_base_/datasets/coco-stuff10k_512x512.py',
    '../_base_/schedules/adamw-large_40k.py',
]
load_from = _base_.checkpoints + 'mask2former_internimage_h_896_80k_cocostuff164k.pth'
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(_base_.backbone, init_cfg=None),
    decode_head=dict(in_channels=_base_.channels, num_classes=171, loss_cls=dict(class_weight=[1.0] * 171 + [0.1])),
)
optim_wrapper = dict(optimizer=dict(lr=1e-5), paramwise_cfg=dict(layer_decay_rate=0.95), clip_grad=None)
