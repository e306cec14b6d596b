# Cascade Mask R-CNN on InternImage-XL, 36 epochs: the official cascade_internimage_xl_fpn_3x_coco.py.
_base_ = [
    '../_base_/runtime.py',
    '../../_base_/backbones/internimage-xl.py',
    '../_base_/models/cascade-mask-rcnn.py',
    '../_base_/datasets/coco-instance_multi-scale-crop.py',
    '../_base_/schedules/adamw-large_3x.py',
    '../_base_/tta.py',
]
model = dict(backbone=dict(_base_.backbone, drop_path_rate=0.6), neck=dict(in_channels=_base_.channels))
