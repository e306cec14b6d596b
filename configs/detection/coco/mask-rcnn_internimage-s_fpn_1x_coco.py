# Mask R-CNN on InternImage-S, 12 epochs: the official mask_rcnn_internimage_s_fpn_1x_coco.py.
_base_ = 'mask-rcnn_internimage-t_fpn_1x_coco.py'
pretrained = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_s_1k_224.pth'
model = dict(
    backbone=dict(arch='small', drop_path_rate=0.3, init_cfg=dict(type='Pretrained', checkpoint=pretrained)),
    neck=dict(in_channels=[80, 160, 320, 640]),
)
