# Open Images V6 in large images, in the folders of the official code.
_base_ = ['mmdet::_base_/datasets/openimages_detection.py', 'large-images.py']
large_test_pipeline = _base_.large_test_pipeline
large_test_pipeline[-1].meta_keys += ('instances', 'image_level_labels')  # its metric reads them
train_dataloader = dict(
    batch_size=1,
    num_workers=2,
    # As in the official config, which mmdet 2 ignores where the schedule counts iterations.
    sampler=dict(_delete_=True, type='ClassAwareSampler', num_sample_class=1),
    dataset=dict(data_prefix=dict(img='train/'), pipeline=_base_.large_train_pipeline),
)
val_dataloader = dict(num_workers=2, dataset=dict(data_prefix=dict(img='validation/'), pipeline=large_test_pipeline))
test_dataloader = val_dataloader
