# Cascade R-CNN on InternImage-XL, CrowdHuman: the official cascade_internimage_xl_fpn_3x_crowd_human.py.
# 64 GPUs with 2 images each. No result was published.
_base_ = [
    '../_base_/runtime.py',
    '../../_base_/backbones/internimage-xl.py',
    '../_base_/models/cascade-rcnn.py',
    '../_base_/datasets/crowdhuman.py',
    '../_base_/schedules/adamw_3x.py',
    '../_base_/tta.py',
]
model = dict(
    backbone=_base_.backbone,
    neck=dict(in_channels=_base_.channels),
    roi_head=dict(bbox_head=[dict(head, num_classes=1) for head in _base_.model.roi_head.bbox_head]),
)
optim_wrapper = dict(optimizer=dict(weight_decay=1e-4), paramwise_cfg=dict(layer_decay_rate=0.94))
auto_scale_lr = dict(base_batch_size=128)
