# Test-time augmentation for large images. The official files do not say with which views the published
# multi-scale results were found.
_base_ = 'flip_tta.py'
tta_model = dict(tta_cfg=dict(max_per_img=300))
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1].transforms[0] = [dict(type='Resize', scale=(2000, 1000), keep_ratio=True)]
# Last, so that the truth, which the metrics of VOC and Open Images take from here, is in the original image's pixels.
tta_pipeline[1].transforms.insert(-1, [dict(type='LoadAnnotations', with_bbox=True)])
