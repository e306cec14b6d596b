# Cascade Mask R-CNN on InternImage-L, 36 epochs: the official cascade_internimage_l_fpn_3x_coco.py.
_base_ = [
    '../_base_/runtime.py',
    '../../_base_/backbones/internimage-l.py',
    '../_base_/models/cascade-mask-rcnn.py',
    '../_base_/datasets/coco-instance_multi-scale-crop.py',
    '../_base_/schedules/adamw-large_3x.py',
    '../_base_/tta.py',
]
model = dict(backbone=_base_.backbone, neck=dict(in_channels=_base_.channels))
