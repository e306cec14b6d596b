# A small UperNet that labels the pixels of ten handwritten digits, on the backbone that mask-rcnn_digits.py learned.
# ruff: noqa: F821 (MMEngine defines _base_)
_base_ = ['_base_/digits.py', 'mmseg::_base_/models/upernet_r50.py']

default_scope = 'mmseg'
# Nine pixels of ten are background: with equal weights everything becomes background in so short a time.
loss = dict(class_weight=[0.05] + [1.0] * 10)
model = dict(
    data_preprocessor=dict(size=(160, 160)),
    pretrained=None,
    backbone=dict(
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/demo/mask-rcnn/iter_1000.pth'), **_base_.backbone
    ),
    decode_head=dict(in_channels=[32, 64, 128, 256], channels=64, num_classes=11, dropout_ratio=0.0, loss_decode=loss),
    auxiliary_head=dict(in_channels=128, channels=64, num_classes=11, dropout_ratio=0.0, loss_decode=loss),
)

optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    _base_.param_scheduler[0],
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=700),
]
train_cfg = dict(max_iters=700, val_interval=175)

metainfo = dict(classes=('background', *_base_.digits))
pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
train_dataloader = dict(
    dataset=dict(
        type='BaseSegDataset',
        metainfo=metainfo,
        img_suffix='.png',
        data_root=_base_.data_root,
        data_prefix=dict(img_path='images/train', seg_map_path='masks/train'),
        pipeline=pipeline,
    ),
    **_base_.train_loader,
)
val_dataloader = dict(
    dataset=dict(
        type='BaseSegDataset',
        metainfo=metainfo,
        img_suffix='.png',
        data_root=_base_.data_root,
        data_prefix=dict(img_path='images/val', seg_map_path='masks/val'),
        test_mode=True,
        pipeline=pipeline,
    ),
    **_base_.val_loader,
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

visualizer = dict(type='SegLocalVisualizer', name='visualizer', vis_backends=[dict(type='LocalVisBackend')])
