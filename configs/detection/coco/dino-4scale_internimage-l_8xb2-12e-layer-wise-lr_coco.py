# DINO on InternImage-L, layer-wise learning rates: the official dino_4scale_internimage_l_1x_coco_layer_wise_lr.py.
_base_ = 'dino-4scale_internimage-t_8xb2-12e-layer-wise-lr_coco.py'
pretrained = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_l_22k_192to384.pth'
model = dict(
    backbone=dict(arch='large', drop_path_rate=0.4, with_cp=False, init_cfg=dict(checkpoint=pretrained)),
    neck=dict(in_channels=[320, 640, 1280]),
    test_cfg=dict(max_per_img=300),
)
tta_model = dict(tta_cfg=dict(max_per_img=300))
