# Cascade Mask R-CNN on InternImage-XL, 12 epochs: the official cascade_internimage_xl_fpn_1x_coco.py.
_base_ = 'cascade-mask-rcnn_internimage-l_fpn_1x_coco.py'
pretrained = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_xl_22k_192to384.pth'
model = dict(
    backbone=dict(arch='xlarge', drop_path_rate=0.4, init_cfg=dict(type='Pretrained', checkpoint=pretrained)),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)
