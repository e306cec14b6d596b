# LVIS v1 without masks, in large images, for schedules that count iterations.
_base_ = ['mmdet::_base_/datasets/lvis_v1_instance.py', 'large-images.py']
train_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type='InfiniteSampler'),
    dataset=dict(dataset=dict(pipeline=_base_.large_train_pipeline)),
)
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=_base_.large_test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='CompatLVISMetric', metric='bbox')
test_evaluator = val_evaluator
