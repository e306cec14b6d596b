# DINO on InternImage-L, layer-wise learning rates: the official dino_4scale_internimage_l_1x_coco_layer_wise_lr.py.
_base_ = [
    '../_base_/runtime.py',
    '../../_base_/backbones/internimage-l.py',
    '../_base_/models/dino-4scale.py',
    '../_base_/datasets/coco-detection_multi-scale-crop.py',
    '../_base_/schedules/dino_12e.py',
    '../_base_/tta.py',
]
model = dict(backbone=dict(_base_.backbone, with_cp=False), neck=dict(in_channels=_base_.channels[1:]))
tta_model = dict(tta_cfg=dict(max_per_img=300))
