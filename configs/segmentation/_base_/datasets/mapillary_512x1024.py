# Mapillary Vistas at 512x1024 with the classes of Cityscapes. Training reads both splits, evaluation Cityscapes.
_base_ = 'cityscapes_512x1024.py'
crop_size = (512, 1024)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 1024), ratio_range=(0.5, 1.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
datasets = [
    dict(
        type='MapillaryCityscapesDataset',
        data_root='data/mapillary/',
        data_prefix=dict(img_path=f'{split}/images', seg_map_path=f'{split}/v1.2/labels'),
        pipeline=train_pipeline,
    )
    for split in ('training', 'validation')
]
train_dataloader = dict(dataset=dict(_delete_=True, type='ConcatDataset', datasets=datasets))
