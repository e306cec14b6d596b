# DINO on InternImage-H, Objects365 to COCO: the official dino_4scale_internimage_h_objects365_coco_ss.py.
# The detector trained on Objects365 was not published: to train, name your own in load_from.
_base_ = [
    '../_base_/runtime_iterations.py',
    '../../_base_/backbones/internimage-h.py',
    '../_base_/models/dino-4scale.py',
    '../_base_/datasets/coco-detection_large-images.py',
    '../_base_/schedules/dino_20k.py',
    '../_base_/tta_large-images.py',
]
model = dict(
    backbone=dict(_base_.backbone, init_cfg=None),
    neck=dict(in_channels=_base_.channels[1:]),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=1000)),
)
