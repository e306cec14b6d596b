# COCO-Stuff 164k at 896x896, one image per GPU.
_base_ = ['mmseg::_base_/datasets/coco-stuff164k.py', 'large-images.py']
crop_size = _base_.large_size
train_pipeline = _base_.large_train_pipeline
test_pipeline = _base_.large_test_pipeline
tta_pipeline = _base_.large_tta_pipeline
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
