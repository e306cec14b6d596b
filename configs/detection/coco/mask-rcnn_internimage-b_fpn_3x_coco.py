# Mask R-CNN on InternImage-B, 36 epochs: the official mask_rcnn_internimage_b_fpn_3x_coco.py.
_base_ = 'mask-rcnn_internimage-t_fpn_3x_coco.py'
pretrained = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_b_1k_224.pth'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.4, init_cfg=dict(type='Pretrained', checkpoint=pretrained)),
    neck=dict(in_channels=[112, 224, 448, 896]),
)
