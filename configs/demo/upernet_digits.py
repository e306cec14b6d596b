# A small UperNet that labels the pixels of ten handwritten digits, on the backbone that mask-rcnn_digits.py learned.
_base_ = ['_base_/digits.py', '../segmentation/_base_/models/upernet.py']

default_scope = 'mmseg'
# Nine of ten pixels are background: with equal weights, so short a training predicts background everywhere.
loss = dict(class_weight=[0.05] + [1.0] * 10)
head = dict(channels=64, num_classes=11, dropout_ratio=0.0, loss_decode=loss)
crop_size = (160, 160)  # the size of the dataset's images; larger ones are cropped, smaller ones padded
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        _base_.backbone, init_cfg=dict(type='Pretrained', checkpoint='work_dirs/demo/mask-rcnn/iter_1000.pth')
    ),
    decode_head=dict(head, in_channels=_base_.channels),
    auxiliary_head=dict(head, in_channels=_base_.channels[2]),
)

optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=700)]
train_cfg = dict(max_iters=700, val_interval=175)

segments = dict(
    type='BaseSegDataset',
    metainfo=dict(classes=('background', *_base_.digits)),
    img_suffix='.png',
    data_root=_base_.data_root,
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='PackSegInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
train_dataloader = dict(
    dataset=dict(
        segments, data_prefix=dict(img_path='images/train', seg_map_path='masks/train'), pipeline=train_pipeline
    ),
    **_base_.train_loader,
)
val_dataloader = dict(
    dataset=dict(
        segments,
        data_prefix=dict(img_path='images/val', seg_map_path='masks/val'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
    **dict(_base_.val_loader, batch_size=1),  # whole images, of any size
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

visualizer = dict(type='SegLocalVisualizer', name='visualizer', vis_backends=[dict(type='LocalVisBackend')])
