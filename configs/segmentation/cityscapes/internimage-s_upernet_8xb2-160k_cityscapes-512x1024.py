# UperNet on InternImage-S, Cityscapes: the official upernet_internimage_s_512x1024_160k_cityscapes.py.
_base_ = [
    '../_base_/runtime.py',
    '../../_base_/backbones/internimage-s.py',
    '../_base_/models/upernet.py',
    '../_base_/datasets/cityscapes_512x1024.py',
    '../_base_/schedules/adamw_160k.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=_base_.backbone,
    decode_head=dict(in_channels=_base_.channels),
    auxiliary_head=dict(in_channels=_base_.channels[2]),
)
