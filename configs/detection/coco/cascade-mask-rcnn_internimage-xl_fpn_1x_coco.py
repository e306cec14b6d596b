# Cascade Mask R-CNN on InternImage-XL, 12 epochs: the official cascade_internimage_xl_fpn_1x_coco.py.
_base_ = [
    '../_base_/runtime.py',
    '../../_base_/backbones/internimage-xl.py',
    '../_base_/models/cascade-mask-rcnn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/adamw_1x.py',
    '../_base_/tta.py',
]
model = dict(backbone=_base_.backbone, neck=dict(in_channels=_base_.channels))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.94))
