# DINO on two InternImage-H, Objects365 to COCO: the official dino_4scale_cbinternimage_h_objects365_coco_ss.py.
_base_ = [
    '../_base_/models/dino-4scale_cb-internimage-h.py',
    '../_base_/datasets/coco_large.py',
    '../_base_/schedules/dino_20k.py',
    '../_base_/runtime_iterations.py',
    '../_base_/flip_tta_large.py',
]
load_from = (
    'https://huggingface.co/OpenGVLab/InternImage/resolve/main/dino_4scale_cbinternimage_h_objects365_80classes.pth'
)
