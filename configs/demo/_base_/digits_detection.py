# The dataset as detectors read it: COCO instances, in the images' own size.
_base_ = 'digits.py'

default_scope = 'mmdet'
load_image = dict(type='LoadImageFromFile')
load_truth = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
resize = dict(type='Resize', scale=(160, 160), keep_ratio=True)
meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
instances = dict(type='CocoDataset', metainfo=dict(classes=_base_.digits), data_root=_base_.data_root)
train_dataloader = dict(
    dataset=dict(
        **instances,
        ann_file='annotations/train.json',
        data_prefix=dict(img='images/train/'),
        pipeline=[load_image, load_truth, resize, dict(type='PackDetInputs')],
    ),
    **_base_.train_loader,
)
val_dataloader = dict(
    dataset=dict(
        **instances,
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
