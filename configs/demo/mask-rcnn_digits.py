# A small Mask R-CNN that learns ten handwritten digits from scratch, on a CPU.
_base_ = ['_base_/digits_detection.py', '../detection/_base_/models/mask-rcnn.py']

roi_extractor = dict(roi_layer=dict(sampling_ratio=1), out_channels=64, featmap_strides=[4, 8])
model = dict(
    backbone=_base_.backbone,
    neck=dict(in_channels=_base_.channels, out_channels=64, norm_cfg=dict(type='BN')),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=roi_extractor,
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=10, reg_class_agnostic=True),
        mask_roi_extractor=roi_extractor,
        mask_head=dict(in_channels=64, conv_out_channels=64, num_convs=2, num_classes=10, class_agnostic=True),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=32, pos_fraction=0.5)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100), rcnn=dict(max_per_img=20)),
)
