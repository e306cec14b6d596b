# Cascade Mask R-CNN on InternImage, its box heads of four convolutions and one linear layer trained with GIoU. A config
# on top of this names the backbone and the widths of its stages.
_base_ = 'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py'
model = dict(
    backbone=dict(_delete_=True, type='InternImage'),
    roi_head=dict(
        bbox_head=[
            dict(
                head,
                type='ConvFCBBoxHead',
                num_shared_convs=4,
                num_shared_fcs=1,
                conv_out_channels=256,
                norm_cfg=dict(type='SyncBN', requires_grad=True),
                reg_class_agnostic=False,
                reg_decoded_bbox=True,
                loss_bbox=dict(type='GIoULoss', loss_weight=10.0),
            )
            for head in _base_.model.roi_head.bbox_head
        ]
    ),
)
