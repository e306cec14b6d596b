# Cascade Mask R-CNN on InternImage-L, 12 epochs: the official cascade_internimage_l_fpn_1x_coco.py.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_internimage.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/adamw_1x.py',
    '../_base_/runtime.py',
    '../_base_/flip_tta.py',
]
pretrained = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_l_22k_192to384.pth'
model = dict(
    backbone=dict(arch='large', drop_path_rate=0.4, init_cfg=dict(type='Pretrained', checkpoint=pretrained)),
    neck=dict(in_channels=[160, 320, 640, 1280]),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.94))
