# Mask R-CNN on InternImage-T, 36 epochs: the official mask_rcnn_internimage_t_fpn_3x_coco.py.
_base_ = [
    '../_base_/runtime.py',
    '../../_base_/backbones/internimage-t.py',
    '../_base_/models/mask-rcnn.py',
    '../_base_/datasets/coco-instance_multi-scale-crop.py',
    '../_base_/schedules/adamw_3x.py',
    '../_base_/tta.py',
]
model = dict(backbone=_base_.backbone, neck=dict(in_channels=_base_.channels))
