# UperNet. The published checkpoints have 150 classes whatever the data set; Cityscapes needs the first 19 of them.
_base_ = 'mmseg::_base_/models/upernet_r50.py'
model = dict(
    pretrained=None,
    backbone=dict(_delete_=True),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150),
)
