# Mask R-CNN on InternImage-T, 12 epochs: the official mask_rcnn_internimage_t_fpn_1x_coco.py.
_base_ = [
    '../_base_/runtime.py',
    '../../_base_/backbones/internimage-t.py',
    '../_base_/models/mask-rcnn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/adamw_1x.py',
    '../_base_/tta.py',
]
model = dict(backbone=_base_.backbone, neck=dict(in_channels=_base_.channels))
