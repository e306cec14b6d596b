# Cityscapes at 512x1024. Its images of 2048x1024 need no stretching to multiples of 32.
_base_ = 'mmseg::_base_/datasets/cityscapes.py'
tta_pipeline = [dict(type='LoadImageFromFile'), dict(type='MultiScaleFlip', scale=(2048, 1024))]
unused_classes = 131  # the published UperNets and SegFormers have 150 outputs and use the first 19
