# DINO on two InternImage-H, Open Images V6: the official dino_4scale_cbinternimage_h_objects365_openimages_ss.py.
_base_ = [
    '../_base_/runtime_iterations.py',
    '../../_base_/backbones/cb-internimage-h.py',
    '../_base_/models/dino-4scale_cb.py',
    '../_base_/datasets/openimages_large-images.py',
    '../_base_/schedules/dino_20k.py',
    '../_base_/tta_large-images.py',
]
load_from = _base_.checkpoints + 'dino_4scale_cbinternimage_h_objects365_80classes.pth'
model = dict(
    backbone=_base_.backbone,
    neck=[dict(_base_.model.neck[0], in_channels=_base_.channels[1:])],
    bbox_head=dict(num_classes=601),
)
train_cfg = dict(max_iters=100000, val_interval=2000)
# Without a name, MMEngine would take openimages/AP50, the first metric, and not know that greater is better.
default_hooks = dict(checkpoint=dict(interval=2000, save_best='openimages/mAP'))
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1].transforms[-1][0].meta_keys += ('instances', 'image_level_labels')  # its metric reads them
