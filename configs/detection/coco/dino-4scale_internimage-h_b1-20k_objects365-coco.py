# DINO on InternImage-H, Objects365 to COCO: the official dino_4scale_internimage_h_objects365_coco_ss.py.
# The model before COCO was not published: to train, name one in load_from.
_base_ = [
    '../_base_/models/dino-4scale_internimage.py',
    '../_base_/datasets/coco_large.py',
    '../_base_/schedules/dino_20k.py',
    '../_base_/runtime_iterations.py',
    '../_base_/flip_tta_large.py',
]
model = dict(
    backbone=dict(arch='huge', drop_path_rate=0.5, with_cp=True),
    neck=dict(in_channels=[640, 1280, 2560]),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=1000)),
)
