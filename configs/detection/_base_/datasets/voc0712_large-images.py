# VOC 2007 and 2012 in large images, for schedules that count iterations. The official config has the same pipeline for
# training, but in a place where mmdet 2 ignores it: the official code trains on images of 1000x600.
_base_ = ['mmdet::_base_/datasets/voc0712.py', 'large-images.py']
train_dataloader = dict(
    batch_size=1,
    sampler=dict(type='InfiniteSampler'),
    dataset=dict(
        dataset=dict(
            datasets=[
                # Unlike in mmdet, objects of less than 32 pixels count too.
                dict(dataset, filter_cfg=dict(filter_empty_gt=True, min_size=32), pipeline=_base_.large_train_pipeline)
                for dataset in _base_.train_dataloader.dataset.dataset.datasets
            ]
        )
    ),
)
val_dataloader = dict(dataset=dict(pipeline=_base_.large_test_pipeline))
test_dataloader = val_dataloader
