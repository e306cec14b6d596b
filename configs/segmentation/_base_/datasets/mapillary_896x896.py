# Mapillary Vistas at 896x896.
_base_ = 'mapillary_512x1024.py'
crop_size = (896, 896)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
datasets = [dict(dataset, pipeline=train_pipeline) for dataset in _base_.datasets]
train_dataloader = dict(dataset=dict(datasets=datasets))
