# DINO on two InternImage-H, LVIS v1 minival: the official dino_4scale_cbinternimage_h_objects365_lvis_minival_ss.py.
_base_ = 'dino-4scale_cb-internimage-h_b1-80k_objects365-lvis-v1-val.py'
val_dataloader = dict(dataset=dict(ann_file='annotations/lvis_v1_minival.json'))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='data/lvis_v1/annotations/lvis_v1_minival.json')
test_evaluator = val_evaluator
