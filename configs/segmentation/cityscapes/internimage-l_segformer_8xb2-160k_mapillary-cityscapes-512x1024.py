# SegFormer's head on InternImage-L, Cityscapes, from Mapillary Vistas:
# the official segformer_internimage_l_512x1024_160k_mapillary2cityscapes.py.
_base_ = [
    '../_base_/runtime.py',
    '../../_base_/backbones/internimage-l.py',
    '../_base_/models/segformer.py',
    '../_base_/datasets/cityscapes-coarse_512x1024.py',
    '../_base_/schedules/adamw-large_160k.py',
]
load_from = _base_.checkpoints + 'segformer_internimage_l_512x1024_80k_mapillary.pth'
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(_base_.backbone, init_cfg=None),
    decode_head=dict(in_channels=_base_.channels),
)
train_cfg = dict(val_interval=4000)
