"""Edited configs of mmdet 2 and mmseg 0, whose bases are not at hand, for the dataset of the demo in data/digits."""

MASK_RCNN = """
_base_ = [
    '../_base_/models/mask_rcnn_r50_fpn.py', '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/schedule_1x.py', '../_base_/default_runtime.py',
]
pretrained = 'https://host/internimage_t_1k_224.pth'
model = dict(
    backbone=dict(
        _delete_=True, type='InternImage', core_op='DCNv3', channels=64, depths=[4, 4, 18, 4], groups=[4, 8, 16, 32],
        mlp_ratio=4., drop_path_rate=0.3, norm_layer='LN', layer_scale=1.0, offset_scale=1.0, post_norm=False,
        with_cp=True, out_indices=(0, 1, 2, 3), init_cfg=dict(type='Pretrained', checkpoint=pretrained)),
    neck=dict(type='FPN', in_channels=[64, 128, 256, 512], out_channels=256, num_outs=5),
    rpn_head=dict(anchor_generator=dict(scales=[4])),
    roi_head=dict(bbox_head=dict(num_classes=10), mask_head=dict(num_classes=10)),
    test_cfg=dict(rcnn=dict(score_thr=0.05)))
img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', img_scale=[(64, 48), (64, 64)], keep_ratio=True),
    dict(type='RandomFlip', flip_ratio=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='Normalize', **img_norm_cfg),
    dict(type='Pad', size_divisor=32),
    dict(type='DefaultFormatBundle'),
    dict(type='Collect', keys=['img', 'gt_bboxes', 'gt_labels', 'gt_masks']),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='MultiScaleFlipAug', img_scale=(64, 64), flip=False, transforms=[dict(type='Resize', keep_ratio=True)]),
]
data_root = 'data/digits/'
classes = tuple('0123456789')
data = dict(
    samples_per_gpu=4,
    workers_per_gpu=0,
    train=dict(
        type='CocoDataset', classes=classes, ann_file=data_root + 'annotations/train.json',
        img_prefix=data_root + 'images/train/', pipeline=train_pipeline),
    val=dict(
        type='CocoDataset', classes=classes, ann_file=data_root + 'annotations/val.json',
        img_prefix=data_root + 'images/val/', pipeline=test_pipeline),
    test=dict(
        type='CocoDataset', classes=classes, ann_file=data_root + 'annotations/val.json',
        img_prefix=data_root + 'images/val/', pipeline=test_pipeline))
optimizer = dict(
    _delete_=True, type='AdamW', lr=0.00005, weight_decay=0.1, constructor='CustomLayerDecayOptimizerConstructor',
    paramwise_cfg=dict(num_layers=30, layer_decay_rate=0.9, depths=[4, 4, 18, 4]))
optimizer_config = dict(grad_clip=dict(max_norm=1.0, norm_type=2))
lr_config = dict(policy='step', warmup='linear', warmup_iters=100, warmup_ratio=0.001, step=[16, 22])
runner = dict(type='EpochBasedRunner', max_epochs=24)
fp16 = dict(loss_scale=dict(init_scale=512))
evaluation = dict(interval=2, metric=['bbox', 'segm'], save_best='auto')
checkpoint_config = dict(interval=1, max_keep_ckpts=5)
log_config = dict(interval=10, hooks=[dict(type='TextLoggerHook')])
my_settings = dict(a=1)
"""
UPERNET = """
_base_ = [
    '../_base_/models/upernet_r50.py', '../_base_/datasets/cityscapes.py', '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_160k.py',
]
model = dict(
    backbone=dict(type='InternImage', channels=80, depths=[4, 4, 21, 4], groups=[5, 10, 20, 40], drop_path_rate=0.3,
                  layer_scale=1.0, post_norm=True),
    decode_head=dict(num_classes=11, in_channels=[80, 160, 320, 640]),
    auxiliary_head=dict(num_classes=11, in_channels=320))
crop_size = (32, 64)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', img_scale=(128, 96), ratio_range=(0.5, 2.0)),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='Normalize'),
    dict(type='Pad', size=crop_size, pad_val=0, seg_pad_val=255),
    dict(type='DefaultFormatBundle'),
    dict(type='Collect', keys=['img', 'gt_semantic_seg']),
]
dataset = dict(type='CustomDataset', data_root='data/digits', classes=('none', *'0123456789'), img_suffix='.png')
data = dict(
    samples_per_gpu=4,
    train=dict(**dataset, img_dir='images/train', ann_dir='masks/train', pipeline=train_pipeline),
    val=dict(**dataset, img_dir='images/val', ann_dir='masks/val'),
    test=dict(**dataset, img_dir='images/val', ann_dir='masks/val'))
lr_config = dict(policy='poly', warmup='linear', warmup_iters=10, warmup_ratio=1e-6, power=0.9, min_lr=1e-7,
                 by_epoch=False)
runner = dict(type='IterBasedRunner', max_iters=2)
evaluation = dict(interval=2, metric='mIoU')
"""
