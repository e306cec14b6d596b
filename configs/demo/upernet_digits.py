"""A small UperNet that labels the pixels of ten handwritten digits, on the backbone that mask-rcnn_digits.py has learned."""

_base_ = ['_base_/digits.py', 'mmseg::_base_/models/upernet_r50.py', 'mmseg::_base_/default_runtime.py']

norm_cfg = dict(type='SyncBN')
class_weight = [0.2] + [1.0] * 10
head = dict(channels=64, num_classes=11, norm_cfg=norm_cfg)
model = dict(
    data_preprocessor=dict(size=(160, 160)),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/demo/mask-rcnn/iter_1000.pth'),
        **_base_.backbone,
    ),
    decode_head=dict(
        in_channels=[32, 64, 128, 256], loss_decode=dict(class_weight=class_weight), dropout_ratio=0.0, **head
    ),
    auxiliary_head=dict(in_channels=128, loss_decode=dict(class_weight=class_weight), dropout_ratio=0.0, **head),
)

load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BaseSegDataset',
        metainfo=dict(classes=('background', *_base_.classes)),
        img_suffix='.png',
        data_root=_base_.data_root,
        data_prefix=dict(img_path='images/train', seg_map_path='masks/train'),
        pipeline=load,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset',
        metainfo=dict(classes=('background', *_base_.classes)),
        img_suffix='.png',
        data_root=_base_.data_root,
        data_prefix=dict(img_path='images/val', seg_map_path='masks/val'),
        test_mode=True,
        pipeline=load,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

default_hooks = dict(logger=dict(interval=25), checkpoint=dict(interval=250, max_keep_ckpts=1))
