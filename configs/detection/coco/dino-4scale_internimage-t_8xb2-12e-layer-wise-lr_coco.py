# DINO on InternImage-T, layer-wise learning rates: the official dino_4scale_internimage_t_1x_coco_layer_wise_lr.py.
_base_ = [
    '../_base_/models/dino-4scale_internimage.py',
    '../_base_/datasets/coco-detection_multi-scale-crop.py',
    '../_base_/schedules/dino_12e.py',
    '../_base_/runtime.py',
    '../_base_/flip_tta.py',
]
pretrained = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_t_1k_224.pth'
model = dict(
    backbone=dict(
        arch='tiny', drop_path_rate=0.2, with_cp=True, init_cfg=dict(type='Pretrained', checkpoint=pretrained)
    ),
    neck=dict(in_channels=[128, 256, 512]),
    test_cfg=dict(max_per_img=100),
)
