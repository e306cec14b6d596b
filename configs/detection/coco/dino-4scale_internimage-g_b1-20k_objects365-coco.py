# DINO on InternImage-G, Objects365 to COCO: the official dino_4scale_internimage_g_objects365_coco_ss.py.
# The model before COCO was not published: to train, name one in load_from.
_base_ = 'dino-4scale_internimage-h_b1-20k_objects365-coco.py'
model = dict(backbone=dict(arch='giant'), neck=dict(in_channels=[1024, 2048, 4096]))
