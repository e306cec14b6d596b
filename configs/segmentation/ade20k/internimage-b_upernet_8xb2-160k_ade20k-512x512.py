# UperNet on InternImage-B, ADE20K: the official upernet_internimage_b_512_160k_ade20k.py.
_base_ = [
    '../_base_/runtime.py',
    '../../_base_/backbones/internimage-b.py',
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/adamw_160k.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=_base_.backbone,
    decode_head=dict(in_channels=_base_.channels),
    auxiliary_head=dict(in_channels=_base_.channels[2]),
)
