# COCO without masks, in large images, for schedules that count iterations.
_base_ = ['mmdet::_base_/datasets/coco_detection.py', 'large-images.py']
large_train_pipeline = _base_.large_train_pipeline
large_train_pipeline[3].scale = [(2000, 600), (2000, 1800)]  # larger than on the other datasets
train_dataloader = dict(batch_size=1, sampler=dict(type='InfiniteSampler'), dataset=dict(pipeline=large_train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.large_test_pipeline))
test_dataloader = val_dataloader
