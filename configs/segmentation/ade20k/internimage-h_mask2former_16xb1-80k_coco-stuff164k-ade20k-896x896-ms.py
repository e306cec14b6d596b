# The same with the views of the published multi-scale result, for evaluation with --tta:
# the official mask2former_internimage_h_896_80k_cocostuff2ade20k_ms.py.
_base_ = 'internimage-h_mask2former_16xb1-80k_coco-stuff164k-ade20k-896x896.py'
ratios = [side / 896 for side in (768, 832, 896, 960, 1024)]
tta_pipeline = [dict(type='LoadImageFromFile'), dict(type='MultiScaleFlip', scale=(3584, 896), ratios=ratios)]
