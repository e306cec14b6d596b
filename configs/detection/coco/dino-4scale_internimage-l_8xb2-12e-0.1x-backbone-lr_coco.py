# DINO on InternImage-L, 0.1x backbone rate: the official dino_4scale_internimage_l_1x_coco_0.1x_backbone_lr.py.
_base_ = 'dino-4scale_internimage-l_8xb2-12e-layer-wise-lr_coco.py'
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)
