# Pascal Context with 59 classes at 480x480, one image per GPU.
_base_ = 'mmseg::_base_/datasets/pascal_context_59.py'
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(4096, 520), keep_ratio=True),
    dict(type='ResizeToMultiple', size_divisor=32),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [dict(type='LoadImageFromFile'), dict(type='MultiScaleFlip', scale=(4096, 520))]
train_dataloader = dict(batch_size=1)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
