# COCO without masks, for DINO: crops are taken from larger images than for Mask R-CNN and always hold an object.
_base_ = ['mmdet::_base_/datasets/coco_detection.py', 'multi-scale-crop.py']
multi_scale_crop = _base_.multi_scale_crop
multi_scale_crop.transforms[1][0].scales = [(400, 4200), (500, 4200), (600, 4200)]
multi_scale_crop.transforms[1][1].allow_negative_crop = False
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    multi_scale_crop,
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
