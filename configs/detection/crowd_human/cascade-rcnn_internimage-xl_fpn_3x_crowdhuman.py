# Cascade R-CNN on InternImage-XL, CrowdHuman: the official cascade_internimage_xl_fpn_3x_crowd_human.py.
# 64 GPUs of 2 images. No result of it was published.
_base_ = [
    '../_base_/models/cascade-rcnn_internimage.py',
    '../_base_/datasets/crowdhuman.py',
    '../_base_/schedules/adamw_3x.py',
    '../_base_/runtime.py',
    '../_base_/flip_tta.py',
]
pretrained = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_xl_22k_192to384.pth'
model = dict(
    backbone=dict(arch='xlarge', drop_path_rate=0.4, init_cfg=dict(type='Pretrained', checkpoint=pretrained)),
    neck=dict(in_channels=[192, 384, 768, 1536]),
    roi_head=dict(bbox_head=[dict(head, num_classes=1) for head in _base_.model.roi_head.bbox_head]),
)
optim_wrapper = dict(optimizer=dict(weight_decay=1e-4), paramwise_cfg=dict(layer_decay_rate=0.94))
auto_scale_lr = dict(base_batch_size=128)
