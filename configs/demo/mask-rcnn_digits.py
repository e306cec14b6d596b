# A small Mask R-CNN that learns ten handwritten digits from scratch, on a CPU.
# ruff: noqa: F821 (MMEngine defines _base_)
_base_ = ['_base_/digits.py', 'mmdet::_base_/models/mask-rcnn_r50_fpn.py']

default_scope = 'mmdet'
roi_extractor = dict(roi_layer=dict(sampling_ratio=1), out_channels=64, featmap_strides=[4, 8])
model = dict(
    backbone=_base_.backbone,
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64, norm_cfg=dict(type='BN')),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=roi_extractor,
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=10, reg_class_agnostic=True),
        mask_roi_extractor=roi_extractor,
        mask_head=dict(in_channels=64, conv_out_channels=64, num_convs=2, num_classes=10, class_agnostic=True),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=32, pos_fraction=0.5)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100), rcnn=dict(max_per_img=20)),
)

load_image = dict(type='LoadImageFromFile')
load_truth = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
resize = dict(type='Resize', scale=(160, 160), keep_ratio=True)
meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
train_dataloader = dict(
    dataset=dict(
        type='CocoDataset',
        metainfo=dict(classes=_base_.digits),
        data_root=_base_.data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='images/train/'),
        pipeline=[load_image, load_truth, resize, dict(type='PackDetInputs')],
    ),
    **_base_.train_loader,
)
val_dataloader = dict(
    dataset=dict(
        type='CocoDataset',
        metainfo=dict(classes=_base_.digits),
        data_root=_base_.data_root,
        ann_file='annotations/val.json',
        data_prefix=dict(img='images/val/'),
        test_mode=True,
        pipeline=[load_image, resize, load_truth, dict(type='PackDetInputs', meta_keys=meta_keys)],
    ),
    **_base_.val_loader,
)
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file=_base_.data_root + 'annotations/val.json', metric=['bbox', 'segm'])
test_evaluator = val_evaluator

visualizer = dict(type='DetLocalVisualizer', name='visualizer', vis_backends=[dict(type='LocalVisBackend')])
