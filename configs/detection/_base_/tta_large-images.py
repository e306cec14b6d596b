# Test-time augmentation of large images. The official files do not name the views of the published multi-scale results.
_base_ = 'tta.py'
tta_model = dict(tta_cfg=dict(max_per_img=300))
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1].transforms[0] = [dict(type='Resize', scale=(2000, 1000), keep_ratio=True)]
# The metrics of VOC and Open Images read the ground truth here. Loaded last, it stays in pixels of the original image.
tta_pipeline[1].transforms.insert(-1, [dict(type='LoadAnnotations', with_bbox=True)])
