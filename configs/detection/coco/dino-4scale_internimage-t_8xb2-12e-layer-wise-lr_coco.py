# DINO on InternImage-T, layer-wise learning rates: the official dino_4scale_internimage_t_1x_coco_layer_wise_lr.py.
_base_ = [
    '../_base_/runtime.py',
    '../../_base_/backbones/internimage-t.py',
    '../_base_/models/dino-4scale.py',
    '../_base_/datasets/coco-detection_multi-scale-crop.py',
    '../_base_/schedules/dino_12e.py',
    '../_base_/tta.py',
]
model = dict(backbone=_base_.backbone, neck=dict(in_channels=_base_.channels[1:]), test_cfg=dict(max_per_img=100))
