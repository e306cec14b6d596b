# SegFormer's head, without a backbone. All published checkpoints have 150 classes; Cityscapes uses the first 19.
_base_ = 'mmseg::_base_/models/segformer_mit-b0.py'
model = dict(backbone=dict(_delete_=True), decode_head=dict(num_classes=150))
