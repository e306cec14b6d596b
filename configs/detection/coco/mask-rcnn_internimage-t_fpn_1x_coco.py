# Mask R-CNN on InternImage-T, 12 epochs: the official mask_rcnn_internimage_t_fpn_1x_coco.py.
_base_ = [
    '../_base_/models/mask-rcnn_internimage.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/adamw_1x.py',
    '../_base_/runtime.py',
    '../_base_/flip_tta.py',
]
pretrained = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_t_1k_224.pth'
model = dict(
    backbone=dict(arch='tiny', drop_path_rate=0.2, init_cfg=dict(type='Pretrained', checkpoint=pretrained)),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
