# DINO on two InternImage-H, Objects365 to COCO: the official dino_4scale_cbinternimage_h_objects365_coco_ss.py.
_base_ = [
    '../_base_/runtime_iterations.py',
    '../../_base_/backbones/cb-internimage-h.py',
    '../_base_/models/dino-4scale_cb.py',
    '../_base_/datasets/coco-detection_large-images.py',
    '../_base_/schedules/dino_20k.py',
    '../_base_/tta_large-images.py',
]
load_from = _base_.checkpoints + 'dino_4scale_cbinternimage_h_objects365_80classes.pth'
model = dict(backbone=_base_.backbone, neck=[dict(_base_.model.neck[0], in_channels=_base_.channels[1:])])
