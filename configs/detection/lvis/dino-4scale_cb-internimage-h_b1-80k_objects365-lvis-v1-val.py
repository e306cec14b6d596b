# DINO on two InternImage-H, LVIS v1 val: the official dino_4scale_cbinternimage_h_objects365_lvis_val_ss.py.
# That describes a federated loss too, which the official code does not have.
_base_ = [
    '../_base_/runtime_iterations.py',
    '../../_base_/backbones/cb-internimage-h.py',
    '../_base_/models/dino-4scale_cb.py',
    '../_base_/datasets/lvis-v1_large-images.py',
    '../_base_/schedules/dino_20k.py',
    '../_base_/tta_large-images.py',
]
load_from = _base_.checkpoints + 'dino_4scale_cbinternimage_h_objects365_80classes.pth'
model = dict(
    backbone=_base_.backbone,
    neck=[dict(_base_.model.neck[0], in_channels=_base_.channels[1:])],
    bbox_head=dict(num_classes=1203),
)
train_cfg = dict(max_iters=80000, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500, max_keep_ckpts=10, save_best=None))
