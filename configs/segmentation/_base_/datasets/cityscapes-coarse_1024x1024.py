# Cityscapes with its coarsely labelled images, at 1024x1024.
_base_ = 'cityscapes-coarse_512x1024.py'
crop_size = (1024, 1024)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
datasets = [dict(dataset, pipeline=train_pipeline) for dataset in _base_.train_dataloader.dataset.datasets]
train_dataloader = dict(dataset=dict(datasets=datasets))
