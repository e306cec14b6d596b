# DINO on two InternImage-H, tested on VOC 2007: the official dino_4scale_cbinternimage_h_objects365_voc07.py.
_base_ = [
    '../_base_/runtime_iterations.py',
    '../../_base_/backbones/cb-internimage-h.py',
    '../_base_/models/dino-4scale_cb.py',
    '../_base_/datasets/voc0712_large-images.py',
    '../_base_/schedules/dino_20k.py',
    '../_base_/tta_large-images.py',
]
load_from = _base_.checkpoints + 'dino_4scale_cbinternimage_h_objects365_20classes.pth'
model = dict(
    backbone=_base_.backbone,
    neck=[dict(_base_.model.neck[0], in_channels=_base_.channels[1:])],
    bbox_head=dict(num_classes=20),
)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
train_cfg = dict(val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500))
