# SegFormer's head on InternImage-XL, Mapillary Vistas: the official segformer_internimage_xl_512x1024_80k_mapillary.py.
_base_ = [
    '../_base_/runtime.py',
    '../../_base_/backbones/internimage-xl.py',
    '../_base_/models/segformer.py',
    '../_base_/datasets/mapillary_512x1024.py',
    '../_base_/schedules/adamw-large_80k.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=_base_.backbone,
    decode_head=dict(in_channels=_base_.channels),
)
