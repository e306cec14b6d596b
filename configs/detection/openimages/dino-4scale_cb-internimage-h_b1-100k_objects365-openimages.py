# DINO on two InternImage-H, Open Images V6: the official dino_4scale_cbinternimage_h_objects365_openimages_ss.py.
_base_ = [
    '../_base_/models/dino-4scale_cb-internimage-h.py',
    '../_base_/datasets/openimages_large.py',
    '../_base_/schedules/dino_20k.py',
    '../_base_/runtime_iterations.py',
    '../_base_/flip_tta_large.py',
]
load_from = (
    'https://huggingface.co/OpenGVLab/InternImage/resolve/main/dino_4scale_cbinternimage_h_objects365_80classes.pth'
)
model = dict(bbox_head=dict(num_classes=601))
train_cfg = dict(max_iters=100000, val_interval=2000)
# MMEngine cannot tell by itself that more is better of openimages/AP50, which comes first.
default_hooks = dict(checkpoint=dict(interval=2000, save_best='openimages/mAP'))
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1].transforms[-1][0].meta_keys += ('instances', 'image_level_labels')  # for its metric
